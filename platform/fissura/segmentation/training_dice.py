"""The Dice score of an epoch's own training batches, so that it can be drawn beside the validation's."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fissura.training.checkpoint import Progress

Maps = Float[Tensor, "b 1 h w"]


class TrainingDice:
    """Adds up, step by step, 2 |P and T| and |P| + |T| over valid pixels, where P is what a step's network
    predicts at 0.5 before the step is taken and T the labels.

    The images are augmented crops, and the network is another at each step: the score of an epoch is that of
    a network some steps younger than the one that is validated. Nothing waits for the device.
    """

    def __init__(self, progress: Progress, *, device: torch.device) -> None:
        self._sums = torch.tensor([progress.agreed, progress.marked], dtype=torch.int64, device=device)

    @torch.no_grad()
    def add(self, logits: Float32[Tensor, "b 1 h w"], target: Maps, valid: Maps) -> None:
        """Counts one batch; target and valid are 0 or 1."""
        seen = valid > 0
        predicted, labelled = (logits >= 0) & seen, (target > 0) & seen
        both = 2 * (predicted & labelled).sum()
        self._sums += torch.stack([both, predicted.sum() + labelled.sum()])

    def kept(self, progress: Progress) -> Progress:
        """The progress of a training that stops here, to go on from; waits for the device."""
        agreed, marked = self._sums.tolist()
        return replace(progress, agreed=agreed, marked=marked)

    def score(self, mean: Callable[[float], float]) -> float:
        """Over all ranks' batches, 0..1: `mean` is that of the ranks. 1 where nothing is labelled or
        predicted."""
        agreed, marked = (mean(float(value)) for value in self._sums.tolist())
        return agreed / marked if marked else 1.0
