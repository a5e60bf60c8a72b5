"""The command `jstar`: one subcommand a stage."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer

# Importing adds the subcommands, in the order of the help.
# isort: off
from jstar.commands import application, stages, planning, diagnose  # noqa: F401
from jstar.commands import variants, fits, sampling, verify, bench  # noqa: F401

# isort: on
from jstar.commands.options import app
from jstar.errors import JstarError
from jstar.extras import absent_extra

# click's UsageError, of which newer versions of typer have a copy of their own.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


class TerminatedError(BaseException):
    """SIGTERM came: no Exception, so that nothing takes it for a failure of its own."""


def main() -> None:
    """Entry point: a mistake becomes one sentence and exit status 2, an interruption 130.

    After SIGTERM what is begun is tidied up, and then the process ends by it.
    """
    with _tidied_up():
        _main()


def _main() -> None:
    try:
        status = app(prog_name="jstar", standalone_mode=False)
    except JstarError as error:
        _say(str(error))
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        sentence = absent_extra(error)
        if sentence is None:
            raise
        _say(sentence)
        raise SystemExit(2) from None
    except UsageError as error:
        _say_usage(error)
        raise SystemExit(2) from None
    except BrokenPipeError:
        raise SystemExit(1) from None
    except typer.Abort:
        status = INTERRUPTED
    if status == INTERRUPTED:
        _say("interrupted; what was finished is kept, the same command starts again")
    raise SystemExit(status if isinstance(status, int) else 0)


@contextmanager
def _tidied_up() -> Iterator[None]:
    """Let every `finally` run when SIGTERM comes: temporary folders go, child processes end."""

    def unwind(*_: object) -> None:
        raise TerminatedError  # lost where Python ignores errors, as in a __del__: so not only once

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    except TerminatedError:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    print(f"jstar: {text}", file=sys.stderr)


def _say_usage(error: Exception) -> None:
    """A wrong option in one sentence; a group without its subcommand shows its help instead."""
    context = getattr(error, "ctx", None)
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    if context is None or type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # type: ignore[attr-defined]
        return
    path = context.command_path
    words = path.removeprefix("jstar").strip()
    message = message[:1].lower() + message[1:].rstrip(".")
    _say(f"{words + ': ' if words else ''}{message} (see '{path} --help')")
