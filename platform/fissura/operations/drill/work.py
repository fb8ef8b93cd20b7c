"""The work of a drill: small, on synthetic images; its progress is read from the files that it writes."""

import itertools
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from fissura.core.files import sqlite_uri
from fissura.data.synthetic import SyntheticSpec, write
from fissura.distributed.training.launch import LOG
from fissura.records.trial_attributes import REASON, RUN, SKIPPED
from fissura.studies.database import DATABASE
from fissura.studies.study import Study

EPOCHS = 40
TRIALS = 2
SETTINGS = 16
EPOCH = re.compile(r" trial (?P<trial>\d+) epoch (?P<epoch>\d+): ")
ENDED = ("COMPLETE", "PRUNED", "FAIL")
SMALL = ("--set", "model.width=4", "--set", "model.depth=2", "--set", "data.crop.size=32")


@dataclass(frozen=True)
class State:
    """The progress of some work: the epochs that each training (a trial's number, or a run) reported, in
    order; when trials ended; why trials failed; how many repeat another's configuration."""

    epochs: Mapping[str, tuple[int, ...]]
    ended: Mapping[int, str] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    doubled: int = 0


class DrillWork(Protocol):
    """Some work below a folder: the `fissura` commands that begin and resume it, the number of CPUs that it
    uses, `victim`, a part of its processes' titles, and its progress."""

    name: str
    cpus: int
    victim: str

    def begin(self, folder: Path) -> list[str]:
        """The command that begins it."""
        ...

    def again(self, folder: Path) -> list[str]:
        """The command that resumes it."""
        ...

    def state(self, folder: Path) -> State:
        """Its progress."""
        ...

    def midway(self, state: State) -> bool:
        """Whether it is in its middle."""
        ...


