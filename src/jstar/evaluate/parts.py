"""What of a run is measured already: one small file a network, so that a killed job loses one."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jstar.errors import JstarError
from jstar.records import SEAL, fingerprint, read_json, write_record

FOLDER = "evaluate"  # in a run's folder of resumable state


@dataclass(frozen=True)
class Network:
    """One network to measure: an average of a snapshot, or the end of a cooldown."""

    snapshot: int
    images: int
    flops: float
    ema: float


class MeasuredNetworks:
    """Measured networks in a folder named by all that their numbers depend on."""

    def __init__(self, state: Path, content: dict[str, Any]) -> None:
        self.folder = state / FOLDER / fingerprint(content)

    def read(self, network: Network) -> list[list[float]] | None:
        """The rows of a network, None where they are still to be measured."""
        path = self._path(network)
        if not path.is_file():
            return None
        try:
            tree = read_json(path)
            rows = tree["rows"]
        except (JstarError, KeyError):
            return None  # damaged or edited: measured anew
        if SEAL not in tree:
            return None
        return [[np.nan if value is None else value for value in row] for row in rows]

    def write(self, network: Network, rows: list[list[float]]) -> None:
        """Keep the rows of a network."""
        write_record(self._path(network), {**asdict(network), "rows": rows})

    def _path(self, network: Network) -> Path:
        return self.folder / f"{network.snapshot:03d}-{network.ema:g}.json"


def parse_share(text: str) -> tuple[int, int]:
    """'2/8' -> (2, 8): every eighth network from the second on. Raises JstarError."""
    number, _, count = text.partition("/")
    if number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise JstarError(f"--shard = '{text}' is not allowed: k/n with k from 1 to n, for example 2/8")
