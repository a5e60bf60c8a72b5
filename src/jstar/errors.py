"""The one error a user is meant to read."""

import difflib
from collections.abc import Iterable


class JstarError(Exception):
    """A mistake in the input, in one sentence: which file or key, what was found, what is allowed.

    The command line prints the sentence and exits with status 2, without a traceback.
    """


def closest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word that `word` may be meant to be, None where none is near."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return close[0] if close else None


def nearest(word: str, allowed: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the allowed word nearest to `word`, or an empty string."""
    found = closest(word, allowed)
    return f", did you mean '{found}'?" if found else ""
