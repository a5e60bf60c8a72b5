"""WebDataset tars: samples of files that share a stem, as 000123.jpg and 000123.cls."""

from pathlib import Path

import numpy as np

from jstar.config import DatasetConfig
from jstar.data.sources.base import Reader, Shape, Source, source_path
from jstar.data.sources.files import KEYS, file_source, is_image, shape_of
from jstar.data.sources.index import TarIndex, first_of_tar
from jstar.errors import JstarError


class SampleIndex(TarIndex):
    """The images of WebDataset tars, in the order they stand in, and their labels."""

    def __init__(self, paths: list[Path]) -> None:
        super().__init__(paths, lambda name: is_image(name) or name.endswith(".cls"), in_order=True)
        stems = [(*self.facts[at, :1], _stem(name)) for at, name in enumerate(self.names)]
        marks = {stem: at for at, stem in enumerate(stems) if self.names[at].endswith(".cls")}
        keep = [at for at, name in enumerate(self.names) if not name.endswith(".cls")]
        if (
            marks
            and (bare := next((at for at in keep if stems[at] not in marks), None)) is not None
        ):
            raise JstarError(f"{self.item(bare).label}: has no label beside it (.cls)")
        self.labels_N = np.zeros(len(keep), np.int64)
        for row, at in enumerate(keep if marks else []):
            self.labels_N[row] = self._label(marks[stems[at]])
        self.names, self.facts = [self.names[at] for at in keep], self.facts[keep]

    def _label(self, at: int) -> int:
        item = self.item(at)
        try:
            return int(item.read())
        except ValueError as error:
            raise JstarError(f"{item.label}: must hold one integer, the class") from error


def _stem(name: str) -> str:
    """The sample's key: up to the first dot of the file's name."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _tars(config: DatasetConfig) -> list[Path]:
    path = source_path(config)
    tars = [path] if path.is_file() else sorted(path.glob("*.tar"))
    if not tars:
        raise JstarError(f"{path}: holds no .tar file")
    return tars


def open_webdataset(config: DatasetConfig) -> Source:
    """A tar or a folder of tars, read in the order of their names."""
    index = SampleIndex(_tars(config))
    classes = int(index.labels_N.max(initial=0)) + 1
    return file_source(config, index, index.labels_N, classes)


def glance_webdataset(config: DatasetConfig) -> tuple[None, Shape]:
    """The shape of the first image; how many there are is not known before the tars are read."""
    found = (first_of_tar(path, is_image) for path in _tars(config))
    return None, shape_of(config, next((item for item in found if item), None))


WEBDATASET = Reader(
    open_webdataset, glance_webdataset, KEYS, "give a .tar or a folder of .tar files"
)
