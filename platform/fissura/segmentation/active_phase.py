"""One running phase of a training: its objective, optimizer, schedule and batches."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fissura.data.cache import PreparedData
from fissura.data.epochs import Batch, Epochs
from fissura.models import Segmenter
from fissura.segmentation.kept_maps import file_of, prediction, read_maps, write_maps
from fissura.segmentation.micro_batches import backward
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Recipe
from fissura.training.checkpoint import STATE, TrainingState
from fissura.training.mixed_precision import MixedPrecision
from fissura.training.runtime import Runtime


class ActivePhase:
    """The phase `number` of `recipe` on one worker, from its beginning; `state` resumes it.

    Raises:
        DataError: what an earlier phase left in `run` is missing, torn, or of other data.
    """

    def __init__(
        self,
        network: Segmenter,
        *,
        number: int,
        recipe: Recipe,
        data: PreparedData,
        run: Path,
        runtime: Runtime,
        precision: MixedPrecision,
    ) -> None:
        self.phase = phase = recipe.phases[number]
        self._recipe, self._data, self._run, self._runtime = recipe, data, run, runtime
        self._precision = precision
        self.objective = PhaseObjective(network, phase.loss)
        if runtime.device.type == "cuda":
            self.objective = self.objective.to(memory_format=torch.channels_last)
        self._prepared = runtime.prepare(self.objective)
        trainable = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        self._optimizer = phase.optimizer.build(trainable, published=network.published)
        left = {name: read_maps(run, name, data=data) for name in phase.loss.needs}
        self._epochs = Epochs(
            data,
            pipeline=recipe.data,
            stride=network.stride,
            seed=recipe.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            threads=max(1, min(4, runtime.cpus - 1)),
            maps=phase.loss.maps(left, {index: data.mask(index) for index in data.indices("train")}),
        )
        self._stepped = phase.schedule.stepped
        self._schedule = phase.schedule.build(
            self._optimizer, epochs=recipe.phase_epochs[number], steps=self._epochs.batches
        )
        self.state = TrainingState(
            run / STATE, self.objective, self._optimizer, self._schedule, precision.scaler
        )

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        rate: float = self._optimizer.param_groups[0]["lr"]
        return rate

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return self._epochs.batches

    def batches_of(self, epoch: int, *, start: int) -> Iterator[Batch]:
        """The batches of `epoch` from number `start` on, for a network in training mode."""
        self._prepared.train()
        return self._epochs.batches_of(epoch, start=start)

    def step(self, batch: Batch, *, size: int, on_logits: Callable[[Tensor, Tensor, Tensor], None]) -> Tensor:
        """One step of the optimizer, at most `size` images at a time; returns the loss, and calls `on_logits`
        with crack logits, targets and valid pixels."""
        device = self._runtime.device
        image, target, valid = (
            part.to(device, non_blocking=True) for part in (batch.image, batch.target, batch.valid)
        )
        maps = {name: part.to(device, non_blocking=True).float() for name, part in batch.maps.items()}
        self._optimizer.zero_grad(set_to_none=True)
        loss = backward(
            self._prepared,
            self.objective,
            self._recipe.data.normalise(image),
            target.float(),
            valid.float(),
            maps,
            size=size,
            precision=self._precision,
            on_logits=lambda logits: on_logits(logits, target, valid),
        )
        self._precision.step(self._optimizer)
        if self._schedule is not None and self._stepped == "step":
            self._schedule.step()
        return loss

    def end_epoch(self, validation_loss: float) -> None:
        """Steps the schedule, unless each optimizer step does."""
        if isinstance(self._schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            self._schedule.step(validation_loss)
        elif self._schedule is not None and self._stepped == "epoch":
            self._schedule.step()

    def finish(self, write_patiently: Callable[[Callable[[], None]], None]) -> None:
        """Rank 0 writes, through `write_patiently`, the maps that this phase leaves to later ones; the others
        wait for it."""
        if self._runtime.rank == 0:
            predict = prediction(
                self.objective.model, data=self._data, recipe=self._recipe, device=self._runtime.device
            )
            for name, maps in self.objective.criterion.finish_phase(predict).items():
                write_patiently(partial(write_maps, maps, self._run / file_of(name)))
        self._runtime.share([0.0])
