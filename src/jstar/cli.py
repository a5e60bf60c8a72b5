"""The command `jstar`: one subcommand a stage."""

import sys

# Importing adds the subcommands, in the order of the help.
# isort: off
from jstar.commands import stages, planning, diagnose, variants, fits, sampling  # noqa: F401

# isort: on
from jstar.commands.options import app
from jstar.errors import JstarError


def main() -> None:
    """Entry point: JstarError becomes one sentence and exit status 2."""
    try:
        app()
    except JstarError as error:
        print(f"jstar: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(1) from None
