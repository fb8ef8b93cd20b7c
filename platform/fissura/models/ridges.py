"""Filters of dark lines by the curvature of the image: Frangi's and Sato's.

a, b     the Hessian's eigenvalues at a scale, |a| >= |b|, of the evened grey image; a > 0 on a dark line
S        their norm, sqrt(a^2 + b^2)
"""

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from fissura.core.paper import Paper
from fissura.models.filters import Curvature, Filter, FilterNetwork, Plane, scales

COARSEST = 100  # pixels of deviation: more than half a wide crack
FAINTEST = 1e-6
FLAT = 1e-8  # square of the Hessian's norm below which an image shows nothing
STEP = 0.01


class Ridges(Filter):
    """Base of the two. A pixel's response is the largest over `scales` scales: `sigma` pixels, and each
    further one the root of 2 times the previous one. A line responds most at the scale of half its width."""

    sigma: float = Field(3.0, ge=0.5, le=COARSEST)
    scales: int = Field(1, ge=1, le=16)

    @model_validator(mode="after")
    def _an_image_shows_the_coarsest_scale(self) -> "Ridges":
        coarsest = scales(self.sigma, count=self.scales)[-1]
        if coarsest > COARSEST:
            raise ValueError(
                f"a scale has at most {COARSEST} pixels: the last of {self.scales} from `sigma` {self.sigma}"
                f" on has {coarsest:.0f}; lower `sigma` or `scales`"
            )
        return self


class RidgeNetwork(FilterNetwork):
    """A response r >= 0 as the probability r / (r + `even`): an eighth part more is seen at any level."""

    even: float

    def __init__(self, spec: Ridges) -> None:
        super().__init__(spec)
        self.curvatures = nn.ModuleList(Curvature(scale) for scale in scales(spec.sigma, count=spec.scales))

    @abstractmethod
    def at_scale(self, larger: Plane, smaller: Plane) -> Plane:
        """The response of the eigenvalues at one scale."""

    def response(self, grey: Plane) -> Plane:
        """The largest over the scales."""
        return torch.stack([self.at_scale(*curvature(grey)) for curvature in self.curvatures]).amax(0)

    def head(self, features: Plane) -> Plane:
        """The logit of the probability; a response below a millionth counts as one."""
        return (features.clamp(min=FAINTEST) / self.even).log()


class Frangi(Ridges):
    """`exp(-(b / a)^2 / (2 beta^2)) (1 - exp(-S^2 / (2 c^2)))` where a > 0, else 0 (Frangi et al., MICCAI
    1998, Eq. 15): long rather than round, and stronger than the noise.

    `beta` is the ratio of curvatures at which a blob's response falls; c is `gamma` times the largest S of
    the image (of the window, where it is read in windows) at the same scale. scikit-image from 0.19 on takes
    c of the first scale and S without the scale's square, so its several scales are the first one alone. The
    response rises from 0 to its whole as a + b goes from 0 to a hundredth of the largest S, where the paper
    has a step. `weights` is `none`: there is nothing to learn.
    """

    paper: ClassVar[Paper | None] = Paper("Frangi et al.", "MICCAI", 1998)
    kind: Literal["frangi"] = "frangi"
    beta: float = Field(0.5, ge=0.01, le=100)
    gamma: float = Field(0.5, ge=0.01, le=100)

    def network(self) -> "FrangiNetwork":
        """The filter of these settings."""
        return FrangiNetwork(self)


class FrangiNetwork(RidgeNetwork):
    """Frangi's vesselness as a network."""

    even = 0.07

    def __init__(self, spec: Frangi) -> None:
        super().__init__(spec)
        self.beta, self.gamma = spec.beta, spec.gamma

    def at_scale(self, larger: Plane, smaller: Plane) -> Plane:
        """The vesselness of one scale."""
        ratio = smaller / larger.clamp(min=1e-10)
        norm = larger.square() + smaller.square()
        strongest = norm.amax((1, 2, 3), keepdim=True).clamp(min=FLAT)
        line = torch.exp(-ratio.square() / (2 * self.beta**2))
        strong = -torch.expm1(-norm / (2 * self.gamma**2 * strongest))
        # a = larger where their sum is above 0; a step there would turn rounding errors into cracks
        dark = (larger + smaller) / (STEP * strongest.sqrt())
        return dark.clamp(0, 1) * line * strong


class Sato(Ridges):
    """The curvature across a dark line: the larger eigenvalue where it is above 0, else 0 (Sato et al.,
    Medical Image Analysis 1998, in the plane). `weights` is `none`: there is nothing to learn."""

    paper: ClassVar[Paper | None] = Paper("Sato et al.", "Medical Image Analysis", 1998)
    kind: Literal["sato"] = "sato"

    def network(self) -> "SatoNetwork":
        """The filter of these settings."""
        return SatoNetwork(self)


class SatoNetwork(RidgeNetwork):
    """Sato's line filter as a network."""

    even = 0.05

    def at_scale(self, larger: Plane, smaller: Plane) -> Plane:
        """The larger eigenvalue."""
        return larger.clamp(min=0)
