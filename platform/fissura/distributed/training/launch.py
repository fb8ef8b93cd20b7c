"""Training over several workers: Ray Train starts them, and the failure policy decides when they resume."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.exceptions import RayError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from fissura.core import text
from fissura.core.errors import DataError, FissuraError, Interrupted, ResourceError
from fissura.core.files import write_text
from fissura.core.progress import Reminders, Say
from fissura.distributed.cluster import Resources, connected
from fissura.distributed.failure_policy import decide, of_workers
from fissura.distributed.periodic import every
from fissura.distributed.stopping import StopFile, stops_on_signals
from fissura.distributed.training.runtime import TrainRuntime
from fissura.training.checkpoint import STATE, read_progress

LOG, RESERVATION = "train.log", "reservation"
LOOK_EVERY_SECONDS = 1.0
Work = Callable[[dict[str, Any]], None]


def train_by_workers(
    work: Work,
    *,
    config: Callable[[int], dict[str, Any]],
    folder: Path,
    result: str,
    workers: int,
    cpus_per_worker: int | None,
    address: str | None,
    say: Say,
) -> None:
    """Runs `work` on `workers` data-parallel workers, each with `config(CPUs of a worker)`, until the file
    `result` is in `folder`, which all of them see, and where the training keeps its state after each epoch.

    A dead worker is replaced, and all resume from the last epoch; if a node is lost and no other has room,
    fewer workers resume, and all again once there is room. The training fails if workers die repeatedly
    without finishing an epoch in between. Reports through `say` that Ray starts, and what `told_of` does.

    Raises:
        ResourceError: the workers do not fit the cluster.
        Interrupted: a stop was requested; call again to resume.
        FissuraError: the training failed.
    """
    # Ray Train polls for reports at this interval, and an epoch can be shorter than its default
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    # it notices a lost node with a delay, and waits this long for workers that no longer fit
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    os.environ.setdefault("RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS", "0")
    folder.mkdir(parents=True, exist_ok=True)
    stop, stopped = StopFile(folder), f"{folder}: stopped on request; run the same command to go on"
    stop.clear()
    with connected(address, say=say) as resources, stops_on_signals(stop):
        gpus = min(1, resources.gpus)
        cpus = cpus_each(resources, workers=workers, gpus=gpus, asked=cpus_per_worker)
        trainer = TorchTrainer(
            work,
            train_loop_config=config(cpus),
            scaling_config=ScalingConfig(
                num_workers=(1, workers),
                use_gpu=gpus > 0,
                resources_per_worker={"CPU": cpus} | ({"GPU": 1} if gpus else {}),
            ),
            run_config=RunConfig(
                name="ray-train", storage_path=str(folder), failure_config=FailureConfig(max_failures=2)
            ),
        )
        with _reservation(trainer, folder), told_of(folder / LOG, say):
            while True:
                done = _epochs_done(folder)
                try:
                    trainer.fit()
                    break
                except Exception as error:
                    if stop.requested():
                        raise Interrupted(stopped) from None
                    if _epochs_done(folder) == done or decide(of_workers(error), forgiven=1).action == "fail":
                        raise FissuraError(f"{folder}: the training failed: {error}") from error
    if not (folder / result).is_file():
        raise Interrupted(stopped)


def cpus_each(resources: Resources, *, workers: int, gpus: int, asked: int | None) -> int:
    """The CPUs of each worker: those asked for, or the most with which all of them fit.

    Raises:
        ResourceError: not all of them fit, each on one node.
    """
    least = asked or 1
    room = resources.room(cpus=least, gpus=gpus)
    if room < workers:
        raise ResourceError(
            f"--workers {workers}: each worker, of {text.count(least, 'CPU')} and"
            f" {text.count(gpus, 'GPU')}, lies on one node; the cluster's nodes have room for {room};"
            " ask for fewer workers" + (", or for fewer CPUs a worker" if least > 1 else "")
        )
    return asked or resources.most_cpus(workers=workers, gpus=gpus)


def reports_epochs(folder: Path, runtime: TrainRuntime) -> Callable[[dict[str, Any]], None]:
    """What a worker does with an epoch's record: rank 0 adds a line to the log in `folder`, and all report
    its numbers to Ray Train."""

    def on_epoch(record: dict[str, Any]) -> None:
        if runtime.rank == 0:
            with (folder / LOG).open("a", encoding="utf-8") as file:
                now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
                file.write(
                    f"{now} epoch {record['epoch']}: trained by {text.count(runtime.world_size, 'worker')}\n"
                )
        ray.train.report({name: value for name, value in record.items() if isinstance(value, int | float)})

    return on_epoch


@contextmanager
def told_of(log: Path, say: Say) -> Iterator[None]:
    """Inside the block, a thread reports each epoch that workers add to `log`, and, at rising intervals, that
    none has ended."""
    waiting, known = Reminders(), len(_lines(log))

    def look() -> None:
        nonlocal known
        new = _lines(log)[known:]
        for line in new:
            say(line.partition(" ")[2])
        known += len(new)
        if new:
            waiting.restart()
        elif waited := waiting.due():
            say(f"the workers train: no epoch has ended for {text.duration(waited)}")

    try:
        with every(LOOK_EVERY_SECONDS, look):
            yield
    finally:
        look()


def _lines(log: Path) -> list[str]:
    """The whole lines of a file; none where it cannot be read."""
    with suppress(OSError):
        return log.read_text("utf-8").split("\n")[:-1]
    return []


@contextmanager
def _reservation(trainer: TorchTrainer, folder: Path) -> Iterator[None]:
    """Releases the workers' resources that an earlier, killed driver of this training reserved: Ray Train
    would hold them for three minutes."""
    note = folder / RESERVATION
    if note.is_file():
        # without the actor, the cluster is another one
        with suppress(ValueError, RayError):
            coordinator = ray.get_actor("AutoscalingCoordinator", namespace="AutoscalingCoordinator")
            ray.get(coordinator.cancel_request.remote(note.read_text("utf-8")), timeout=60)
    write_text(note, f"train-{trainer.train_run_context.run_id}")
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def _epochs_done(folder: Path) -> int:
    """The epochs that the state in `folder` holds."""
    try:
        return read_progress(folder / STATE)[0].epoch
    except (OSError, DataError):
        return 0
