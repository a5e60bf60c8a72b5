"""The subcommand bench: how fast is this machine at what jstar does?"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from jstar.commands.options import Threads, app, set_threads
from jstar.errors import JstarError

SECONDS = 2.0


@app.command("bench")
def bench_command(
    threads: Threads = None,
    seconds: Annotated[
        float, typer.Option(help="Of each measurement; the default takes a minute or two")
    ] = SECONDS,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the table here (.csv)")
    ] = None,
) -> None:
    """Measure this machine at what jstar does, beside the committed numbers of another.

    fp32 matrix products; J* over two of them; the block in C against torch, and
    which is used; training of three sizes of the default study; the start of
    commands. On one thread and by processor time, unless the line says otherwise:
    what else runs disturbs it little.
    """
    from jstar.extras import require

    require("torch")
    if seconds <= 0:
        raise JstarError(f"--seconds = {seconds:g} is not allowed, it must be above 0")
    if out is not None and out.suffix != ".csv":
        raise JstarError(f"--out {out}: a table is written, its name must end in .csv")
    set_threads(threads)
    from jstar.bench import bench_frame, bench_lines, machine, measure_all
    from jstar.records import provenance, write_table

    facts = machine()
    found = measure_all(seconds, lambda part: print(f"bench: {part} ...", file=sys.stderr))
    typer.echo("\n".join(bench_lines(found)))
    if out is not None:
        budget = "" if seconds == SECONDS else f"--seconds {seconds:g} "
        command = f"jstar bench {budget}--out {out}"
        note = f"load {facts['load']} as it began"
        write_table(out, bench_frame(found), provenance(command=command, note=note, **facts))
