"""The images that a backbone learns from: resized once into one file, then shuffled, augmented and
batched."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from fissura.classification.image_changes import ImageChanges, changed
from fissura.core.documents import read_json
from fissura.core.errors import DataChanged, DataError, SpecError, UserError
from fissura.core.files import replacing, write_json
from fissura.core.seeding import derive
from fissura.core.spec import digest
from fissura.models.backbones import resized

PIXELS, LIST = "images.npy", "images.json"
READ_AHEAD = 256

Read = Callable[[int], UInt8[np.ndarray, "h w 3"]]


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Labelled images by their index.

    `read` returns the RGB image of an index, of any size, and raises a DataError that names a corrupt file;
    for arrays in memory it is their `__getitem__`. `labels` [n] are 0 to len(classes) - 1. `train` and
    `validation` are disjoint indices; validation may be empty. `digest` names the content of the images and
    their order.
    """

    read: Read
    labels: Sequence[int]
    classes: tuple[str, ...]
    train: Sequence[int]
    validation: Sequence[int]
    digest: str

    @property
    def key(self) -> str:
        """A digest of everything here that decides a training."""
        return digest([self.digest, *self._lists()])

    def check(self) -> None:
        """Checks that a backbone can learn from the images.

        Raises:
            DataError: an index or label out of range, an index twice, or a class without training images.
        """
        labels, train, validation = self._lists()
        problems = []
        both = train + validation
        outside = [index for index in both if not 0 <= index < len(labels)]
        if outside:
            problems.append(
                f"image indices are 0 to {len(labels) - 1}, not {outside[0]}; mend the training or the"
                " validation part"
            )
        repeated, times = next(iter(Counter(both).most_common(1)), (0, 0))
        if times > 1:
            problems.append(
                f"image {repeated} is named twice; an image is in the training part or in the validation part"
            )
        wrong = [label for label in labels if not 0 <= label < len(self.classes)]
        if wrong:
            problems.append(
                f"labels are 0 to {len(self.classes) - 1}, not {wrong[0]}; number the classes from 0"
            )
        if problems:
            raise DataError(*problems)
        check_classes([labels[index] for index in train], self.classes)

    def _lists(self) -> tuple[list[int], list[int], list[int]]:
        labels, train, validation = (
            [int(value) for value in part] for part in (self.labels, self.train, self.validation)
        )
        return labels, train, validation


def check_classes(labels: Sequence[int], classes: Sequence[str]) -> None:
    """Checks that there are two classes or more, and training images of each.

    Raises:
        DataError: there are not.
    """
    counts = [list(labels).count(label) for label in range(len(classes))]
    if len(classes) < 2 or 0 in counts:
        held = ", ".join(f"{name}: {count}" for name, count in zip(classes, counts, strict=True))
        raise DataError(
            "a backbone learns to tell two classes or more, with training images of each; there are"
            f" {held or 'none'}; add images of the others, or leave those classes out"
        )


@dataclass(frozen=True, eq=False)
class PackedImages:
    """The images of a training in one memory-mapped array, at the backbone's input size, rounded to 0..255.

    The array may have empty rows at its end. `train` and `validation` are rows of `pixels`; `indices` are the
    rows' indices in their data. `unreadable` names the images that were left out.
    """

    pixels: UInt8[np.ndarray, "row s s 3"]
    indices: Int64[np.ndarray, " row"]
    labels: Int64[np.ndarray, " row"]
    classes: tuple[str, ...]
    train: Int64[np.ndarray, " _"]
    validation: Int64[np.ndarray, " _"]
    key: str
    unreadable: tuple[str, ...]

    @classmethod
    def open(cls, directory: Path) -> "PackedImages":
        """The images that `pack` wrote to `directory`.

        Raises:
            DataError: they are missing or torn.
        """
        try:
            plain = read_json(directory / LIST, remedy="it is written anew")
            pixels = np.load(directory / PIXELS, mmap_mode="r", allow_pickle=False)
            rows = {
                name: np.array(plain[name], np.int64) for name in ("indices", "labels", "train", "validation")
            }
            if pixels.shape[0] < len(rows["indices"]):
                raise ValueError("images are missing")
            packed = cls(
                pixels=pixels,
                **rows,
                classes=tuple(plain["classes"]),
                key=plain["key"],
                unreadable=tuple(plain["unreadable"]),
            )
        except (OSError, ValueError, TypeError, KeyError, SpecError) as error:
            raise DataError(
                f"{directory / PIXELS}: not the packed images of a training ({error}); remove it and"
                f" {LIST}, then train again"
            ) from None
        return packed


