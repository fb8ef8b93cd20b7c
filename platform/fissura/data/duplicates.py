"""Finds images that occur twice: pixel for pixel, or nearly so after a flip or quarter turns.

A perceptual hash proposes pairs (signs of the lowest DCT coefficients, Zauner 2010) and the correlation of
fine detail confirms them: the hash alone confuses any two plain surfaces under similar light.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8, UInt64

VIEWS = (
    "as it is",
    "turned by 90 degrees",
    "turned by 180 degrees",
    "turned by 270 degrees",
    "mirrored",
    "mirrored and turned by 90 degrees",
    "mirrored and turned by 180 degrees",
    "mirrored and turned by 270 degrees",
)
# Measured on CFD, DeepCrack, DRIVE and 2,000 of METU's images: true pairs differ in at most 2 bits
# and correlate by 0.95 or more; the next pair correlates by 0.64.
MOST_BITS = 10
LEAST_CORRELATION = 0.9

_SIDE = 64


@dataclass(frozen=True)
class Fingerprint:
    """`pixels`: SHA-256 of the decoded image. `hashes`: perceptual hashes (63 bits) of its eight views.
    `detail`: its fine detail, of zero mean and unit norm, or all zero where there is none.
    """

    pixels: str
    hashes: UInt64[np.ndarray, "8"]
    detail: Float32[np.ndarray, "64 64"]


@dataclass(frozen=True)
class Duplicate:
    """Two equal images: pixel for pixel (`exact`), or nearly, with `second` turned and mirrored as `view`
    says."""

    first: str
    second: str
    exact: bool
    view: str
    correlation: float


def fingerprint(
    image: UInt8[np.ndarray, "h w 3"], *, valid: UInt8[np.ndarray, "h w"] | None = None
) -> Fingerprint:
    """The fingerprint of an image. Outside `valid`, where all images of a set look alike, it sees a plain
    surface.
    """
    import cv2
    from scipy.fft import dctn

    digest = hashlib.sha256(repr(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    inside = None
    if valid is not None and valid.any():
        # without the rim: it is the same steep edge in every image
        inside = cv2.erode(valid, np.ones((15, 15), np.uint8), borderType=cv2.BORDER_REPLICATE) > 0
        grey = np.where(valid > 0, grey, grey[valid > 0].mean()).astype(np.uint8)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)

    coarse = small.reshape(32, 2, 32, 2).mean(axis=(1, 3))
    low = dctn(np.stack(_views(coarse)), axes=(1, 2), norm="ortho")[:, :8, :8].reshape(8, 64)[:, 1:]
    hashes = np.packbits(np.pad(low > 0, ((0, 0), (0, 1))), axis=1).view(np.uint64)[:, 0]

    detail = small - cv2.GaussianBlur(small, (0, 0), 4.0)
    if inside is not None:
        detail *= cv2.resize(inside.astype(np.float32), (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    # so that a few strong edges do not dominate
    limit = 2.5 * 1.48 * float(np.median(np.abs(detail))) + 1e-6
    detail = np.clip(detail, -limit, limit)
    detail -= detail.mean()
    norm = float(np.linalg.norm(detail))
    detail = detail / norm if norm > 1e-3 else np.zeros_like(detail)
    return Fingerprint(digest.hexdigest(), hashes, detail.astype(np.float32))


def duplicates(prints: Mapping[str, Fingerprint]) -> list[Duplicate]:
    """All pairs among the named images: exact copies with the first one, near duplicates between first
    copies.
    """
    pairs: list[Duplicate] = []
    first: dict[str, str] = {}
    for name, print_ in prints.items():
        if print_.pixels in first:
            pairs.append(Duplicate(first[print_.pixels], name, exact=True, view=VIEWS[0], correlation=1.0))
        first.setdefault(print_.pixels, name)
    names = list(first.values())
    hashes = np.array([prints[name].hashes for name in names], dtype=np.uint64).reshape(-1, 8)
    for index, name in enumerate(names[:-1]):
        bits = np.bitwise_count(hashes[index, 0] ^ hashes[index + 1 :]).min(axis=1)
        for other in (index + 1 + np.flatnonzero(bits <= MOST_BITS)).tolist():
            views = _views(prints[names[other]].detail)
            correlations = [float((prints[name].detail * view).sum()) for view in views]
            best = int(np.argmax(correlations))
            if correlations[best] >= LEAST_CORRELATION:
                pairs.append(
                    Duplicate(
                        name, names[other], exact=False, view=VIEWS[best], correlation=correlations[best]
                    )
                )
    return pairs


def _views(square: Float32[np.ndarray, "n n"]) -> list[Float32[np.ndarray, "n n"]]:
    return [np.rot90(side, turns) for side in (square, square[:, ::-1]) for turns in range(4)]
