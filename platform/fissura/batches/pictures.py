"""The pictures of a batch: their kinds, the names of their files, and how they are drawn."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, UInt8

from fissura.core.errors import DataError, SpecError
from fissura.core.text import nearest
from fissura.data.images import SUFFIXES
from fissura.data.photograph import decode
from fissura.metrics import level_of
from fissura.reports.pictures import RIGHT

Kind = Literal["masks", "probabilities", "overlays"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SUFFIX: dict[Kind, str] = {"masks": ".png", "probabilities": ".png", "overlays": ".jpg"}
JPEG_QUALITY = 88


def parse_kinds(texts: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of pictures of these names, each once.

    Raises:
        SpecError: a name is unknown.
    """
    texts = set(texts)
    unknown = sorted(texts - set(KINDS))
    if unknown:
        raise SpecError(
            *(
                f"`{text}` is no kind of picture{nearest(text, KINDS)}; known: {', '.join(KINDS)}"
                for text in unknown
            )
        )
    return tuple(kind for kind in KINDS if kind in texts)


def picture_stems(names: Iterable[str]) -> dict[str, str]:
    """The name of each image's pictures, without their suffix: the image's own, without its suffix.

    Images whose names differ only in their suffix (or in case) keep it: `a.jpg` and `a.png`; so do names that
    still look like an image's without their suffix: `a.jpg.png`. So no two stems are equal.
    """
    names = list(names)
    bare = {name: bare_name(name) for name in names}
    counts = Counter(stem.casefold() for stem in bare.values())
    return {
        name: name if counts[stem.casefold()] > 1 or bare_name(stem) != stem else stem
        for name, stem in bare.items()
    }


def picture_path(out: Path, kind: Kind, stem: str) -> Path:
    """The path of a picture.

    Raises:
        DataError: the name points outside of the folder.
    """
    if {"", ".", ".."} & set(stem.split("/")) or "\0" in stem:
        raise DataError(f"{stem!r}: a name is a plain relative path; rename the image")
    return out / kind / f"{stem}{SUFFIX[kind]}"


def draw(
    photograph: bytes,
    probability: UInt8[np.ndarray, "h w"],
    *,
    threshold: float,
    kinds: Collection[Kind],
) -> dict[Kind, bytes]:
    """The files of the pictures of these kinds but `probabilities`: a mask of 0 and 255, and the photograph
    with the cracks at `threshold` (0..1) in colour.

    Raises:
        DataError: the photograph cannot be read, or is not as large as its map.
    """
    mask = probability >= level_of(threshold)
    drawn: dict[Kind, bytes] = {}
    if "masks" in kinds:
        drawn["masks"] = png(mask.astype(np.uint8) * 255)
    if "overlays" in kinds:
        pixels = decode(photograph).pixels
        if pixels.shape[:2] != mask.shape:
            raise DataError(f"a map is as large as its photograph: {mask.shape} is not {pixels.shape[:2]}")
        drawn["overlays"] = jpeg(overlay(pixels, mask))
    return drawn


def draw_from(
    photograph: bytes, map_png: bytes, *, threshold: float, kinds: Collection[Kind]
) -> dict[Kind, bytes]:
    """The files of the pictures of these kinds, from a map's own PNG.

    Raises:
        DataError: as `draw`.
    """
    import cv2

    grey = cv2.imdecode(np.frombuffer(map_png, np.uint8), cv2.IMREAD_GRAYSCALE)
    probability = np.asarray(grey, dtype=np.uint8)
    pictures: dict[Kind, bytes] = {"probabilities": map_png} if "probabilities" in kinds else {}
    return pictures | draw(photograph, probability, threshold=threshold, kinds=kinds)


def overlay(pixels: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph with the pixels of the mask in colour."""
    picture = pixels.copy()
    picture[mask] = RIGHT
    return picture


def png(pixels: UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A PNG of grey or RGB pixels; compressed quickly, as maps of cracks are small anyway."""
    import cv2

    channels = np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
    return _encoded(cv2.imencode(".png", channels, [cv2.IMWRITE_PNG_COMPRESSION, 1]))


def jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A JPEG of RGB pixels."""
    import cv2

    reversed_channels = np.ascontiguousarray(pixels[..., ::-1])
    return _encoded(cv2.imencode(".jpg", reversed_channels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]))


def _encoded(outcome: "tuple[bool, np.ndarray]") -> bytes:
    whole, encoded = outcome
    if not whole:
        raise DataError("the picture cannot be written in its format; it is too large for it")
    return encoded.tobytes()


def bare_name(name: str) -> str:
    """The name without the suffix of an image."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name
