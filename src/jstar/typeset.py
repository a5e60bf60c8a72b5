"""Tables as text: Markdown, and LaTeX for a paper."""

Rows = list[list[str]]


def markdown(rows: Rows, caption: str) -> str:
    """A pipe table with its caption; the first row is the head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\\\|") for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows[0]))
    return f"{caption}\n\n" + "\n".join(lines) + "\n"


def latex(rows: Rows, caption: str, label: str) -> str:
    """A booktabs table; cells are escaped."""
    body = [" & ".join(_tex(cell) for cell in row) + r" \\" for row in rows]
    spec = "l" * len(rows[0])
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(caption)}}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


SYMBOLS = {"α": r"$\alpha$", "β": r"$\beta$", "σ": r"$\sigma$", "J*": "$J^*$", "×": r"$\times$",
           "−": "$-$", "²": "$^2$", "Δ": r"$\Delta$", "≥": r"$\geq$"}  # fmt: skip


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("_", r"\_"), ("%", r"\%"), ("&", r"\&"),
                           ("#", r"\#"), ("^", r"\^{}"), ("~", r"\~{}")):  # fmt: skip
        text = text.replace(plain, escaped)
    for symbol, math in SYMBOLS.items():
        text = text.replace(symbol, math)
    return text
