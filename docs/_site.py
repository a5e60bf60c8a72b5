"""MkDocs hook: pages link to tables, pictures and keys that lie beside docs/, not in it.

README.md is the home page. Whatever a page links to outside of docs/ is taken into the site at the
same place below its root, so that one text serves the repository and the site.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)\s#]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add the home page, and what pages link to outside of docs/, and so on from there."""
    home = LINK.sub(lambda link: link[1].removeprefix("docs/"), _text(Path("README.md")))
    waiting = [
        Path("README.md"),
        *(Path("docs") / f.src_uri for f in files if f.is_documentation_page()),
    ]
    files.append(File.generated(config, "index.md", content=home))
    taken = set()
    while waiting:
        page = waiting.pop()
        for link in LINK.findall(_text(page)):
            path = _whole((ROOT / page.parent / link).resolve())
            if path is None or path.parts[0] == "docs" or path in taken:
                continue  # mkdocs itself warns of what is not there
            taken.add(path)
            files.append(File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
            waiting += [path] if path.suffix == ".md" else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """`../results/x.png` of a page in docs/ lies at results/x.png; a folder is its README."""
    here = Path(page.file.src_uri)
    inside = here.parts[0] in ("config", "results")
    folder = ROOT / (here.parent if inside else "docs")

    def there(link: re.Match[str]) -> str:
        text = link[1].replace("../docs/", "../") if inside else link[1].removeprefix("../")
        return text.rstrip("/") + "/README.md" if (folder / link[1]).is_dir() else text

    return LINK.sub(there, markdown)


def _whole(target: Path) -> Path | None:
    """The file that a link means, below the repository's root; of a folder its README."""
    target = target / "README.md" if target.is_dir() else target
    return target.relative_to(ROOT) if target.is_file() and target.is_relative_to(ROOT) else None


def _text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")
