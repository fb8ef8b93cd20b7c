"""The Dice score of training batches: what a literal count over all their pixels gives."""

import numpy as np
import pytest
import torch

from fissura.metrics import Overlap
from fissura.metrics.counts import pool
from fissura.metrics.scores import level_of
from fissura.segmentation.predict import to_bytes
from fissura.segmentation.training_dice import TrainingDice
from fissura.training.checkpoint import Progress

CPU = torch.device("cpu")


def batches(rng: np.random.Generator) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Five batches of logits, labels and valid pixels."""
    return [
        (
            torch.from_numpy(rng.normal(size=(3, 1, 16, 20)).astype(np.float32)),
            torch.from_numpy((rng.random((3, 1, 16, 20)) < 0.3).astype(np.float32)),
            torch.from_numpy((rng.random((3, 1, 16, 20)) < 0.8).astype(np.float32)),
        )
        for _ in range(5)
    ]


def test_it_is_the_pooled_dice_of_the_protocol_overlap(rng: np.random.Generator) -> None:
    dice, counts = TrainingDice(Progress(), device=CPU), []
    for logits, target, valid in batches(rng):
        dice.add(logits, target, valid)
        for image in range(len(logits)):
            probability = to_bytes(logits[image, 0].sigmoid().numpy())
            mask, seen = (part[image, 0].numpy().astype(np.uint8) for part in (target, valid))
            counts.append(Overlap().count(probability, mask, seen))
    expected = Overlap().score(pool(counts), level_of(0.5)).dice
    # a map is rounded to 256 levels before it is scored, so that a pixel at 0.5 may fall to either side
    assert dice.score(float) == pytest.approx(expected, abs=0.01)


def test_it_goes_on_from_where_a_training_stopped(rng: np.random.Generator) -> None:
    whole = TrainingDice(Progress(), device=CPU)
    first = TrainingDice(Progress(), device=CPU)
    known = batches(rng)
    for batch in known:
        whole.add(*batch)
    for batch in known[:2]:
        first.add(*batch)
    second = TrainingDice(first.recorded_in(Progress()), device=CPU)
    for batch in known[2:]:
        second.add(*batch)
    assert second.score(float) == whole.score(float)


def test_nothing_labelled_and_nothing_predicted_agree() -> None:
    dice = TrainingDice(Progress(), device=CPU)
    dice.add(torch.full((1, 1, 4, 4), -9.0), torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4))
    assert dice.score(float) == 1.0
