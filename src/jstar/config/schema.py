"""The study's JSON schema and config/README.md, both generated from the typed config.

`python -m jstar.config.schema` writes them; a test keeps them in step.
"""

import json
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from jstar.config import Part, Study
from jstar.records import write_text

README_HEAD = """# Study files

One file a study. `snakemake --cores all --configfile config/<study>.yaml` runs it,
`jstar check --config config/<study>.yaml` only checks it, `jstar plan --config …` prints what it
will cost, and `jstar rehearse --config …` tries it on this machine for minutes. Unknown keys and
values out of range are refused before any job starts.

This page is generated from `src/jstar/config/` by `python -m jstar.config.schema`.
"""


def schema_text() -> str:
    """JSON schema of a study file (editors use it for completion)."""
    schema = Study.model_json_schema()
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "jstar study"}
    return json.dumps({**schema, **head}, indent=2, ensure_ascii=False) + "\n"


def config_readme() -> str:
    """config/README.md: every key, its type, default and meaning."""
    sections = [README_HEAD]
    sections.append(_section("top level", Study))
    for name, field in Study.model_fields.items():
        part = _part(field.annotation)
        if part is not None:
            sections.append(_section(name, part))
            sections += [
                _section(f"{name}.{key}", nested)
                for key, inner in part.model_fields.items()
                if (nested := _part(inner.annotation)) is not None
            ]
    return "\n".join(sections)


def _part(annotation: Any) -> type[Part] | None:
    """The Part inside an annotation such as `list[LadderEntry]`, if there is one."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _part(inner)
        if found is not None:
            return found
    return None


def _section(title: str, part: type[Part]) -> str:
    lines = [f"## {title}", "", (part.__doc__ or "").strip().splitlines()[0], ""]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for name, field in part.model_fields.items():
        nested = _part(field.annotation)
        many = ", a list" if "list" in str(field.annotation) else ""
        meaning = field.description or (f"see [{name}](#{name}){many}" if nested else "")
        lines.append(f"| `{name}` | {_default(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    if isinstance(field.default, Part):
        return "all defaults"
    return f"`{json.dumps(field.default)}`"


def write(root: Path) -> None:
    """Write both files below the checkout `root`."""
    write_text(root / "workflow" / "schemas" / "study.schema.json", schema_text())
    write_text(root / "config" / "README.md", config_readme())


if __name__ == "__main__":
    write(Path.cwd())
