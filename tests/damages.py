"""Ways to damage a file."""

import numpy as np


def rewrite(path, content):
    """New bytes in a file of its own, as an editor or a copy leaves them."""
    path.unlink()
    path.write_bytes(content)


def flip(path, at=0.7):
    """One bit."""
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    rewrite(path, bytes(content))


def cut(path):
    rewrite(path, path.read_bytes()[: path.stat().st_size * 2 // 3])


def empty(path):
    rewrite(path, b"")


def zeros(path, share=0.01):
    """A share of the bytes zeroed, up to the last that is not zero."""
    content = path.read_bytes()
    stop, count = len(content.rstrip(b"\0")), max(4, int(len(content) * share))
    rewrite(path, content[: stop - count] + bytes(count) + content[stop:])


def shuffle(path):
    """The rows of an array in another order."""
    array = np.load(path)
    path.unlink()
    np.save(path, array[::-1])


def fortran(path):
    """The same header but for the order of the numbers."""
    rewrite(
        path, path.read_bytes().replace(b"'fortran_order': False", b"'fortran_order': True ", 1)
    )
