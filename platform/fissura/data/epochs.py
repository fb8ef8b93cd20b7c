"""The batches of an epoch: drawn from prepared images, augmented and collated, a few ahead of the training.

Every random choice depends only on (seed, epoch, position in the epoch), so that batches do not depend on the
number of threads or workers, and training can resume in the middle of an epoch.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Num, UInt8
from torch import Tensor

from fissura.core.errors import DataError
from fissura.core.seeding import derive
from fissura.data.augmentation import Changes
from fissura.data.cache import PreparedData
from fissura.data.crop import Cutter, Patch

if TYPE_CHECKING:
    from fissura.data.pipeline import Pipeline


@dataclass(frozen=True)
class Batch:
    """Images (RGB), targets (1 crack), valid pixels (1 counts) and other maps, by name, of one step of one
    worker."""

    image: UInt8[Tensor, "b 3 h w"]
    target: UInt8[Tensor, "b 1 h w"]
    valid: UInt8[Tensor, "b 1 h w"]
    maps: Mapping[str, Num[Tensor, "b 1 h w"]]


def collate(patches: Sequence[Patch], *, stride: int) -> Batch:
    """One batch of patches, padded to the largest and to a multiple of `stride` pixels. All have maps of the
    same names."""
    height, width = (
        math.ceil(max(patch.mask.shape[axis] for patch in patches) / stride) * stride for axis in (0, 1)
    )
    return Batch(
        _images([patch.image for patch in patches], height, width),
        _maps([patch.mask for patch in patches], height, width),
        _maps([patch.valid for patch in patches], height, width),
        {name: _maps([patch.maps[name] for patch in patches], height, width) for name in patches[0].maps},
    )


def _images(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], height: int, width: int
) -> UInt8[Tensor, "b 3 h w"]:
    """The images, channels first, padded with their last row and column."""
    batch = np.empty((len(images), 3, height, width), np.uint8)
    for target, image in zip(batch, images, strict=True):
        rows, columns, _ = image.shape
        target[:, :rows, :columns] = image.transpose(2, 0, 1)
        if rows < height:
            target[:, rows:, :columns] = target[:, rows - 1 : rows, :columns]
        if columns < width:
            target[:, :, columns:] = target[:, :, columns - 1 : columns]
    return torch.from_numpy(batch)


def _maps(maps: Sequence[Num[np.ndarray, "_ _"]], height: int, width: int) -> Num[Tensor, "b 1 h w"]:
    """The maps, padded with zeros."""
    batch = np.zeros((len(maps), 1, height, width), maps[0].dtype)
    for target, pixels in zip(batch, maps, strict=True):
        target[0, : pixels.shape[0], : pixels.shape[1]] = pixels
    return torch.from_numpy(batch)


def prepared_patch(data: PreparedData, index: int) -> Patch:
    """Image, mask and valid pixels of one prepared entry: views of the memory-mapped cache."""
    return Patch(data.image(index), data.mask(index), data.valid(index))


class Epochs:
    """The training batches of one worker, epoch by epoch, drawn ahead by a few threads.

    The order is drawn again each epoch; the last batch may be smaller. A last batch of a single sample is
    left out where the others have more, as batch normalisation needs two values a channel. A batch that the
    workers cannot share equally is padded with its own first samples, so that all take equally many.

    `maps` holds, by name, a map in the size of the mask for each training entry, by its index in `data`; it
    is cropped, flipped and turned with the mask.

    Raises:
        DataError: a training entry lacks a map, or has one of another size than its mask; the crop does not
            fit the images.
    """

    def __init__(
        self,
        data: PreparedData,
        *,
        pipeline: "Pipeline",
        stride: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
        maps: Mapping[str, Mapping[int, Num[np.ndarray, "h w"]]] = {},
    ) -> None:
        self._data, self._pipeline, self._stride, self._seed = data, pipeline, stride, seed
        self._rank, self._world_size, self._threads = rank, world_size, threads
        self._maps = maps
        training = data.indices("train")
        images = [self._image(index) for index in training]
        counts = np.array(pipeline.crop.counts(images), np.int64)
        self._indices = np.repeat(np.array(training, np.int64), counts)
        self._cutters: dict[int, Cutter] = {}
        self._changes = [pipeline.augmentation.build() for _ in range(threads + 1)]

    @property
    def samples(self) -> int:
        """Training samples an epoch, over all workers."""
        drawn, size = len(self._indices), self._pipeline.batch_size
        alone = drawn > size and drawn % size == 1
        return drawn - 1 if alone else drawn

    @property
    def batches(self) -> int:
        """Optimizer steps an epoch."""
        return math.ceil(self.samples / self._pipeline.batch_size)

    def batches_of(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on."""
        order = np.random.default_rng(derive(self._seed, "order", epoch)).permutation(len(self._indices))
        size = self._pipeline.batch_size
        with ThreadPoolExecutor(self._threads) as pool:
            ahead: deque[Future[Batch]] = deque()
            for first in range(start * size, self.samples, size):
                positions = range(first, min(first + size, self.samples))
                share = math.ceil(len(positions) / self._world_size)
                even = [positions[i % len(positions)] for i in range(share * self._world_size)]
                mine = even[self._rank :: self._world_size]
                changes = self._changes[first // size % len(self._changes)]
                indices = self._indices[order[mine]].tolist()
                ahead.append(pool.submit(self._draw, mine, indices, epoch, changes))
                if len(ahead) > self._threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _draw(self, positions: Sequence[int], indices: Sequence[int], epoch: int, changes: Changes) -> Batch:
        patches = []
        for position, index in zip(positions, indices, strict=True):
            seed = derive(self._seed, "sample", epoch, position)
            cut = self._cutter(index)
            patches.append(changes.apply(cut(np.random.default_rng(seed)), seed=seed))
        return collate(patches, stride=self._stride)

    def _cutter(self, index: int) -> Cutter:
        # two threads may build the same one at once: they are equal
        cutter = self._cutters.get(index)
        if cutter is None:
            cutter = self._cutters[index] = self._pipeline.crop.cutter(self._image(index))
        return cutter

    def _image(self, index: int) -> Patch:
        patch = prepared_patch(self._data, index)
        maps = {}
        for name, given in self._maps.items():
            pixels = given.get(index)
            if pixels is None or pixels.shape != patch.mask.shape:
                got = "none" if pixels is None else f"one of {pixels.shape}"
                raise DataError(
                    f"{self._data.entries[index].name}: a map `{name}` of {patch.mask.shape} is needed, got"
                    f" {got}; give one for each training image"
                )
            maps[name] = pixels
        return patch._replace(maps=maps)
