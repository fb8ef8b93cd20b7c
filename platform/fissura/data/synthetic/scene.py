"""The spec of a synthetic set (`SyntheticSpec`), and the drawing of one of its images (`draw`)."""

from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import Field, model_validator

from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.data.sample import Split
from fissura.data.synthetic.cracks import Crack, Growth, Topology, depth
from fissura.data.synthetic.nuisances import low_contrast, shadow, stain
from fissura.data.synthetic.textures import Colour, Surface, fractal, surface

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=100_000)]


class SurfaceMix(Spec):
    """Relative weights of the surfaces."""

    concrete: float = Field(1.0, ge=0, le=1000)
    asphalt: float = Field(1.0, ge=0, le=1000)
    masonry: float = Field(1.0, ge=0, le=1000)

    @model_validator(mode="after")
    def _some(self) -> "SurfaceMix":
        if self.concrete + self.asphalt + self.masonry <= 0:
            raise ValueError("at least one surface needs a weight above 0")
        return self

    def choose(self, at: float) -> Surface:
        """The surface at the share `at`, in [0, 1), of the summed weights."""
        at *= self.concrete + self.asphalt + self.masonry
        if at < self.concrete:
            return "concrete"
        return "asphalt" if at < self.concrete + self.asphalt else "masonry"


class SyntheticSpec(Spec):
    """A set of synthetic crack images. Each image depends only on the seed, its split and its index, so that
    a larger set begins with the smaller one's images. Lengths are in pixels."""

    train: Count = 48
    val: Count = 12
    test: Count = 12
    height: int = Field(128, ge=32, le=4096)
    width: int = Field(128, ge=32, le=4096)
    seed: int = Field(0, ge=0, lt=2**63)
    surfaces: SurfaceMix = SurfaceMix()
    cracks: tuple[Annotated[int, Field(ge=1, le=32)], Annotated[int, Field(ge=1, le=32)]] = (1, 3)
    crack_width: tuple[Annotated[float, Field(ge=1, le=64)], Annotated[float, Field(ge=1, le=64)]] = (
        1.5,
        5.0,
    )
    branching: Share = 0.5  # share of cracks that have branches
    clean: Share = 0.1  # share of images without a crack
    shadow: Share = 0.3
    stain: Share = 0.3
    low_contrast: Share = 0.2

    @model_validator(mode="after")
    def _ranges(self) -> "SyntheticSpec":
        for name, (low, high) in (("cracks", self.cracks), ("crack_width", self.crack_width)):
            if low > high:
                raise ValueError(f"`{name}` is upside down: {low} is above {high}")
        if self.crack_width[1] > min(self.height, self.width) / 8:
            raise ValueError(f"`crack_width` may reach an eighth of the image, not {self.crack_width[1]} px")
        return self

    def count(self, split: Split) -> int:
        """The number of images of the split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


@dataclass(frozen=True)
class SyntheticImage:
    """An image and its exact truth.

    image: uint8 [h w 3], RGB. mask: uint8 [h w], 1 where a pixel's centre lies within half a segment's width
    of that segment, 0 elsewhere. The topology of the mask (8-connected) is the topology of the centrelines.
    """

    image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w"]
    cracks: tuple[Crack, ...]
    surface: Surface

    @property
    def topology(self) -> Topology:
        """Components, junctions, ends and branches of the centrelines."""
        return Topology.of(self.cracks)


def draw(spec: SyntheticSpec, *, split: Split, index: int) -> SyntheticImage:
    """Draws the image `index` (from 0) of a split. Shadows, stains and contrast never change the mask.

    If there is no room for the drawn number of cracks, there are fewer: the truth says how many.
    """

    def rng(purpose: str) -> np.random.Generator:
        return np.random.default_rng(derive(spec.seed, "synthetic", split, index, purpose))

    cracks = _cracks(spec, rng("cracks"))
    strokes = tuple(stroke for crack in cracks for stroke in crack.strokes)
    inside = depth(strokes, height=spec.height, width=spec.width)
    kind = spec.surfaces.choose(float(rng("surface").random()))
    image = surface(kind, height=spec.height, width=spec.width, rng=rng("texture"))
    image = _open(image, inside, rng=rng("opening"))
    image = stain(image, strength=spec.stain, rng=rng("stain"))
    image = shadow(image, strength=spec.shadow, rng=rng("shadow"))
    image = low_contrast(image, strength=spec.low_contrast, rng=rng("contrast"))
    return SyntheticImage(_photograph(image, rng=rng("camera")), (inside >= 0).astype(np.uint8), cracks, kind)


def _cracks(spec: SyntheticSpec, rng: np.random.Generator) -> tuple[Crack, ...]:
    if rng.random() < spec.clean:
        return ()
    growth = Growth(height=spec.height, width=spec.width, crack_width=spec.crack_width, rng=rng)
    for number in range(1, int(rng.integers(spec.cracks[0], spec.cracks[1] + 1)) + 1):
        growth.crack()
        if rng.random() < spec.branching and len(growth.cracks) == number:
            for _ in range(int(rng.integers(1, 4))):
                growth.branch()
    return growth.cracks


def _open(image: Colour, inside: np.ndarray, *, rng: np.random.Generator) -> Colour:
    """Renders the cracks: edges antialiased over one pixel, the middle darkest, the rim a little worn."""
    height, width = inside.shape
    cover = np.clip(inside + 0.5, 0, 1).astype(np.float32)
    rim = np.clip(inside + 1.5, 0, 1).astype(np.float32) - cover
    uneven = np.clip(0.9 + 0.08 * fractal(height, width, scale=8.0, finest=2.0, rng=rng), 0.6, 1)
    dark = np.float32(rng.uniform(0.55, 0.8)) * (0.75 + 0.25 * np.clip(inside, 0, 2).astype(np.float32) / 2)
    shade = 1 - cover * dark * uneven + rim * np.float32(rng.uniform(-0.06, 0.06))
    return np.asarray(image * shade[..., None], dtype=np.float32)


def _photograph(image: Colour, *, rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Applies a slight lens blur, uneven light and sensor noise, and rounds to eight bits."""
    height, width = image.shape[:2]
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.3, 0.6))), dtype=np.float32)
    slope = rng.uniform(-0.12, 0.12, 2)
    light = 1 + slope[0] * np.linspace(-1, 1, width)[None] + slope[1] * np.linspace(-1, 1, height)[:, None]
    grain = 0.008 * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.asarray(np.clip(255 * (image * light[..., None] + grain) + 0.5, 0, 255), dtype=np.uint8)
