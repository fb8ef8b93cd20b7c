"""Training of a backbone, epoch by epoch: from labels, or from labels and a teacher. Resumable from any
epoch.

The kept weights are those of the last epoch: the learning rate has fallen to zero by then, so that the last
epochs differ little. So no validation image takes part in the choice, and all may score the result.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch.nn.functional import cross_entropy

from fissura.classification.backbone_images import PackedImages, batches_of, steps_of
from fissura.classification.distillation import Distillation, Distilled, Start, Supervised, teacher_features
from fissura.classification.image_changes import ImageChanges
from fissura.core.errors import Diverged, Interrupted
from fissura.core.retry import persist_in
from fissura.core.seeding import derive
from fissura.core.spec import Spec
from fissura.metrics.classification import class_scores
from fissura.models.backbones import FeatureNetwork
from fissura.training.checkpoint import STATE, TrainingState, resumed_progress
from fissura.training.decay_groups import decay_groups
from fissura.training.mixed_precision import MixedPrecision, PrecisionName
from fissura.training.runtime import Runtime

Record = dict[str, Any]


class BackboneTraining(Spec):
    """How a backbone learns from labelled images: AdamW, with a learning rate that rises linearly over the
    first `warmup` of all steps and falls along half a cosine over the others.

    `batch_size` is a step's, over all workers. Weight decay spares biases and normalisations. `precision` is
    as in a segmentation recipe: "mixed" on GPUs, "bfloat16" on CPUs too. `distillation` is read where the
    backbone's weights are `distilled`. `start` are the starting weights: `none` (random), `imagenet`, as in
    the paper, or the path of a .safetensors file.
    """

    epochs: int = Field(30, ge=1, le=10_000)
    batch_size: int = Field(32, ge=2, le=65_536)
    lr: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(0.02, ge=0, le=1)
    warmup: float = Field(0.1, ge=0, le=0.9)
    changes: ImageChanges = ImageChanges()
    distillation: Distillation = Distillation()
    precision: PrecisionName = "float32"
    seed: int = Field(0, ge=0, lt=2**32)
    start: Start = "none"

    def named_by(self) -> dict[str, Any]:
        """The plain form, which digests are of; without random starting weights, as earlier versions had no
        choice."""
        plain = self.plain()
        if self.start == "none":
            del plain["start"]
        if self.distillation.teacher_start == "none":
            del plain["distillation"]["teacher_start"]
        return plain

    def lr_at(self, step: int, *, steps: int) -> float:
        """The learning rate of a step, 0 to steps - 1."""
        rising = self.warmup * steps
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        return self.lr * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


class BackboneTrainer:
    """One worker's part in a training into `directory`; resumes the state of an earlier attempt there.

    Batch normalisation's statistics are those of the whole batch on GPUs (where the runtime synchronises
    them) and of each worker's own share on CPUs; rank 0's are kept and validated.

    Raises:
        ResourceError: the state cannot be written.
    """

    def __init__(
        self,
        training: BackboneTraining,
        *,
        images: PackedImages,
        directory: Path,
        runtime: Runtime,
        network: Callable[[], FeatureNetwork],
        teacher: Callable[[], FeatureNetwork] | None,
    ) -> None:
        self.training, self.images = training, images
        self._directory, self._runtime = directory, runtime
        self.progress, self.history = resumed_progress(directory / STATE)
        torch.manual_seed(derive(training.seed, "backbone"))
        self.network = network()
        self._taught = torch.empty(len(images.train), 0)
        classes = len(images.classes)
        if teacher is None:
            self._objective = Supervised(self.network, classes=classes)
        else:
            with torch.random.fork_rng(devices=[]):
                frozen = teacher()
            self._taught = teacher_features(
                frozen,
                images=images,
                dimensions=training.distillation.compared_dimensions,
                seed=training.seed,
                directory=directory,
                runtime=runtime,
            )
            self._objective = Distilled(
                self.network,
                classes=classes,
                spec=training.distillation,
            )
        self._model = runtime.prepare(self._objective)
        self._optimizer = self._build_optimizer()
        self._precision = MixedPrecision(training.precision, runtime.device)
        self._state = TrainingState(
            directory / STATE, self._objective, self._optimizer, None, self._precision.scaler
        )
        if self.progress.epoch:
            self._load()

    @property
    def head(self) -> torch.nn.Linear:
        """The linear head that is trained with the network."""
        return self._objective.head

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.progress.epoch >= self.training.epochs

    def step(self) -> Record:
        """Trains and validates one epoch, writes the state, returns the epoch's record.

        Raises:
            Diverged: a loss is not a number; the state before this epoch is kept.
            Interrupted: the runtime asked to stop; likewise.
        """
        begin = time.perf_counter()
        record: Record = {"epoch": self.progress.epoch + 1, **self._train(), **self._validate()}
        seconds = self.progress.seconds + time.perf_counter() - begin
        record["seconds"] = seconds
        self.history.append(record)
        self.progress = replace(self.progress, epoch=self.progress.epoch + 1, seconds=seconds)
        if self._runtime.rank == 0:
            persist_in(
                self._directory,
                lambda: self._state.save(self.progress, self.history),
                on_wait=self._runtime.waiting,
            )
        return record

    def _load(self) -> None:
        self._state.load()
        # the fused step needs a weight and its moments in the same memory layout
        for parameter, moments in self._optimizer.state.items():
            for name, value in moments.items():
                if value.shape == parameter.shape:
                    moments[name] = torch.empty_like(parameter).copy_(value)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        parameters = list(self._objective.parameters())
        groups = decay_groups(parameters, weight_decay=self.training.weight_decay)
        groups.reverse()  # the order in which the states of earlier versions number them
        return torch.optim.AdamW(groups, lr=self.training.lr, fused=True)

    def _train(self) -> Record:
        self._model.train()
        training, device = self.training, self._runtime.device
        done = self.progress.epoch * (steps := steps_of(self.images, batch_size=training.batch_size))
        labels = torch.from_numpy(self.images.labels[self.images.train])
        totals, count, begin = torch.zeros(len(self._objective.TERMS), device=device), 0, time.perf_counter()
        batches = batches_of(
            self.images,
            epoch=self.progress.epoch,
            batch_size=training.batch_size,
            changes=training.changes,
            seed=training.seed,
            rank=self._runtime.rank,
            world_size=self._runtime.world_size,
        )
        for step, (batch, pixels) in enumerate(batches, start=done):
            for group in self._optimizer.param_groups:
                group["lr"] = training.lr_at(step, steps=steps * training.epochs)
            inputs = (part.to(device) for part in (pixels, labels[batch], self._taught[batch]))
            with self._precision.autocast:
                terms = self._model(*inputs)
            self._optimizer.zero_grad(set_to_none=True)
            self._precision.backward(terms[0])
            self._precision.step(self._optimizer)
            totals += terms.detach()
            count += len(batch)
            if self._runtime.should_stop():
                raise Interrupted(
                    f"stopped in epoch {self.progress.epoch + 1}; the epochs before it are kept"
                )
        means = [self._runtime.mean(float(total) / steps) for total in totals]
        seconds = time.perf_counter() - begin
        if not all(map(math.isfinite, means)):
            raise Diverged(
                f"the training loss of epoch {self.progress.epoch + 1} is {means[0]} (learning rate"
                f" {self._optimizer.param_groups[0]['lr']:g})"
            )
        named = {f"train/{term}": mean for term, mean in zip(self._objective.TERMS, means, strict=True)}
        return {
            **named,
            "lr": self._optimizer.param_groups[0]["lr"],
            "images_per_second": count * self._runtime.world_size / seconds,
        }

    def _validate(self) -> Record:
        """Rank 0's scores of the validation images, in float32; the others have none."""
        rows = self.images.validation
        if self._runtime.rank != 0 or not len(rows):
            return {}
        self._objective.eval()
        size, logits = self.training.batch_size, []
        with torch.inference_mode():
            for first in range(0, len(rows), size):
                batch = torch.from_numpy(self.images.pixels[rows[first : first + size]])
                pixels = batch.to(self._runtime.device).permute(0, 3, 1, 2).float() / 255
                logits.append(self._objective.logits(pixels).cpu())
        outputs, labels = torch.cat(logits), self.images.labels[rows]
        predictions = outputs.argmax(1).numpy().astype(np.int64)
        scores = class_scores(labels, predictions, classes=len(self.images.classes))
        return {
            "val/loss": float(cross_entropy(outputs, torch.from_numpy(labels))),
            "val/f1": scores.f1,
            "val/precision": scores.precision,
            "val/recall": scores.recall,
            "val/accuracy": scores.accuracy,
        }
