"""A trial that several data-parallel workers train: Ray Train starts them, on as many nodes as needed, and a
Tune actor forwards their reports.

The actor reserves no CPU: if it held what its own workers need, it would wait for ever. It reserves memory,
of which every node has some.
"""

import contextlib
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.tune.experiment import Trial
from ray.util.placement_group import PlacementGroup, get_current_placement_group, remove_placement_group
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fissura.core.errors import Interrupted
from fissura.core.files import write_text
from fissura.data.trainable import prepare_training
from fissura.distributed.failure_policy import decide, of_workers
from fissura.distributed.search.trial import TrialContext, epoch_result
from fissura.distributed.search.waiting import WaitingTrials
from fissura.distributed.stopping import StopFile
from fissura.distributed.training.runtime import TrainRuntime
from fissura.segmentation.fit import advance
from fissura.segmentation.recipe import Recipe
from fissura.segmentation.resumable import Training

# in a run's folder while it trains: the id of its workers' placement group, and Ray Train's files
WORKERS, RAY_TRAIN = "workers", "ray-train"
ACTOR_RESOURCES = tune.PlacementGroupFactory([{"memory": 512 * 2**20}])
MAX_CRASHES = 2
LOOK_EVERY_SECONDS = 1.0
# workers stop after a step; the others are ended after this timeout
STOP_SECONDS = 30.0
Result = dict[str, Any]


class WorkersContext(TrialContext):
    """As `TrialContext`; each of a trial's `workers` has `cpus` CPUs, and a GPU if `gpu`."""

    workers: int
    gpu: bool


class FreesWorkers(tune.Callback):
    """Releases the workers' resources of a trial whose actor died, or was ended with the search."""

    def __init__(self, study: Path) -> None:
        self._runs = study / "runs"

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Releases them: the workers are gone, and Ray reserves their resources until the search ends."""
        release(self._runs / trial.config["run_id"])

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        """Releases the resources of actors that Tune ended before they could."""
        for trial in trials:
            release(self._runs / trial.config["run_id"])


class TrialStop(StopFile):
    """A request to stop one trial, or the whole study."""

    def __init__(self, *, study: Path, run: Path) -> None:
        super().__init__(run)
        self._study = StopFile(study)

    def requested(self) -> bool:
        """Whether a stop of this trial or the study is requested."""
        return super().requested() or self._study.requested()


class WorkersTrial(tune.Trainable):
    """Runs trials as `TrialActor` does, with the same results, one after the other.

    Ray Train's own report to Tune needs function trials, each in a new process; here the workers put their
    results into a queue of length one, so that they are at most two epochs ahead of the scheduler.
    """

    _training: threading.Thread
    _final: Result
    _epoch: int

    def setup(self, config: dict[str, Any]) -> None:
        """Begins the first trial of this actor."""
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begins the next trial when the last one's workers have ended; if they stay, in another process."""
        if not self._end():
            return False
        self._begin(new_config)
        return True

    def step(self) -> Result:
        """One epoch."""
        if not self._training.is_alive() and not self._final:
            self._training.start()
        report: Result = {}
        while not report:
            with contextlib.suppress(Empty):
                report = self._results.get(timeout=LOOK_EVERY_SECONDS)
            if self._final and self._results.empty():
                report = report or self._final
        self._waiting.tell(self._config["number"], "")
        self._epoch = report.get("epoch", self._epoch)
        return {"epoch": self._epoch} | report

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the run directory on the study's storage is the checkpoint."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: the workers find their state in the run directory."""

    def cleanup(self) -> None:
        """Ends the workers."""
        self._end()

    def _begin(self, config: dict[str, Any]) -> None:
        self._config = config
        self._context = WorkersContext.load(config["context"], source="trial context")
        self._run = self._context.study / "runs" / config["run_id"]
        self._run.mkdir(parents=True, exist_ok=True)
        self._stop = TrialStop(study=self._context.study, run=self._run)
        self._stop.clear()
        self._waiting = WaitingTrials(self._context.study)
        release(self._run)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._results = Queue(maxsize=1, actor_options={"num_cpus": 0, "scheduling_strategy": here})
        self._final, self._epoch = {}, 0
        self._training = threading.Thread(target=self._train, daemon=True)

    def _train(self) -> None:
        """Trains to the end, a stop, or a failure; `_final` is the result if no worker reports one."""
        crashes = 0
        while not self._stop.requested():
            try:
                self._trainer().fit()
                break
            except Exception as error:
                release(self._run)
                decision = decide(of_workers(error), crashes=crashes + 1, forgiven=MAX_CRASHES)
                match decision.action:
                    case "requeue":
                        self._waiting.tell(self._config["number"], decision.reason)
                    case "retry":
                        crashes += 1
                    case "fail":
                        self._final = result(failure=decision.reason, done=True)
                        return
        self._final = result(interrupted=True, done=True)

    def _trainer(self) -> TorchTrainer:
        context = self._context
        gpu = {"GPU": 1} if context.gpu else {}
        return TorchTrainer(
            work,
            train_loop_config={"trial": self._config, "results": self._results},
            scaling_config=ScalingConfig(
                num_workers=context.workers,
                use_gpu=context.gpu,
                resources_per_worker={"CPU": context.cpus} | gpu,
            ),
            # the loop in `_train` retries, by the failure policy
            run_config=RunConfig(
                name=RAY_TRAIN,
                storage_path=str(self._run),
                failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            ),
        )

    def _end(self) -> bool:
        """Ends the workers, gracefully at first; returns whether Ray Train has finished."""
        self._stop.request()
        for _ in range(2):
            deadline = time.monotonic() + STOP_SECONDS
            while self._training.is_alive() and time.monotonic() < deadline:
                with contextlib.suppress(Empty):
                    self._results.get(timeout=0.1)
            release(self._run)
        self._results.shutdown(force=True)
        self._stop.clear()
        return not self._training.is_alive()


