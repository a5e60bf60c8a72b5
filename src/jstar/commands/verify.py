"""The subcommand verify: is what lies there what was made?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from jstar.commands.options import Results, app, layout_of
from jstar.constants import RESULTS
from jstar.errors import JstarError


@app.command("verify")
def verify_command(
    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders of results, instead of a study")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="Study file")] = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write the result here (.json), for the report to show"),
    ] = None,
) -> None:
    """Compare every file of a study, or of folders, with the record of what was made.

    A line for each that is damaged, foreign (of another dataset or run), stale
    (made of what is another one since) or missing, and what to run again. Exit
    status 1 if there is one. With --out the report is not looked at: it is made after.
    """
    from jstar.records import provenance, write_json
    from jstar.verify import BAD, count_states, verify_folder, verify_study

    if (config is None) == (not folders):
        raise JstarError("verify: give either --config, or folders of results")
    if config is not None:
        found = verify_study(layout_of(config, results), page=out is None)
    else:
        found = [one for folder in folders or [] for one in verify_folder(folder)]
    bad = [one for one in found if one.state in BAD]
    for one in bad:
        typer.echo(one.line())
    typer.echo(count_states(found))
    if out is not None:
        lines = [{**asdict(one), "path": str(one.path)} for one in found]
        write_json(out, provenance(summary=count_states(found), bad=len(bad), files=lines))
    raise typer.Exit(1 if bad else 0)
