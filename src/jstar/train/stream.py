"""Training data: every image, noise scale and noise is a pure function of (seed, image index).

The index counts the images of the whole run, over all ranks. Nothing depends on the batch, the
number of processes or where a run was interrupted.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jstar.data import Dataset
from jstar.train.chunk import Chunk
from jstar.train.noise_law import TrainingNoiseLaw
from jstar.train.rows import StoredRows

Rows = TypeVar("Rows", NDArray[Any], Tensor)

# Streams of one seed, as the high half of a Philox key: no two uses share a number, and none
# shares one with the evaluation draws (`jstar.noise.gaussian`, stream 0).
ORDER, UNIFORM, NOISE, LATENT = 1, 2, 3, 4
UNIFORM_BLOCK = 4096  # images whose three uniforms come from one generator
NOISE_BLOCK = 32  # images whose noise comes from one generator


class Stream:
    """Draws the chunks of one rank of one run."""

    def __init__(
        self,
        dataset: Dataset,
        noise_law: TrainingNoiseLaw,
        seed: int,
        *,
        batch: int,
        class_drop: float = 1.0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        resident: bool = False,
    ) -> None:
        self.dataset, self.noise_law, self.seed = dataset, noise_law, seed
        self.batch, self.rank, self.world = batch, rank, world
        self.class_drop, self.device = class_drop, torch.device(device)
        self.images = StoredRows(dataset.images_NCHW, self.device, resident=resident)
        self.stds = None
        if dataset.stds_NCHW is not None:
            self.stds = StoredRows(dataset.stds_NCHW, self.device, resident=resident)

    def chunk(self, start: int, stop: int, then: int | None = None) -> Chunk:
        """Inputs of the steps start...stop - 1. Those up to step `then` will be asked for next."""
        share, index = self.batch // self.world, self._index(start, stop)
        uniform = np.concatenate(_pieces(index, UNIFORM_BLOCK, self._uniform))
        sigma = self.noise_law.process.law.quantile(torch.from_numpy(uniform[:, 0]))  # float64
        data = self.data_index(index)
        x0, eps = self._images(data), self._noise(index, NOISE)
        card = self.dataset.card
        if self.stds is not None:  # a latent is drawn anew at every visit
            x0 = torch.addcmul(x0, self.stds.take(data) * card.scale, self._noise(index, LATENT))
        if then is not None and then > stop:
            self._expect(stop, then)
        if card.mirror:
            flip = torch.from_numpy(uniform[:, 1] < 0.5).to(self.device)
            x0 = torch.where(flip[:, None, None, None], x0.flip(-1), x0)
        labels = None
        if self.class_drop < 1:
            dropped = np.where(uniform[:, 2] < self.class_drop, card.classes,
                               self.dataset.labels_N[data])  # fmt: skip
            labels = torch.from_numpy(dropped).to(self.device).view(stop - start, share)
        return self._precondition(x0, eps, sigma, labels, (stop - start, share))

    def _index(self, start: int, stop: int) -> NDArray[np.int64]:
        """Images of the run that this rank sees in the steps start...stop - 1."""
        share = self.batch // self.world
        step_K1 = np.arange(start, stop)[:, None]
        return (step_K1 * self.batch + self.rank * share + np.arange(share)).reshape(-1)

    def _expect(self, start: int, stop: int) -> None:
        """Begin to read what the steps start...stop - 1 need from the disk."""
        data = self.data_index(self._index(start, stop))
        for rows in (self.images, self.stds):
            if rows is not None:
                rows.expect(data)

    def _precondition(
        self, x0: Tensor, eps: Tensor, sigma: Tensor, labels: Tensor | None, shape: tuple[int, int]
    ) -> Chunk:
        """Network inputs and targets; the coefficients are computed in float64."""
        p, control = self.noise_law.process, self.noise_law.control

        def per_image(value: Tensor) -> Tensor:
            return value.float().to(self.device)

        def over_image(value: Tensor) -> Tensor:
            return per_image(value)[:, None, None, None]

        x = torch.addcmul(x0, over_image(sigma), eps)
        # (x0 - c_skip x) / c_out, split so that x0 does not cancel at small noise scales.
        a, b = (1 - p.c_skip(sigma)) / p.c_out(sigma), p.c_skip(sigma) * sigma / p.c_out(sigma)
        target = over_image(a) * x0 - over_image(b) * eps
        to_x0 = p.c_out(sigma) ** 2
        return Chunk(
            x_in=(over_image(p.c_in(sigma)) * x).view(*shape, *x.shape[1:]),
            target=target.view(*shape, *x.shape[1:]),
            c_noise=per_image(p.c_noise(sigma)).view(shape),
            weight=per_image(p.weight(sigma) * to_x0).view(shape),
            to_x0=per_image(to_x0).view(shape),
            log_sigma=per_image(sigma.log()).view(shape),
            labels=labels,
            control=None
            if control is None
            else control(x0, eps, per_image(sigma)[:, None]).view(shape),
        )

    def data_index(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which data point each image of the run is: a new permutation every epoch."""
        count = len(self.dataset)
        return np.concatenate(
            _pieces(index, count, lambda epoch: _permutation(self.seed, epoch, count))
        )

    def _images(self, data: NDArray[np.int64]) -> Tensor:
        """Images in the model's data scale, on the device, [M, C, H, W]."""
        return (self.images.take(data) - self.dataset.card.offset) * self.dataset.card.scale

    def _uniform(self, block: int) -> NDArray[np.float64]:
        """Uniforms for the noise scale, the mirror and the label of a block of images."""
        return _generator(self.seed, UNIFORM, block).random((UNIFORM_BLOCK, 3))

    def _noise(self, index: NDArray[np.int64], stream: int) -> Tensor:
        """Unit noise [M, C, H, W]. A GPU draws it itself: other numbers on each kind of GPU."""
        shape, size = self.dataset.card.shape, (NOISE_BLOCK, self.dataset.card.dim)

        def cpu_noise(block: int) -> NDArray[np.float32]:
            generator = _generator(self.seed, stream, block)
            return generator.standard_normal(size, dtype=np.float32)

        def gpu_noise(block: int) -> Tensor:
            # CUDA's generator is Philox with a key of 64 bits (the CPU's uses only 32 of a seed).
            key = (self.seed << 32) | (int(stream == LATENT) << 31) | block
            generator = torch.Generator(self.device).manual_seed(key)
            return torch.randn(size, generator=generator, device=self.device)

        if self.device.type == "cpu":
            blocks = _pieces(index, NOISE_BLOCK, cpu_noise)
            return torch.from_numpy(np.concatenate(blocks)).view(-1, *shape)
        return torch.cat(_pieces(index, NOISE_BLOCK, gpu_noise)).view(-1, *shape)


def _generator(seed: int, stream: int, block: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[(stream << 32) | seed, block]))


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return _generator(seed, ORDER, epoch).permutation(count)


def _pieces(index: NDArray[np.int64], block: int, draw: Callable[[int], Rows]) -> list[Rows]:
    """`draw(number)[offsets]` for each run of indices that fall into one block."""
    number, offset = index // block, index % block
    cuts: list[int] = (np.flatnonzero(np.diff(number)) + 1).tolist()
    starts, stops = [0, *cuts], [*cuts, len(index)]
    out = []
    for a, b in zip(starts, stops, strict=True):
        values = draw(int(number[a]))
        whole = b - a == block  # the common case needs no gather
        out.append(values if whole else values[offset[a:b]])
    return out