def packed_key(key: str, *, size: int) -> str:
    """The name of the packed images of a `TrainingImages.key`."""
    return digest([key, size])


def pack(images: TrainingImages, *, size: int, directory: Path, threads: int = 1) -> PackedImages:
    """Reads each image once, resizes it to `size` squared, and writes all to `directory`, unless it holds
    them.

    An image that cannot be read is left out and named in `unreadable`.

    Raises:
        DataError: nothing can be learnt from the images, or from those that can be read.
    """
    images.check()
    key = packed_key(images.key, size=size)
    if (directory / LIST).is_file():
        try:
            packed = PackedImages.open(directory)
        except DataError:
            pass  # torn: packed again
        else:
            if packed.key == key:
                return packed
        (directory / LIST).unlink()
    wanted = sorted({*map(int, images.train), *map(int, images.validation)})
    kept: list[int] = []
    unreadable: list[str] = []
    with replacing(directory / PIXELS) as scratch, ThreadPoolExecutor(threads) as pool:
        array = np.lib.format.open_memmap(
            scratch, mode="w+", dtype=np.uint8, shape=(len(wanted), size, size, 3)
        )
        for first in range(0, len(wanted), READ_AHEAD):
            ahead = wanted[first : first + READ_AHEAD]
            for index, image in zip(
                ahead, pool.map(lambda index: _resized(images, index, size), ahead), strict=True
            ):
                if isinstance(image, str):
                    unreadable.append(image)
                else:
                    array[len(kept)] = image
                    kept.append(index)
        array.flush()
    row_of = {index: row for row, index in enumerate(kept)}
    train, validation = (
        [row_of[int(index)] for index in part if int(index) in row_of]
        for part in (images.train, images.validation)
    )
    labels = [int(images.labels[index]) for index in kept]
    try:
        check_classes([labels[row] for row in train], images.classes)
    except DataError as error:
        raise DataError(*error.problems, *unreadable[:5]) from None
    plain = {
        "key": key,
        "classes": list(images.classes),
        "indices": kept,
        "labels": labels,
        "train": train,
        "validation": validation,
        "unreadable": unreadable,
    }
    write_json(directory / LIST, plain)
    return PackedImages.open(directory)


def _resized(images: TrainingImages, index: int, size: int) -> UInt8[np.ndarray, "s s 3"] | str:
    """The image in the size of the training, or why it cannot be read."""
    try:
        image = images.read(index)
    except DataChanged:
        raise
    except UserError as error:
        return str(error)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        return f"image {index}: an image is uint8 [height, width, 3], not {image.dtype} {list(image.shape)}"
    pixels = resized(torch.from_numpy(np.array(image))[None], size=size)[0]
    result: UInt8[np.ndarray, "s s 3"] = (pixels * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return result


def steps_of(images: PackedImages, *, batch_size: int) -> int:
    """Optimizer steps an epoch; images that do not fill a batch are left out of the epoch."""
    return max(1, len(images.train) // batch_size)


def batches_of(
    images: PackedImages,
    *,
    epoch: int,
    batch_size: int,
    changes: ImageChanges,
    seed: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Int64[np.ndarray, " b"], Float[Tensor, "b 3 s s"]]]:
    """This worker's part of each step of `epoch`: indices into `images.train`, and the changed images.

    The order follows from (seed, epoch), an image's change from (seed, epoch, its index), so they are the
    same for any number of workers. A batch that they cannot share equally is padded with its own first
    images.
    """
    order = np.random.default_rng(derive(seed, "order", epoch)).permutation(len(images.train))
    for step in range(steps_of(images, batch_size=batch_size)):
        batch = order[step * batch_size : (step + 1) * batch_size]
        share = math.ceil(len(batch) / world_size)
        mine = np.resize(batch, share * world_size)[rank::world_size]
        rows = images.train[mine]
        drawn = [changes.draw(derive(seed, "change", epoch, int(images.indices[row]))) for row in rows]
        yield mine, changed(images.pixels[rows], drawn)
