"""From prepared images to batches: crop, augment, collate.

Every random choice follows from (seed, epoch, place in the epoch) alone, so batches do not depend on how
many threads or workers draw them, and training can go on from the middle of an epoch.
"""

import math
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.data.cache import PreparedData
from fissura.data.resize import AnyResize, Fixed

if TYPE_CHECKING:
    import albumentations

Probability = Annotated[float, Field(ge=0, le=1)]
Patch = tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]


class WholeImage(Spec):
    """A training sample is a whole image; images of unequal size are padded to the largest of their batch."""

    kind: Literal["whole"] = "whole"
    per_image: Literal[1] = 1

    def cut(self, patch: Patch, _: np.random.Generator) -> Patch:
        """The patch itself."""
        return patch


class RandomCrop(Spec):
    """A training sample is a random square of `size` pixels; an epoch draws `per_image` of them from each
    image."""

    kind: Literal["random"] = "random"
    size: int = Field(256, ge=16, le=4096)
    per_image: int = Field(1, ge=1, le=100_000)

    def cut(self, patch: Patch, generator: np.random.Generator) -> Patch:
        """A random square of the patch; what lies beyond a smaller image is not valid."""
        image, mask, valid = pad(patch, height=self.size, width=self.size)
        top = int(generator.integers(image.shape[0] - self.size + 1))
        left = int(generator.integers(image.shape[1] - self.size + 1))
        window = (slice(top, top + self.size), slice(left, left + self.size))
        return image[window], mask[window], valid[window]


class Augmentation(Spec):
    """Probability of each random change of a training sample."""

    horizontal_flip: Probability = 0.0
    vertical_flip: Probability = 0.0
    rotate_90: Probability = 0.0
    brightness_contrast: Probability = 0.0
    gaussian_noise: Probability = 0.0

    def build(self) -> "albumentations.Compose":
        """The albumentations transform; give it a seed before each sample."""
        # albumentations asks a server for its newest version at import, unless this is set
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        import albumentations

        changes = [
            albumentations.HorizontalFlip(p=self.horizontal_flip),
            albumentations.VerticalFlip(p=self.vertical_flip),
            albumentations.RandomRotate90(p=self.rotate_90),
            albumentations.RandomBrightnessContrast(p=self.brightness_contrast),
            albumentations.GaussNoise(p=self.gaussian_noise),
        ]
        return albumentations.Compose([change for change in changes if change.p > 0], seed=0)


class Pipeline(Spec):
    """How images become batches: working size, crop, augmentation, batch size, pixel scale.

    `batch_size` is the whole batch of an optimizer step: N data-parallel workers take an N-th each.
    """

    resize: AnyResize = Fixed()
    crop: Annotated[WholeImage | RandomCrop, Field(discriminator="kind")] = WholeImage()
    augmentation: Augmentation = Augmentation()
    batch_size: int = Field(4, ge=1, le=4096)
    normalisation: Literal["imagenet", "unit"] = "imagenet"

    def normalise(self, image: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Network input: [0, 1], then ImageNet's mean and standard deviation taken out where asked."""
        unit = image.float() / 255
        if self.normalisation == "unit":
            return unit
        mean = torch.tensor((0.485, 0.456, 0.406), device=image.device).view(3, 1, 1)
        deviation = torch.tensor((0.229, 0.224, 0.225), device=image.device).view(3, 1, 1)
        return (unit - mean) / deviation


@dataclass(frozen=True)
class Batch:
    """Images (RGB), targets (1 crack) and valid pixels (1 counts) of one step of one worker."""

    image: UInt8[Tensor, "b 3 h w"]
    target: UInt8[Tensor, "b 1 h w"]
    valid: UInt8[Tensor, "b 1 h w"]


def pad(patch: Patch, *, height: int, width: int) -> Patch:
    """The patch, grown below and to the right to at least `height` x `width`, with invalid pixels."""
    image, mask, valid = patch
    below, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
    if not below and not right:
        return patch
    edges = ((0, below), (0, right))
    return np.pad(image, (*edges, (0, 0)), mode="edge"), np.pad(mask, edges), np.pad(valid, edges)


def collate(patches: Sequence[Patch], *, stride: int) -> Batch:
    """One batch; all patches are padded to the largest, and to a multiple of `stride` pixels."""
    height, width = (
        math.ceil(max(patch[0].shape[axis] for patch in patches) / stride) * stride for axis in (0, 1)
    )
    padded = [pad(patch, height=height, width=width) for patch in patches]
    image = np.stack([np.ascontiguousarray(image.transpose(2, 0, 1)) for image, _, _ in padded])
    mask, valid = (np.stack([patch[part][None] for patch in padded]) for part in (1, 2))
    return Batch(torch.from_numpy(image), torch.from_numpy(mask), torch.from_numpy(valid))


def prepared_patch(data: PreparedData, index: int) -> Patch:
    """Image, mask and valid pixels of one prepared entry: views of the memory-mapped cache."""
    return data.image(index), data.mask(index), data.valid(index)


class Epochs:
    """The training batches of one worker, epoch by epoch, drawn ahead by a few threads.

    The order is drawn afresh each epoch; the last batch may be smaller. A batch that the workers cannot share
    equally is filled up with its own first samples, so that all take equally many.
    """

    def __init__(
        self,
        data: PreparedData,
        *,
        pipeline: Pipeline,
        stride: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 1,
    ) -> None:
        self._data, self._pipeline, self._stride, self._seed = data, pipeline, stride, seed
        self._rank, self._world_size, self._threads = rank, world_size, threads
        self._indices = np.repeat(data.indices("train"), pipeline.crop.per_image)
        self._transforms = [pipeline.augmentation.build() for _ in range(threads + 1)]

    @property
    def samples(self) -> int:
        """Training samples an epoch, over all workers."""
        return len(self._indices)

    @property
    def batches(self) -> int:
        """Optimizer steps an epoch."""
        return math.ceil(len(self._indices) / self._pipeline.batch_size)

    def batches_of(self, epoch: int, *, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on."""
        order = np.random.default_rng(derive(self._seed, "order", epoch)).permutation(len(self._indices))
        size = self._pipeline.batch_size
        plan = [
            [(place, int(order[place])) for place in range(first, min(first + size, len(order)))]
            for first in range(start * size, len(order), size)
        ]
        with ThreadPoolExecutor(self._threads) as pool:
            ahead: deque[Future[Batch]] = deque()
            for number, places in enumerate(plan):
                transform = self._transforms[number % len(self._transforms)]
                share = math.ceil(len(places) / self._world_size)
                even = [places[i % len(places)] for i in range(share * self._world_size)]
                mine = even[self._rank :: self._world_size]
                ahead.append(pool.submit(self._draw, mine, epoch, transform))
                if len(ahead) > self._threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _draw(self, places: list[tuple[int, int]], epoch: int, transform: "albumentations.Compose") -> Batch:
        return collate(
            [self._sample(index, epoch, place, transform) for place, index in places], stride=self._stride
        )

    def _sample(self, index: int, epoch: int, place: int, transform: "albumentations.Compose") -> Patch:
        seed = derive(self._seed, "sample", epoch, place)
        whole = prepared_patch(self._data, int(self._indices[index]))
        image, mask, valid = self._pipeline.crop.cut(whole, np.random.default_rng(seed))
        transform.set_random_seed(seed % 2**32)
        # albumentations writes into what it is given, and these are views of the cache
        changed = transform(image=image.copy(), masks=[mask.copy(), valid.copy()])
        mask, valid = changed["masks"]
        return changed["image"], mask, valid
