"""The squares that can be cut from an image: the content of their windows, and a draw without overlap."""

import numpy as np
from jaxtyping import Float32, Int64, UInt8

Mask = UInt8[np.ndarray, "h w"]
Labels = Int64[np.ndarray, "rows columns"]
Place = tuple[int, int, int]  # top, left, label

NEITHER = -1  # the label of a square of no class
PLACES = 8  # corners a side's length: close enough to miss no class, and cheap on large images


class Grid:
    """The squares of `size` pixels that can be cut from an image, their corners on a grid.

    `tops` [rows] and `lefts` [columns] are the corners' coordinates in pixels. Windows are the squares grown
    by a margin on all sides, within the image.
    """

    def __init__(self, shape: tuple[int, int], *, size: int, rng: np.random.Generator) -> None:
        step = max(1, size // PLACES)
        self.size = size
        self.tops, self.lefts = (
            np.arange(int(rng.integers(min(step, length - size + 1))), length - size + 1, step)
            for length in shape
        )

    def count(self, mask: Mask, *, margin: int = 0) -> Labels:
        """The number of set pixels of `mask` (0, 1) in the window of each square."""
        import cv2

        total = np.asarray(cv2.integral(mask))
        (top, bottom), (left, right) = self._windows(mask.shape, margin)
        rows = total[bottom] - total[top]
        return np.asarray(rows[:, right] - rows[:, left], dtype=np.int64)

    def largest(
        self, plane: Float32[np.ndarray, "h w"], *, margin: int = 0
    ) -> Float32[np.ndarray, "rows columns"]:
        """The largest value of `plane` in the window of each square."""
        (top, bottom), (left, right) = self._windows(plane.shape, margin)
        bands = np.stack([plane[low:high].max(axis=0) for low, high in zip(top, bottom, strict=True)])
        return np.stack([bands[:, low:high].max(axis=1) for low, high in zip(left, right, strict=True)], 1)

    def draw(self, labels: Labels, *, most: int, rng: np.random.Generator) -> list[Place]:
        """(top, left, label) of at most `most` squares of each label, without overlap; the highest label,
        which is the rarest, is drawn first.
        """
        chosen: list[Place] = []
        free = labels != NEITHER
        for label in range(int(labels.max(initial=NEITHER)), NEITHER, -1):
            for _ in range(most):
                rows, columns = np.nonzero(free & (labels == label))
                if not len(rows):
                    break
                pick = int(rng.integers(len(rows)))
                top, left = int(self.tops[rows[pick]]), int(self.lefts[columns[pick]])
                chosen.append((top, left, label))
                above, beside = np.abs(self.tops - top) < self.size, np.abs(self.lefts - left) < self.size
                free[np.ix_(above, beside)] = False
        return chosen

    def _windows(self, shape: tuple[int, ...], margin: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(first, one past the last) coordinate of the windows, by rows and by columns."""
        return [
            (np.maximum(starts - margin, 0), np.minimum(starts + self.size + margin, length))
            for starts, length in zip((self.tops, self.lefts), shape, strict=True)
        ]
