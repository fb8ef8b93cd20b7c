"""Surfaces without cracks: concrete, asphalt and masonry from multi-scale noise."""

from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float32

Surface = Literal["concrete", "asphalt", "masonry"]
Plane = Float32[np.ndarray, "h w"]
Colour = Float32[np.ndarray, "h w 3"]
Generator = np.random.Generator


def surface(kind: Surface, *, height: int, width: int, rng: Generator) -> Colour:
    """A surface in RGB, float32 [h w 3], about 0 (black) to 1 (white), not clipped."""
    painter = {"concrete": _concrete, "asphalt": _asphalt, "masonry": _masonry}[kind]
    return painter(height, width, rng)


def noise(height: int, width: int, *, scale: float, rng: Generator) -> Plane:
    """Smooth noise with blobs of about `scale` pixels, mean 0, standard deviation about 1."""
    rows, columns = int(np.ceil(height / scale)) + 3, int(np.ceil(width / scale)) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    size = (max(width, round(columns * scale)), max(height, round(rows * scale)))
    fine = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC))
    top, left = (fine.shape[0] - height) // 2, (fine.shape[1] - width) // 2
    return np.asarray(fine[top : top + height, left : left + width] * 1.3, dtype=np.float32)


def fractal(height: int, width: int, *, scale: float, finest: float, rng: Generator) -> Plane:
    """Noise at `scale`, `scale` / 2, ... down to `finest` pixels, each octave at 0.6 of the last."""
    total, weight = np.zeros((height, width), dtype=np.float32), 1.0
    while scale >= finest:
        total += np.float32(weight) * noise(height, width, scale=scale, rng=rng)
        weight, scale = weight * 0.6, scale / 2
    return total


def _tint(grey: Plane, rgb: tuple[float, float, float]) -> Colour:
    return np.asarray(grey[..., None] * np.array(rgb, dtype=np.float32), dtype=np.float32)


def _concrete(height: int, width: int, rng: Generator) -> Colour:
    """Smooth cement with mottling, fine grain, pores and, at times, a seam of the formwork."""
    grey = np.float32(rng.uniform(0.52, 0.74)) + 0.028 * fractal(
        height, width, scale=56.0, finest=3.0, rng=rng
    )
    grey += 0.022 * noise(height, width, scale=1.2, rng=rng)
    pores = np.zeros((height, width), dtype=np.float32)
    for _ in range(rng.poisson(height * width / 1500)):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(1, 3)), int(rng.integers(1, 3)))
        cv2.ellipse(pores, centre, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.3, 1)), -1)
    grey -= 0.22 * np.asarray(cv2.GaussianBlur(pores, (0, 0), 0.6))
    if rng.random() < 0.25:
        line = np.arange(width, dtype=np.float32)[None] - np.float32(rng.uniform(0.1, 0.9) * width)
        grey += 0.05 * np.exp(-((line / 1.2) ** 2)) + np.where(line > 0, np.float32(0.02), np.float32(-0.02))
    warm = float(rng.uniform(-0.03, 0.05))
    return _tint(grey, (1 + warm, 1.0, 1 - 1.3 * warm))


def _asphalt(height: int, width: int, rng: Generator) -> Colour:
    """Stones of two sizes, each of its own grey, in dark binder."""
    spacing = float(rng.uniform(3.5, 5.5))
    grey = np.zeros((height, width), dtype=np.float32)
    for size, weight in ((spacing, 0.65), (spacing / 2, 0.35)):
        seeds = np.ones((height, width), dtype=np.uint8)
        count = max(1, round(height * width / size**2))
        seeds[rng.integers(height, size=count), rng.integers(width, size=count)] = 0
        distance, label = cv2.distanceTransformWithLabels(
            seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        stones = rng.random(int(label.max()) + 1, dtype=np.float32) ** 2
        grey += weight * stones[label] * np.exp(-((distance / (0.55 * size)) ** 2))
    base = np.float32(rng.uniform(0.34, 0.46))
    grey = base + 0.3 * (grey - grey.mean()) + 0.015 * fractal(height, width, scale=64.0, finest=8.0, rng=rng)
    grey += 0.03 * noise(height, width, scale=1.2, rng=rng)
    return _tint(np.asarray(cv2.GaussianBlur(grey, (0, 0), 0.6), dtype=np.float32), (1.0, 0.99, 0.97))


def _masonry(height: int, width: int, rng: Generator) -> Colour:
    """Courses of bricks; the mortar joints are as thin and, often, as dark as cracks."""
    course = float(rng.uniform(22, 34))
    brick = course * float(rng.uniform(2.0, 2.8))
    joint = float(rng.uniform(1.2, 2.6))  # half width, px
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y += np.float32(rng.uniform(0, course)) + 0.7 * noise(height, width, scale=12.0, rng=rng)
    x += np.float32(rng.uniform(0, brick)) + 0.7 * noise(height, width, scale=12.0, rng=rng)
    row = np.floor(y / course)
    x += (row % 2) * np.float32(brick / 2)
    column = np.floor(x / brick)
    to_row = np.minimum(y - row * course, (row + 1) * course - y)
    to_column = np.minimum(x - column * brick, (column + 1) * brick - x)
    inside = 1 / (1 + np.exp(-2.5 * (np.minimum(to_row, to_column) - joint)))
    shades = rng.uniform(-1, 1, (64, 64)).astype(np.float32)[row.astype(int) % 64, column.astype(int) % 64]
    grain = 0.025 * fractal(height, width, scale=12.0, finest=1.5, rng=rng)
    red, green, blue = (float(rng.uniform(*ends)) for ends in ((0.5, 0.66), (0.55, 0.72), (0.42, 0.6)))
    face = _tint(red * (1 + 0.12 * shades + 1.6 * grain), (1.0, green, blue))
    mortar = _tint(np.float32(rng.uniform(0.3, 0.72)) + 1.4 * grain, (1.0, 0.98, 0.94))
    return np.asarray(inside[..., None] * face + (1 - inside[..., None]) * mortar, dtype=np.float32)