def work(config: dict[str, Any]) -> None:
    """One worker."""
    trial, results = config["trial"], config["results"]
    context = WorkersContext.load(trial["context"], source="worker context")
    run = context.study / "runs" / trial["run_id"]
    runtime = TrainRuntime(cpus=context.cpus, stop=TrialStop(study=context.study, run=run))
    if runtime.rank == 0:
        write_text(run / WORKERS, get_current_placement_group().id.hex())
    recipe = Recipe.load(trial["recipe"], source="trial recipe")
    try:
        data = prepare_training(
            context.datasets, resize=recipe.data.resize, directory=context.cache, content=context.content
        )
        training = Training(recipe, data=data, run=run, runtime=runtime)
        reported, cpus, manifest = 0, context.cpus * context.workers, None
        while manifest is None:
            begin = time.perf_counter()
            manifest = advance(training, datasets=context.datasets, content=context.content, cpus=cpus)
            trainer = training.trainer
            if runtime.rank == 0:
                seconds = time.perf_counter() - begin
                results.put(result() | epoch_result(trainer, reported=reported) | {"step_seconds": seconds})
            reported = len(trainer.history)
    except Interrupted:
        if runtime.rank == 0:
            results.put(result(interrupted=True, done=True))


def result(*, interrupted: bool = False, failure: str = "", done: bool = False) -> Result:
    """The status of a trial, without an epoch."""
    return {"finished": False, "interrupted": interrupted, "failure": failure, "done": done}


def release(run: Path) -> None:
    """Releases the resources of a run's workers, and ends those still alive."""
    with contextlib.suppress(OSError, ValueError):
        group = ray.PlacementGroupID(bytes.fromhex((run / WORKERS).read_text(encoding="ascii").strip()))
        remove_placement_group(PlacementGroup(group))
        (run / WORKERS).unlink()
    shutil.rmtree(run / RAY_TRAIN, ignore_errors=True)
