"""The topology loss of TopoNet: it matches the components of a prediction to those of the labels (Hu et al.,
*Topology-preserving deep image segmentation*, NeurIPS 2019)."""

from collections.abc import Iterator
from itertools import product
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from scipy.ndimage import label
from torch import Tensor

from fissura.core.paper import Paper
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision

Planes = Bool[np.ndarray, "b h w"]
Pixels = Int64[np.ndarray, " n"]
Values = Float[np.ndarray, " p"]

CORNERS = np.ones((3, 3), np.uint8)  # pixels that touch at a corner are connected, too


class PersistentTopology(LossSpec):
    """The topology loss, summed over a patch and averaged over the patches. Add it to BCE with a small
    weight, 0.05 say, best in a later phase: it joins and separates components, and finds no new ones.

    `patch` is the side of the squares, in pixels, that an image is cut into from its top left corner.
    `compares` says what is counted: components, the holes that cracks enclose, or both. Those whose
    persistence, a difference of probabilities, is at most `least_persistence` are ignored.
    """

    paper: ClassVar[Paper | None] = Paper("Hu et al.", "TopoNet, NeurIPS", 2019)
    kind: Literal["topology"] = "topology"
    patch: int = Field(64, ge=2, le=4096)
    compares: Literal["components", "holes", "both"] = "components"
    least_persistence: float = Field(0.03, ge=0, lt=1)

    def build(self) -> "TopologyLoss":
        """The loss as a module."""
        return TopologyLoss(self)


class TopologyLoss(SegmentationLoss):
    """`L = 1/|T| sum_{t in T} [ sum_{i <= B} (1 - h_i)^2 + l_i^2 + sum_{i > B} (h_i - l_i)^2 / 2 + m/2 ]`

    h, l  where a component (8-connected) or hole (4-connected) of p begins and where it ends: a component at
          its highest pixel and where it meets a higher one, the highest of all at 0; a hole where its ring
          closes and at its lowest pixel. Pairs in the order of their persistence h - l, the longest first
    p     probability, the sigmoid of the logit, 0 where invalid and beyond the patch
    B     how many the labels have; the B longest pairs should be 1 and 0. m of them are missing: no gradient
          makes them. A pair beyond B is one too many, and costs as much as making h and l equal
    T     the patches whose valid pixels are neither all crack nor all background; without one, L is 0

    The gradient is at the pixels of the pairs alone, two each. Readings: pairs of too little persistence are
    left out before any is matched, so that noise does not become a crack; patches of one class are left out,
    as in the published code. It is computed on the CPU.
    """

    def __init__(self, spec: PersistentTopology) -> None:
        super().__init__()
        self.spec = spec

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        z = full_precision(logits, valid)
        p = (z.sigmoid() * valid.to(z.dtype))[:, 0].cpu()
        known = (valid > 0)[:, 0].cpu().numpy()
        crack = (target > 0)[:, 0].cpu().numpy() & known
        probability = p.detach().numpy()
        numbers = np.arange(p.numel()).reshape(p.shape)
        matched, surplus, missing, patches = [np.empty((2, 0), int)], [np.empty((2, 0), int)], 0, 0
        for tile in self._compared(crack, known):
            patches += 1
            own = np.append(numbers[tile].ravel(), p.numel())
            for pairs, wanted in self._diagrams(probability[tile], crack[tile]):
                matched.append(own[pairs[:, :wanted]])
                surplus.append(own[pairs[:, wanted:]])
                missing += max(0, wanted - pairs.shape[1])
        # beyond the last pixel: where the highest components end
        values = torch.cat([p.flatten(), p.new_zeros(1)])
        (begin, end), (high, low) = (values[torch.from_numpy(np.hstack(x))] for x in (matched, surplus))
        wrong = (1 - begin).square().sum() + end.square().sum()
        cost = wrong + (high - low).square().sum() / 2 + missing / 2
        loss: Tensor = (cost / max(patches, 1)).to(logits.device)
        return loss

    def _compared(self, crack: Planes, known: Planes) -> Iterator[tuple[int, slice, slice]]:
        """The patches T."""
        (images, height, width), side = crack.shape, self.spec.patch
        for image, top, left in product(range(images), range(0, height, side), range(0, width, side)):
            tile = image, slice(top, top + side), slice(left, left + side)
            if crack[tile].any() and (known[tile] & ~crack[tile]).any():
                yield tile

    def _diagrams(
        self, p: Float[np.ndarray, "h w"], crack: Bool[np.ndarray, "h w"]
    ) -> Iterator[tuple[Int64[np.ndarray, "2 kept"], int]]:
        """The pairs (h, l) of a patch as numbers of its pixels, and how many the labels have: of components,
        of holes."""
        # numba takes long to import
        from fissura.losses.persistence import components, holes

        values = np.append(p, 0)
        if self.spec.compares != "holes":
            yield self._longest_first(values, *components(p)), label(crack, CORNERS)[1]
        if self.spec.compares != "components":
            background = np.pad(~crack, 1, constant_values=True)  # with the frame, which is no hole
            yield self._longest_first(values, *holes(p)), label(background)[1] - 1

    def _longest_first(self, values: Values, highs: Pixels, lows: Pixels) -> Int64[np.ndarray, "2 kept"]:
        """The pairs of enough persistence, in their order; of equals the higher first."""
        persistence = values[highs] - values[lows]
        order = np.lexsort((-values[highs], -persistence))
        order = order[persistence[order] > self.spec.least_persistence]
        return np.stack([highs[order], lows[order]])
