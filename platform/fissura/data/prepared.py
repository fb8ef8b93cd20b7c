"""Prepared images: entries and views of one memory-mapped file, which any process can open.

DIRECTORY/<digest>/pixels.bin   for each entry: image [h w 3], mask [h w], valid [h w], all uint8
DIRECTORY/<digest>/index.json   entries with sizes, offsets and CRC-32, the mask rule of each data set, and
                                remarks on it; sealed by its own digest
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError
from fissura.core.files import write_text
from fissura.core.spec import digest as digest_plain
from fissura.data.resize import MaskRule
from fissura.data.sample import Split

FORMAT = 3  # raised when the layout changes, or the same files give other pixels
PIXELS, INDEX = "pixels.bin", "index.json"
INDEX_BYTES = 1 << 28


@dataclass(frozen=True)
class PreparedSample:
    """One prepared sample: `dataset` is its data set's label; its bytes begin at `offset` (CRC: `crc32`)."""

    dataset: str
    name: str
    split: Split
    group: str
    height: int
    width: int
    offset: int
    crc32: int

    @property
    def size(self) -> int:
        """Bytes of image, mask and valid pixels."""
        return 5 * self.height * self.width


class Index(NamedTuple):
    """The content of a cache: its entries, the rule by which the masks of each data set (by label) were
    resized, and remarks on what their cracks lost.
    """

    entries: tuple[PreparedSample, ...]
    mask_rules: dict[str, MaskRule]
    remarks: tuple[str, ...]


class PreparedData:
    """Prepared images, opened read-only and memory-mapped: all processes of a node share one copy. `remarks`
    say what the cracks of a data set lost at the working size, if it is much.

    Only the folder and the digest are pickled; the other process maps the same file.
    """

    def __init__(
        self,
        directory: Path,
        digest: str,
        entries: tuple[PreparedSample, ...],
        pixels: UInt8[np.ndarray, " n"],
        *,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.directory, self.digest, self.entries, self.remarks = directory, digest, entries, remarks
        self._pixels = pixels

    @classmethod
    def open(cls, directory: Path, digest: str) -> "PreparedData":
        """Opens the cache `digest` of `directory`. Cheap: checks sizes and the index's seal, not the pixels.

        Raises:
            DataError: there is no such cache, or it is torn.
        """
        folder = directory / digest
        try:
            index = read_index(folder, digest)
            pixels = np.memmap(folder / PIXELS, dtype=np.uint8, mode="r").view(np.ndarray)
        except (OSError, ValueError) as error:
            raise DataError(f"{folder}: is no whole cache ({error}); prepare the data again") from None
        with suppress(OSError):
            os.utime(folder)  # `prune` removes the least recently used
        return cls(directory, digest, index.entries, pixels, remarks=index.remarks)

    def __reduce__(self) -> tuple[Callable[[Path, str], "PreparedData"], tuple[Path, str]]:
        return PreparedData.open, (self.directory, self.digest)

    def __len__(self) -> int:
        return len(self.entries)

    def indices(self, split: Split) -> list[int]:
        """The entries of a split, in order."""
        return [index for index, entry in enumerate(self.entries) if entry.split == split]

    def some(self, *, train: int, val: int) -> "PreparedData":
        """At most `train` and `val` entries of the two splits, spread over each; only for use in this
        process."""
        chosen: set[int] = set()
        for split, most in (("train", train), ("val", val)):
            indices = self.indices(cast(Split, split))
            count = min(most, len(indices))
            chosen |= {indices[number * len(indices) // count] for number in range(count)}
        entries = tuple(self.entries[index] for index in sorted(chosen))
        return PreparedData(self.directory, self.digest, entries, self._pixels, remarks=self.remarks)

    def image(self, index: int) -> UInt8[np.ndarray, "h w 3"]:
        """The image, RGB, as a read-only view."""
        entry = self.entries[index]
        return self._plane(index, 0, 3).reshape(entry.height, entry.width, 3)

    def mask(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """The mask, 0 background and 1 crack, as a read-only view."""
        entry = self.entries[index]
        return self._plane(index, 3, 4).reshape(entry.height, entry.width)

    def valid(self, index: int) -> UInt8[np.ndarray, "h w"]:
        """The valid pixels, 1 where they count, as a read-only view; all 1 where the data set masks none."""
        entry = self.entries[index]
        return self._plane(index, 4, 5).reshape(entry.height, entry.width)

    def _plane(self, index: int, first: int, last: int) -> UInt8[np.ndarray, " n"]:
        entry = self.entries[index]
        area = entry.height * entry.width
        return self._pixels[entry.offset + first * area : entry.offset + last * area]


def write_index(folder: Path, digest: str, index: Index) -> None:
    """Writes the index of the cache in the folder `place`."""
    plain: dict[str, Any] = {
        "format": FORMAT,
        "digest": digest,
        "entries": [asdict(entry) for entry in index.entries],
        "mask_rules": index.mask_rules,
        "remarks": index.remarks,
    }
    write_text(folder / INDEX, json.dumps({**plain, "seal": digest_plain(plain)}))


def read_index(folder: Path, digest: str) -> Index:
    """The index of the cache in the folder `place`.

    Raises:
        OSError, ValueError: the index or the size of the pixels is wrong.
    """
    if (folder / INDEX).stat().st_size > INDEX_BYTES:
        raise ValueError(f"{INDEX} is too large")
    plain = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    seal = plain.pop("seal", None) if isinstance(plain, dict) else None
    if seal is None or seal != digest_plain(plain):
        raise ValueError(f"{INDEX} is broken")
    if plain["format"] != FORMAT or plain["digest"] != digest:
        raise ValueError(f"{INDEX} is of another format or of other data")
    entries = tuple(PreparedSample(**entry) for entry in plain["entries"])
    expected, size = sum(entry.size for entry in entries), (folder / PIXELS).stat().st_size
    if size != expected:
        raise ValueError(f"{PIXELS} has {size} bytes instead of {expected}")
    return Index(entries, plain["mask_rules"], tuple(plain["remarks"]))
