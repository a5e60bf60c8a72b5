"""`jstar`, and `python -m jstar`: the command as a process of its own."""

import atexit
import gc
import os
import sys

COLLECT_EVERY = 10_000  # objects that are made, for Python's 700: an import makes 400,000


def run() -> None:
    """`jstar.cli.main`, begun and ended sooner than a Python that might still be used.

    Of the 1.8 s of a process that has nothing to train, .15 s are Python's search for unused
    objects among all that is being imported, and .4 s its taking torch apart at the end.
    """
    status = 1  # after an exception that nobody expects

    def end() -> None:
        """The last of all exit handlers: threads have ended, temporary folders are gone."""
        failed = False
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except (OSError, ValueError):
                failed = True  # a full disk, a pipe that nobody reads
        os._exit(status or int(failed))

    if not atexit._ncallbacks():  # else somebody else's, as coverage's, would not be called
        atexit.register(end)  # the first one, hence the last to be called
    gc.set_threshold(COLLECT_EVERY)
    from jstar.cli import main

    try:
        main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
        raise


if __name__ == "__main__":
    run()
