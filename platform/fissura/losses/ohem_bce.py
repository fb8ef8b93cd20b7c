"""The cross-entropy of the hardest pixels (online hard example mining: Shrivastava et al., CVPR 2016)."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from fissura.core.paper import Paper
from fissura.losses.lin_focal import towards_label
from fissura.losses.loss import LossSpec, SegmentationLoss, full_precision


class OhemBCE(LossSpec):
    """Binary cross-entropy, the mean over the hard ones of the batch's valid pixels: those whose label has a
    probability of at most `threshold`, and in any case the `least_kept` hardest, whose number is that of the
    whole batch. `threshold` 1, or a `least_kept` that no batch exceeds, is BCE. As pixels become easy the
    mean is over fewer, so it may rise while all improve.
    """

    paper: ClassVar[Paper | None] = Paper("Shrivastava et al.", "CVPR", 2016)
    kind: Literal["ohem_bce"] = "ohem_bce"
    threshold: float = Field(0.7, gt=0, le=1)
    least_kept: int = Field(10_000, ge=1, le=1_000_000_000)

    def build(self) -> "OhemBCELoss":
        """The loss as a module."""
        return OhemBCELoss(self)


class OhemBCELoss(SegmentationLoss):
    """`L = - 1/|H| sum_{i in H} log q_i`, H the i in V with `q_i <= max(t, q_(n))`; 0 where V is empty.

    q  probability of the pixel's own label        V  valid pixels of the batch
    t  `threshold`        q_(n)  the n-th smallest q of V, n being `least_kept`; its largest where V has fewer

    Reading: the code of segmentation libraries takes q below the bound, which leaves out the n-th pixel and
    all that equal it: every one, where all are alike.
    """

    def __init__(self, spec: OhemBCE) -> None:
        super().__init__()
        self.spec = spec
        t = spec.threshold
        self.least_logit = math.inf if t == 1 else math.log(t) - math.log1p(-t)

    def forward(
        self,
        logits: Float[Tensor, "b 1 h w"],
        target: Float[Tensor, "b 1 h w"],
        valid: Float[Tensor, "b 1 h w"],
    ) -> Float[Tensor, ""]:
        """The loss of a batch."""
        own = towards_label(full_precision(logits, valid), target)
        # logits have the order of probabilities, of which many are 1 to the last digit
        known = torch.where(valid > 0, own.detach(), math.inf)
        hardest = known.flatten().topk(min(self.spec.least_kept, known.numel()), largest=False, sorted=False)
        bound = hardest.values.amax().clamp(min=self.least_logit)
        # what is no number is kept, so that the loss is none either
        kept = (valid > 0) & ~(known > bound)
        return torch.where(kept, softplus(-own), 0.0).sum() / kept.sum().clamp(min=1)
