"""The report page: did docutils understand every caption?

Where it did not, Snakemake writes the complaint into the page and ends well.
"""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

from jstar.errors import JstarError

COMPLAINT = re.compile(r'<(div|aside) class="system-message.*?</\1>', re.DOTALL)


def check_report(page: Path) -> None:
    """Raise JstarError if docutils complains about captions of Snakemake's page: it names them."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise JstarError(f"{page}: cannot be read ({error.strerror})") from error
    captions = {"the study": _variable("workflow_desc", text, page)}
    captions |= {
        path: result["caption"] for path, result in _variable("results", text, page).items()
    }
    complaints = [
        f"the caption of {of}: {' '.join(unescape(re.sub('<[^>]*>', '', found[0])).split())}"
        for of, caption in captions.items()
        if (found := COMPLAINT.search(caption))
    ]
    if complaints:
        raise JstarError(f"{page}: docutils complains about {'; '.join(complaints)}")


def _variable(name: str, text: str, page: Path) -> Any:
    """What the page's script calls `name`."""
    start = re.search(rf'<script id="[\w-]+">\s*var {name} = ', text)
    if start is None:
        raise JstarError(f"{page}: is not a report of Snakemake, its '{name}' is missing")
    return json.JSONDecoder().raw_decode(text, start.end())[0]
