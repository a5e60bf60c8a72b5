"""jstar on a slow disk: python benchmarks/throttle.py BYTES_PER_SECOND train --config ...

Between two blocks of a checkpoint or snapshot its writer sleeps as long as such a disk takes.
"""

import sys
import time
from collections.abc import Iterator

from jstar.cli import main
from jstar.train.tensor_file import TensorFile


def throttle(bytes_per_second: float) -> None:
    """Let tensors be written no faster than that in this process."""
    blocks = TensorFile.blocks

    def slow(self: TensorFile) -> Iterator[bytes | memoryview]:
        for block in blocks(self):
            yield block
            time.sleep(len(block) / bytes_per_second)

    TensorFile.blocks = slow  # type: ignore[method-assign]


if __name__ == "__main__":
    throttle(float(sys.argv.pop(1)))
    main()
