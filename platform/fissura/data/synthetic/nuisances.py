"""Shadows, stains and low contrast, which hide cracks. Each has a strength from 0 (nothing) to 1."""

import cv2
import numpy as np

from fissura.data.synthetic.textures import Colour, Generator, fractal


def shadow(image: Colour, *, strength: float, rng: Generator) -> Colour:
    """Darkens one to three polygons with soft edges, by up to 65 % at strength 1, and cools them a little."""
    height, width = image.shape[:2]
    cover = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        radii = rng.uniform(0.25, 0.8, len(angles)) * max(height, width)
        corners = centre + radii[:, None] * np.stack((np.cos(angles), np.sin(angles)), axis=1)
        layer = np.zeros_like(cover)
        cv2.fillPoly(layer, [corners.astype(np.int32)], 1.0)
        softness = float(rng.uniform(0.6, 5.0))
        cover = np.maximum(cover, np.asarray(cv2.GaussianBlur(layer, (0, 0), softness)))
    amount = np.float32(strength * rng.uniform(0.4, 0.65)) * cover
    return np.asarray(image * (1 - amount[..., None] * np.array((1.0, 0.97, 0.9), dtype=np.float32)))


def stain(image: Colour, *, strength: float, rng: Generator) -> Colour:
    """Blends irregular blotches of damp, rust or lime into the image, by up to 55 % at strength 1."""
    height, width = image.shape[:2]
    field = fractal(height, width, scale=max(height, width) / 3, finest=3.0, rng=rng)
    sharpness = float(rng.uniform(2.5, 7))
    cover = 1 / (1 + np.exp(-sharpness * (field - np.quantile(field, rng.uniform(0.6, 0.85)))))
    tints = ((0.55, 0.53, 0.5), (0.85, 0.6, 0.42), (1.25, 1.25, 1.22))
    tint = np.array(tints[int(rng.integers(len(tints)))], dtype=np.float32)
    amount = np.float32(strength * rng.uniform(0.6, 1)) * cover[..., None]
    return np.asarray(image * (1 + amount * (tint - 1)), dtype=np.float32)


def low_contrast(image: Colour, *, strength: float, rng: Generator) -> Colour:
    """Pulls the image towards its mean, by up to 75 % at strength 1, and shifts its brightness."""
    share = 1 - strength * float(rng.uniform(0.4, 0.75))
    mean = image.mean(axis=(0, 1), keepdims=True)
    return np.asarray(
        mean + share * (image - mean) + np.float32(0.12 * strength * rng.uniform(-1, 1)), dtype=np.float32
    )
