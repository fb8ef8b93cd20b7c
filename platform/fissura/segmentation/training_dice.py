"""The Dice score of an epoch's training batches, to plot beside the validation's."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from fissura.training.checkpoint import Progress

Maps = Float[Tensor, "b 1 h w"]


class TrainingDice:
    """Sums 2 |P and T| and |P| + |T| over valid pixels, step by step; P is the network's prediction at 0.5
    before the step, T the labels.

    The images are augmented crops, and the network changes at each step: the score of an epoch is that of a
    network some steps younger than the validated one. Adding a batch does not wait for the device.
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

    def recorded_in(self, progress: Progress) -> Progress:
        """`progress` with the sums so far, to resume from; waits for the device."""
        agreed, marked = self._sums.tolist()
        return replace(progress, agreed=agreed, marked=marked)

    def score(self, mean: Callable[[float], float]) -> float:
        """The score over all ranks' batches, 0..1, where `mean` is the mean over the ranks. 1 where nothing
        is labelled or predicted."""
        agreed, marked = (mean(float(value)) for value in self._sums.tolist())
        return agreed / marked if marked else 1.0