class SegmentationSearch:
    """Trials of a small U-Net, without a scheduler that would stop them."""

    name = "search"
    cpus = 1
    victim = "Trainable"

    def begin(self, folder: Path) -> list[str]:
        """The command that begins it."""
        space = folder / "drill.yaml"
        space.write_text(
            "recipe: small_unet\n"
            "objective: {metric: val/f1, mode: max}\n"
            "sampler: {kind: random, seed: 0}\n"
            "scheduler: {kind: none}\n"
            "space:\n"
            "  phases.train.optimizer.lr: {float: [1.0e-3, 1.0e-2], log: true}\n",
            encoding="utf-8",
        )
        return [
            "search", str(space), "--data", f"synthetic:{images(folder)}", "--profile", "none", *SMALL,
            "--set", f"epochs={EPOCHS}", "--trials", str(TRIALS), "--concurrency", "1",
            "--cpus-per-trial", "1", "--gpus-per-trial", "0", *_folder_options(folder),
        ]  # fmt: skip

    def again(self, folder: Path) -> list[str]:
        """The command that resumes it."""
        return ["search", "--resume", "--name", "drill", *_folder_options(folder)]

    def state(self, folder: Path) -> State:
        """Its progress."""
        study = Study(folder / "studies" / "drill")
        log, epochs = study.path / "search.log", dict[str, list[int]]()
        for line in log.read_text("utf-8").splitlines() if log.is_file() else ():
            if (match := EPOCH.search(line)) and not line.endswith("interrupted"):
                epochs.setdefault(match["trial"], []).append(int(match["epoch"]))
        return State({trial: tuple(done) for trial, done in epochs.items()}, *_trials(study))

    def midway(self, state: State) -> bool:
        """Whether one trial has ended, and another is in its middle."""
        running = [done for trial, done in state.epochs.items() if int(trial) not in state.ended]
        return bool(state.ended) and any(2 <= done[-1] < EPOCHS // 2 for done in running)


class ClassifierSearch:
    """Random forests on features of a backbone of random weights."""

    name = "classifiers"
    cpus = 1
    victim = "_judge"

    def begin(self, folder: Path) -> list[str]:
        """The command that begins it."""
        space = folder / "drill.yaml"
        space.write_text(
            "recipe: cnn_svm\n"
            "objective: {metric: cv/f1, mode: max}\n"
            "sampler: {kind: random, seed: 0}\n"
            "scheduler: {kind: none}\n"
            "space:\n"
            "  classifier.trees: {int: [20, 60], log: true}\n"
            "  classifier.depth: {int: [4, 30]}\n",
            encoding="utf-8",
        )
        return [
            "search", str(space), "--data", f"patches:synthetic:{images(folder)}", "--profile", "none",
            "--set", "backbone.weights=none", "--set", "backbone.input_size=32", "--set", "folds=3",
            "--set", "backbone.kind=mobilenet_v3", "--set", "classifier.kind=forest",
            "--set", "classifier.trees=40", "--trials", str(SETTINGS), "--concurrency", "1",
            "--cpus-per-trial", "1", "--gpus-per-trial", "0", *_folder_options(folder),
        ]  # fmt: skip

    def again(self, folder: Path) -> list[str]:
        """The command that resumes it."""
        return SegmentationSearch().again(folder)

    def state(self, folder: Path) -> State:
        """Its progress."""
        return State({}, *_trials(Study(folder / "studies" / "drill")))

    def midway(self, state: State) -> bool:
        """Whether some settings are scored."""
        return 2 <= len(state.ended) < SETTINGS // 2


class DrillTraining:
    """One training over two workers of Ray Train."""

    name = "training"
    cpus = 2
    victim = "RayTrainWorker"

    def begin(self, folder: Path) -> list[str]:
        """The command that begins it."""
        return [
            "train", "small_unet", "--data", f"synthetic:{images(folder)}", *SMALL, "--workers", "2",
            "--set", f"epochs={EPOCHS}", "--cpus-per-worker", "1", *_folder_options(folder),
        ]  # fmt: skip

    def again(self, folder: Path) -> list[str]:
        """The command that resumes it."""
        return self.begin(folder)

    def state(self, folder: Path) -> State:
        """Its progress."""
        logs = sorted((folder / "studies" / "runs").glob(f"*/{LOG}"))
        return State({log.parent.name: _train_log(log) for log in logs})

    def midway(self, state: State) -> bool:
        """Whether a few epochs are done."""
        return any(2 <= done[-1] < EPOCHS // 2 for done in state.epochs.values() if done)


ALL_WORK: tuple[DrillWork, ...] = (SegmentationSearch(), ClassifierSearch(), DrillTraining())


def images(folder: Path) -> Path:
    """The synthetic images of a ground, drawn if missing."""
    directory = folder.parent / "images"
    write(SyntheticSpec(train=12, val=4, test=4, height=96, width=96, crack_width=(1.5, 4.0)), directory)
    return directory


def epochs_lost(state: State) -> int | None:
    """The most epochs that one training repeated: those reported twice, and the one in flight, which is
    always lost. None for work without epochs."""
    if not state.epochs:
        return None
    again = [
        before + 1 - after for done in state.epochs.values() for before, after in itertools.pairwise(done)
    ]
    return 1 + max(0, *again, 0)


def gone_on(before: State, now: State) -> bool:
    """Whether every running training has reported an epoch since, or ended; for work without epochs, whether
    a trial has ended."""
    if not before.epochs:
        return len(now.ended) > len(before.ended)
    return all(
        len(now.epochs.get(training, ())) > len(done)
        for training, done in before.epochs.items()
        if not (training.isdigit() and int(training) in now.ended)
    )


def _folder_options(folder: Path) -> tuple[str, ...]:
    return ("--storage", str(folder / "studies"), "--cache", str(folder.parent / "cache"))


def _trials(study: Study) -> tuple[dict[int, str], dict[int, str], int]:
    """Reads the database without Optuna, which would create the tables before the search does."""
    path = study.path / DATABASE
    if not path.is_file():
        return {}, {}, 0
    try:
        with closing(sqlite3.connect(f"{sqlite_uri(path)}?mode=ro", uri=True, timeout=60)) as database:
            trials = database.execute(
                "select trial_id, number, state, datetime_complete from trials"
            ).fetchall()
            attribute_rows = database.execute(
                "select trial_id, key, value_json from trial_user_attributes"
            ).fetchall()
    except sqlite3.OperationalError:
        return {}, {}, 0
    attributes: dict[int, dict[str, str]] = defaultdict(dict)
    for trial, key, value in attribute_rows:
        attributes[trial][key] = json.loads(value)
    ended = {
        number: (trial, state, at)
        for trial, number, state, at in trials
        if state in ENDED and SKIPPED not in attributes[trial]
    }
    runs = [attributes[trial].get(RUN) for trial, _, _ in ended.values()]
    return (
        {number: at for number, (_, _, at) in ended.items()},
        {
            number: attributes[trial].get(REASON, "no reason was given")
            for number, (trial, state, _) in ended.items()
            if state == "FAIL"
        },
        len(runs) - len(set(runs)),
    )


def _train_log(path: Path) -> tuple[int, ...]:
    lines = path.read_text("utf-8").splitlines()
    return tuple(int(line.split(" epoch ")[1].split(":")[0]) for line in lines if " epoch " in line)
