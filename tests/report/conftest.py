"""The small fitted studies of the figures' tests, and the captions."""

from figures.conftest import caption, fitted

__all__ = ["caption", "fitted"]
