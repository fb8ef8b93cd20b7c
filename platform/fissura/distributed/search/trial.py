"""A trial of a search: one training in a Tune actor, which runs trial after trial and keeps its mapped
data."""

import gc
import time
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from fissura.core.errors import Interrupted
from fissura.core.garbage import freeze_living_objects
from fissura.core.retry import must_stand, persist
from fissura.core.spec import Spec
from fissura.data.cache import PreparedData
from fissura.data.datasets import AnyDataset
from fissura.data.trainable import prepare_training
from fissura.distributed.failure_policy import decide, raised
from fissura.distributed.preemption import NodeNotice, Preempted
from fissura.distributed.search.waiting import WaitingTrials
from fissura.distributed.stopping import StopFile
from fissura.segmentation.fit import advance
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.resumable import Training
from fissura.segmentation.trainer import Trainer
from fissura.training.runtime import LocalRuntime

LEAVING = "its node is to be taken away; the trial's state is saved, and it goes on on another node"


class TrialContext(Spec):
    """What all trials of a study share. `content` is the digest of the data's files; `cache` is a folder on
    the node."""

    study: Path
    datasets: tuple[AnyDataset, ...]
    content: str
    cache: Path
    cpus: int


class TrialRuntime(LocalRuntime):
    """The actor's view of its node: the trial's CPUs and GPU."""

    def __init__(self, context: TrialContext, *, number: int, notice: NodeNotice) -> None:
        super().__init__(cpus=context.cpus)
        self.stop, self._notice = StopFile(context.study), notice
        self._number, self._waiting = number, WaitingTrials(context.study)

    def should_stop(self) -> bool:
        """Whether the study's driver requested a stop, or the node is preempted."""
        return self.stop.requested() or self._notice.noticed()

    def waiting(self, reason: str) -> None:
        """Tells the driver why the trial waits for its storage; "": it waits no longer.

        Raises:
            Interrupted: a stop was requested.
        """
        if ray.is_initialized():
            self._waiting.tell(self._number, reason)
        if reason and self.should_stop():
            self.waiting("")
            raise Interrupted(f"stopped while it waited for its storage ({reason}); its last state stands")


def epoch_result(trainer: Trainer, *, reported: int) -> dict[str, Any]:
    """A trial's report after an epoch: the kept model's metrics, which are its value if it ended now; the
    epoch's other numbers; `epoch`, `kept_epoch`; and the `own` metrics of each epoch after the first
    `reported` ones."""
    last, kept = trainer.history[-1], trainer.kept
    numbers = {name: value for name, value in last.items() if isinstance(value, int | float)}
    own = [
        {name: value for name, value in record.items() if name in {"epoch", "kept_epoch", *Recipe.metrics}}
        for record in trainer.history[reported:]
    ]
    return (
        numbers
        | {name: kept[name] for name in Recipe.metrics if name in kept}
        | {
            "epoch": trainer.progress.epoch,
            "kept_epoch": trainer.progress.best_epoch,
            "own": own,
            "finished": trainer.finished,
            "done": trainer.finished,
        }
    )


class TrialActor(tune.Trainable):
    """Runs the trial `{"number", "run_id", "recipe", "context"}` epoch by epoch.

    Each result is that of `epoch_result` with the trial's status: `finished`, `interrupted`, and `failure`
    (the reason, or empty). A failed training is a result and not an exception, so the actor can run the next
    trial. `Preempted` ends the actor instead, and the trial resumes in another one.
    """

    _context: TrialContext
    _runtime: TrialRuntime
    _reported: int

    def setup(self, config: dict[str, Any]) -> None:
        """Begins the first trial of this actor."""
        self._data: tuple[object, PreparedData] | None = None
        self._notice = NodeNotice()
        self._training: Training | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next trial in the same process."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """One epoch."""
        begin = time.perf_counter()
        self._epoch += 1
        try:
            if self._notice.noticed():
                raise Preempted(LEAVING)
            training = self._training or self._open()
            context = self._context
            advance(training, datasets=context.datasets, content=context.content, cpus=context.cpus)
        except Preempted:
            raise
        except Exception as error:
            decision = decide(raised(error))
            if decision.action == "fail":
                return self._failed(decision.reason)
            if self._notice.noticed() and not self._runtime.stop.requested():
                raise Preempted(LEAVING) from None
            return self._result(interrupted=True, done=True)
        trainer = training.trainer
        reported, self._reported = self._reported, len(trainer.history)
        return self._result(
            **epoch_result(trainer, reported=reported),
            step_seconds=time.perf_counter() - begin,
        )

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the run directory on the study's storage is the checkpoint."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: the trainer finds its state in the run directory."""

    def cleanup(self) -> None:
        """Frees the network and its memory, and lets the interpreter end as usual."""
        self._training = None
        gc.unfreeze()

    def _begin(self, config: dict[str, Any]) -> None:
        self._training = None
        self._epoch = 0
        self._reported = 0
        freeze_living_objects()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._config = config
        self._context = TrialContext.load(config["context"], source="trial context")
        self._runtime = TrialRuntime(self._context, number=config["number"], notice=self._notice)

    def _open(self) -> Training:
        recipe = Recipe.load(self._config["recipe"], source="trial recipe")
        context = self._context
        self._runtime.waiting("")  # clears the note of a process that was killed while it waited
        # without its checkpoint, the trial would be trained from the start
        persist(lambda: must_stand(context.study), what=str(context.study), on_wait=self._runtime.waiting)
        key = (context.datasets, recipe.data.resize)
        if self._data is None or self._data[0] != key:
            data = prepare_training(
                context.datasets,
                resize=recipe.data.resize,
                directory=context.cache,
                content=context.content,
            )
            self._data = key, data
        self._training = Training(
            recipe,
            data=self._data[1],
            run=context.study / "runs" / self._config["run_id"],
            runtime=self._runtime,
        )
        return self._training

    def _failed(self, reason: str) -> dict[str, Any]:
        self._training = None
        return self._result(failure=reason, done=True)

    def _result(self, **values: Any) -> dict[str, Any]:
        return {
            "epoch": self._epoch,
            "finished": False,
            "interrupted": False,
            "failure": "",
            "done": False,
        } | values
