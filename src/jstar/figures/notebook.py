"""Run a notebook without a screen and keep what it shows as one HTML page."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jstar.errors import JstarError
from jstar.manifest import parents
from jstar.records import provenance, write_record, write_text


def run_notebook(
    path: Path, out: Path, parameters: dict[str, Any], of: Iterable[Path] = ()
) -> None:
    """Execute `path` with `parameters` from the present folder and write it as HTML to `out`.

    of: tables that it reads, named in the record beside `out` (.json).
    Raises JstarError naming the cell's error; then nothing is written.
    """
    import papermill
    from nbconvert import HTMLExporter
    from papermill.exceptions import PapermillExecutionError

    if not path.is_file():
        raise JstarError(f"{path}: no such notebook")
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / "executed.ipynb"
        try:
            papermill.execute_notebook(
                str(path), str(executed), parameters, progress_bar=False, kernel_name="python3"
            )
        except PapermillExecutionError as error:
            raise JstarError(
                f"{path}: cell {error.exec_count} fails with {error.ename}: {error.evalue}"
            ) from error
        exporter = HTMLExporter(template_name="lab")  # type: ignore[no-untyped-call]
        page, _ = exporter.from_filename(str(executed))
    write_text(out, page)
    record = out.with_suffix(".json")
    write_record(record, provenance(notebook=path.name, **parents(record, of)), [out])
