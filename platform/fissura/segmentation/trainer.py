"""Training of a recipe, epoch by epoch, resumable from any step.

The kept model is the best of the current phase by the recipe's `kept_by`; `kept` holds its epoch's record,
and is what a search compares.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fissura.core.errors import DataError, Diverged, Interrupted
from fissura.core.files import remove_abandoned, write_json
from fissura.core.progress import OnStep
from fissura.core.retry import persist_in
from fissura.core.seeding import derive
from fissura.data.cache import PreparedData
from fissura.losses import BCE
from fissura.records.run_files import MANIFEST
from fissura.segmentation.active_phase import ActivePhase
from fissura.segmentation.micro_batches import micro_batch_of
from fissura.segmentation.objective import PhaseObjective
from fissura.segmentation.recipe import Phase, Recipe
from fissura.segmentation.training_dice import TrainingDice
from fissura.segmentation.validation import validate
from fissura.training.checkpoint import (
    METRICS,
    RECIPE,
    STATE,
    WEIGHTS,
    Progress,
    read_metrics,
    resumed_progress,
    save_weights,
)
from fissura.training.mixed_precision import MixedPrecision
from fissura.training.runtime import Runtime
from fissura.training.tensorboard import add_epoch, begin_curves

UNTRAINED = Phase(name="none", loss=BCE())
"""The phase of a recipe without any; its one record is of the untrained network."""

CHECKED_STEPS = 32  # between two checks of the loss, each of which waits for the device
Record = dict[str, Any]


class Trainer:
    """One worker's part in the training of `recipe` into the run directory `run`.

    A directory that holds the state of an earlier attempt is resumed; a finished one is only read. `on_step`
    is called after each training step and validation batch.

    Raises:
        WeightsError: the pretrained weights cannot be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        data: PreparedData,
        run: Path,
        runtime: Runtime,
        on_step: OnStep = lambda *_: None,
    ) -> None:
        self.recipe, self.run = recipe, run
        self._data, self._runtime, self._on_step = data, runtime, on_step
        self.device, self.rank = runtime.device, runtime.rank
        # images of a step's batch that this worker computes, and how many of them at a time
        self.share = math.ceil(recipe.data.batch_size / runtime.world_size)
        self.micro_batch = micro_batch_of(run, share=self.share)
        self.progress, self.history = self._read()
        if not self.finished:
            self._start()

    @property
    def finished(self) -> bool:
        """Whether all phases are done."""
        return bool(self.progress.finished)

    @property
    def accumulation(self) -> int:
        """Parts that a step's batch is computed in; 1 where the memory holds it whole."""
        return math.ceil(self.share / self.micro_batch)

    @property
    def kept(self) -> Record:
        """The record of the kept model's epoch, with the number of epochs so far (DataError: none)."""
        if not self.progress.best_epoch:
            raise DataError(f"{self.run}: no epoch has been finished yet; go on with the training")
        return {**self.history[self.progress.best_epoch - 1], "epochs": self.progress.epoch}

    def step(self) -> Record:
        """Trains and validates one epoch, writes the checkpoints, returns the epoch's record.

        Raises:
            Diverged: a loss is not a number.
            Interrupted: the runtime asked to stop; the state is on disk, mid-epoch if need be.
        """
        start = time.perf_counter()
        phase = self._active.phase if self.recipe.phases else UNTRAINED
        train = {} if phase is UNTRAINED else self._train()
        validation = self._validate()
        if not math.isfinite(validation["val/loss"]):
            raise Diverged(
                f"the validation loss of epoch {self.progress.epoch + 1} is {validation['val/loss']}"
            )
        if phase is not UNTRAINED:
            self._active.end_epoch(validation["val/loss"])
        seconds = self.progress.seconds + time.perf_counter() - start
        record = {
            "epoch": self.progress.epoch + 1,
            "phase": phase.name,
            **train,
            **validation,
            "seconds": seconds,
            "accumulation": self.accumulation,
            "parameters": sum(parameter.numel() for parameter in self._network.parameters()),
        }
        self.history.append(record)
        self._advance(phase, record, seconds=seconds)
        self._write()
        return record

    def _read(self) -> tuple[Progress, list[Record]]:
        state = self.run / STATE
        if (self.run / METRICS).is_file() and (self.run / WEIGHTS).is_file():
            progress, history = read_metrics(self.run)
            if progress.finished:
                state.unlink(missing_ok=True)
                return progress, history
        return resumed_progress(state)

    def _start(self) -> None:
        torch.manual_seed(derive(self.recipe.seed, "model"))
        if self._runtime.device.type == "cpu":
            # as use_deterministic_algorithms, which would import the whole compiler
            torch.set_deterministic_debug_mode("warn")
        resumed = self.progress != Progress()
        # a state holds all weights: the pretrained ones are not needed
        model = self.recipe.model.model_copy(update={"weights": "none"}) if resumed else self.recipe.model
        self._network = model.build()
        self._precision = MixedPrecision(self.recipe.precision, self.device)
        if self.rank == 0:
            self.run.mkdir(parents=True, exist_ok=True)
        if not resumed:
            self.progress = replace(self.progress, phase=self._phase_after(-1))
        if self.recipe.phases:
            self._active = self._begin_phase()
        if self.rank == 0:
            self.write_patiently(lambda: remove_abandoned(self.run))
            # it describes an earlier training, whose weights were removed
            self.write_patiently(lambda: (self.run / MANIFEST).unlink(missing_ok=True))
        if resumed:
            self._active.state.load()
        elif self.rank == 0:
            self.write_patiently(lambda: write_json(self.run / RECIPE, self.recipe.plain()))
        if self.rank == 0:
            self.write_patiently(lambda: begin_curves(self.run, self.history))

    def _begin_phase(self) -> ActivePhase:
        return ActivePhase(
            self._network,
            number=self.progress.phase,
            recipe=self.recipe,
            data=self._data,
            run=self.run,
            runtime=self._runtime,
            precision=self._precision,
        )

    def _phase_after(self, phase: int) -> int:
        """The next phase that has epochs; the number of phases where there is none."""
        later = range(phase + 1, len(self.recipe.phases))
        return next((phase for phase in later if self.recipe.phase_epochs[phase]), len(self.recipe.phases))

    def _train(self) -> Record:
        number, loss_sum = self.progress.batch, self.progress.loss_sum
        images, waited, begin = 0, 0.0, time.perf_counter()
        pending: list[Tensor] = []
        dice = TrainingDice(self.progress, device=self.device)
        self._active.objective.criterion.begin_epoch(self.progress.phase_epoch)
        batches = self._active.batches_of(self.progress.epoch, start=number)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - asked
            if batch is None:
                break
            pending.append(self._active.step(batch, size=self.micro_batch, on_logits=dice.add))
            number, images = number + 1, images + len(batch.image)
            self._on_step(self.progress.epoch + 1, f"step {number} of {self._active.steps}")
            stop = self._runtime.should_stop()
            if stop or len(pending) == CHECKED_STEPS:
                loss_sum += self._sum_of(pending, last=number)
            if stop:
                spent = self.progress.seconds + time.perf_counter() - begin
                stopped = replace(self.progress, batch=number, loss_sum=loss_sum, seconds=spent)
                self._save(dice.recorded_in(stopped))
                raise Interrupted(f"stopped after step {number} of epoch {self.progress.epoch + 1}")
        loss_sum += self._sum_of(pending, last=number)
        seconds = time.perf_counter() - begin
        return {
            "train/loss": self._runtime.mean(loss_sum / max(1, number)),
            "train/dice": dice.score(self._runtime.mean),
            "lr": self._active.learning_rate,
            "images_per_second": images * self._runtime.world_size / seconds,
            "wait_share": waited / seconds,
        }

    def _sum_of(self, losses: list[Tensor], *, last: int) -> float:
        """The sum of the losses of the steps up to `last`; empties `losses`."""
        values = [float(loss) for loss in losses]
        losses.clear()
        for step, value in enumerate(values, start=last - len(values) + 1):
            if not math.isfinite(value):
                raise Diverged(
                    f"the training loss of step {step} of epoch {self.progress.epoch + 1} is {value}"
                    f" (learning rate {self._active.learning_rate:g})"
                )
        return math.fsum(values)

    @property
    def _objective(self) -> PhaseObjective:
        """The objective that an epoch is validated with."""
        if self.recipe.phases:
            return self._active.objective
        return PhaseObjective(self._network.to(self.device), UNTRAINED.loss)

    def _validate(self) -> Record:
        record: Record = {}
        if self._runtime.rank == 0:
            record = validate(
                self._objective,
                data=self._data,
                recipe=self.recipe,
                device=self._runtime.device,
                micro_batch=self.micro_batch,
                on_image=lambda done, total: self._on_step(
                    self.progress.epoch + 1, f"{done} of {total} validation images"
                ),
            )
        # the other ranks need only the loss, for schedule and early stopping, and the kept metric
        names = ("val/loss", self.recipe.kept_metric)
        shared = self._runtime.share([record.get(name, 0.0) for name in names])
        return record | dict(zip(names, shared, strict=True))

    def _advance(self, phase: Phase, record: Record, *, seconds: float) -> None:
        best = self._is_best(record)
        if best and self.rank == 0:
            self.write_patiently(lambda: save_weights(self._network, self.run / WEIGHTS))
        done = self.progress.after_epoch(loss=record["val/loss"], best=best, seconds=seconds)
        record["kept_epoch"] = done.best_epoch
        stopped = phase.early_stopping is not None and done.stale >= phase.early_stopping
        if stopped or phase is UNTRAINED or done.phase_epoch >= self.recipe.phase_epochs[done.phase]:
            following = self._phase_after(done.phase)
            if following < len(self.recipe.phases):
                done = replace(done, phase=following, phase_epoch=0, best_loss=float("inf"), stale=0)
            else:
                reason = "early stopping" if stopped else "all epochs done"
                done = replace(done, finished=reason)
        changed = done.phase != self.progress.phase
        if changed:
            self._active.finish(self.write_patiently)
            # two wrappers must not average the same gradients
            del self._active
        self.progress = done
        if changed:
            self._active = self._begin_phase()

    def _is_best(self, record: Record) -> bool:
        """Whether the epoch is the best of its phase so far."""
        best, before = self.progress.best_epoch, self.progress.epoch - self.progress.phase_epoch
        order = self.recipe.epoch_order
        return best <= before or order(record) > order(self.history[best - 1])

    def _write(self) -> None:
        if self._runtime.rank != 0:
            return
        self.write_patiently(lambda: add_epoch(self.run, self.history[-1]))
        if self.finished:
            plain = {"progress": vars(self.progress), "history": self.history}
            self.write_patiently(lambda: write_json(self.run / METRICS, plain))
            self.write_patiently(lambda: (self.run / STATE).unlink(missing_ok=True))
        else:
            self._save(self.progress)

    def _save(self, progress: Progress) -> None:
        if self._runtime.rank == 0:
            self.write_patiently(lambda: self._active.state.save(progress, self.history))

    def write_patiently(self, write: Callable[[], None]) -> None:
        """Calls `write`, which writes into the run directory; waits while its storage is full or gone."""
        persist_in(self.run, write, on_wait=self._runtime.waiting)
