"""The command `jstar`: one subcommand a stage."""

import sys

# Importing adds the subcommands, in the order of the help.
from jstar.commands import stages  # noqa: F401

# isort: split
from jstar.commands import planning  # noqa: F401

# isort: split
from jstar.commands import diagnose  # noqa: F401

# isort: split
from jstar.commands import noise  # noqa: F401

# isort: split
from jstar.commands import fits  # noqa: F401

# isort: split
from jstar.commands import sampling  # noqa: F401

# isort: split
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


if __name__ == "__main__":
    main()
