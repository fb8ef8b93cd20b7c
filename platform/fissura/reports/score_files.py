"""The files that predictions are scored from: maps, and the masks beside them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL.PngImagePlugin import PngImageFile

from fissura.core.errors import DataError
from fissura.core.files import near
from fissura.data.file_kinds import is_passed_over
from fissura.data.images import SUFFIXES, read_size
from fissura.data.masks import decode_mask, read_levels
from fissura.data.walk import composed, listed
from fissura.data.whole import require_whole

MOST_OF_CLASSES = 9  # the highest class index, beyond which a level is more likely a probability


def read_map(path: Path) -> UInt8[np.ndarray, "h w"]:
    """A probability map in 1/255; or a mask, of 1 bit or of palette colours, black and one other.

    Raises:
        DataError: one line: the file is no such PNG, or cannot be read.
    """
    read_size(path)  # names what can be wrong with any image file, and bounds its size
    try:
        with path.open("rb") as file, PngImageFile(file) as image:
            require_whole(image, file)
            mode = image.mode
            if mode == "L":
                return np.array(image)
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise DataError(f"{path}: a prediction is a whole PNG file ({reason}); write it again") from None
    if mode in {"1", "P"}:
        return read_levels(path)
    raise DataError(
        f"{path}: a prediction is an 8-bit grey PNG, value / 255 the probability: this one's mode is {mode}; "
        "write one channel of 8 bits"
    )


def one_level(probability: UInt8[np.ndarray, "h w"]) -> int | None:
    """The one level beside 0 that a map holds; 0 where it holds none, None where it holds more."""
    level = int(probability.max())
    return level if bool(((probability == 0) | (probability == level)).all()) else None


def crack_level(levels: set[int | None]) -> int | None:
    """The level that means crack where the maps of these levels are masks, and not of 255."""
    held = levels - {0}
    return held.pop() if len(held) == 1 and not held & {None, 255} else None


def said_of_low(highest: Mapping[str, int]) -> list[str]:
    """A remark on the maps, by name, of images with a crack whose `highest` level can hardly be a
    probability."""
    low = [name for name, level in highest.items() if 0 < level <= MOST_OF_CLASSES]
    if not low:
        return []
    return [
        f"maps of images with a crack that reach {max(highest[name] for name in low)} of 255 at most"
        f" ({len(low)} of {len(highest)}): {listed(low)}; they are read as probabilities; if they are class"
        " indices, write 255 where there is a crack"
    ]


def read_mask(path: Path, *, threshold: int | None = None) -> tuple[UInt8[np.ndarray, "h w"], str | None]:
    """The mask of anyone's file (0 background, 1 crack), and what is odd about it, if anything. Of a grey one
    what is above `threshold` (0..254) is crack.

    Raises:
        DataError: one line: the file is no mask, as `decode_mask` reads those of data sets too.
    """
    reading = decode_mask(path, threshold=threshold)
    return reading.mask, reading.remark


def list_files(folder: Path, suffixes: frozenset[str], content: str, problems: list[str]) -> dict[str, Path]:
    """The files of `folder` by their names without suffix; its faults go to `problems`."""
    if not folder.is_dir():
        remedy = near(folder) or "; mend the path"
        problems.append(f"{folder}: a folder of {content} is expected here: there is none{remedy}")
        return {}
    files: dict[str, Path] = {}
    known = len(problems)
    for path in sorted(folder.iterdir()):
        if is_passed_over(path.name) or path.suffix.lower() not in SUFFIXES:
            continue
        name = composed(path.stem)
        if path.suffix.lower() not in suffixes:
            problems.append(
                f"{path}: a folder of {content} holds no {path.suffix} file; convert or remove it"
            )
        elif name in files:
            problems.append(f"{path}: a name occurs once, but {files[name].name} is there too; remove one")
        else:
            files[name] = path
    if not files and len(problems) == known:
        kinds = ", ".join(sorted(suffixes))
        problems.append(
            f"{folder}: a folder of {content} holds {kinds} files: this one has none; mend the path"
        )
    return files


def read_pair(
    map_path: Path, mask_path: Path, valid_path: Path | None, *, mask_threshold: int | None = None
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"] | None, list[str]]:
    """A map, its mask, its valid pixels, and remarks; one DataError for all that is wrong with the files."""
    problems: list[str] = []
    remarks: list[str] = []

    def attempt(
        read: Callable[[Path], UInt8[np.ndarray, "h w"]], path: Path
    ) -> UInt8[np.ndarray, "h w"] | None:
        try:
            return read(path)
        except DataError as error:
            problems.extend(error.problems)
            return None

    def read_label(path: Path, threshold: int | None = None) -> UInt8[np.ndarray, "h w"]:
        mask, remark = read_mask(path, threshold=threshold)
        remarks.extend([f"{path}: {remark}"] if remark else [])
        return mask

    probability = attempt(read_map, map_path)
    mask = attempt(partial(read_label, threshold=mask_threshold), mask_path)
    valid = attempt(read_label, valid_path) if valid_path else None
    if probability is not None:
        for path, other in ((mask_path, mask), (valid_path, valid)):
            if other is not None and other.shape != probability.shape:
                problems.append(
                    f"{map_path}: a prediction is as large as its masks: this one is {_size(probability)}, "
                    f"{path} is {_size(other)}; bring the prediction to that size"
                )
    if valid is not None and not valid.any():
        problems.append(f"{valid_path}: a mask of valid pixels holds at least one (255): this one is all 0")
    if problems or probability is None or mask is None:
        raise DataError(*problems)
    return probability, mask, valid, remarks


def _size(array: UInt8[np.ndarray, "h w"]) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
