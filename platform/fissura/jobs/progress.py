"""What a search tells while it runs: one status line every few seconds, a log, and gauges for Prometheus."""

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from ray.tune import Callback
from ray.tune.experiment import Trial
from ray.util.metrics import Gauge

from fissura.engine.memory import halve
from fissura.jobs.searcher import StudySearch
from fissura.studies.results import drop_checkpoints
from fissura.studies.study import SKIPPED, Study, best_trials

EVERY_SECONDS = 3.0
AT_LEAST_EVERY_SECONDS = 15.0
Say = Callable[[str], None]
# in what Ray says when its memory monitor kills a worker
LOW_ON_MEMORY = "running low on memory"


class SearchProgress(Callback):
    """Follows the trials of one search; a crashed trial gets its reason here, where Ray gives it."""

    def __init__(
        self,
        search: StudySearch,
        study: Study,
        *,
        total: int,
        say: Say,
        waiting: Callable[[], dict[int, str]],
    ) -> None:
        self._waiting, self._told, self._unwritten = waiting, set[int](), list[str]()
        self._search, self._study, self._total, self._say = search, study, total, say
        self._log = study.path / "search.log"
        self._begin = self._said = time.monotonic()
        self._epochs, self._standing = 0, ""
        self._gauges = {
            name: Gauge(f"fissura_{name}", description=text, tag_keys=("study", *tags))
            for name, text, tags in (
                ("trials", "Trials of the study by state.", ("state",)),
                ("best_value", "Best value of the first objective.", ("metric",)),
                ("trial_value", "Value of the first objective, by trial.", ("trial",)),
                ("epochs_total", "Epochs trained in this search.", ()),
                ("epoch_seconds", "Seconds of the last epoch, by trial.", ("trial",)),
                (
                    "data_wait_share",
                    "Share of the training time spent waiting for data, by trial.",
                    ("trial",),
                ),
            )
        }

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Logs what the trial is."""
        number = self._search.number(trial.trial_id)
        self._note(f"trial {number} begins as run {trial.config['run_id']}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Logs an epoch."""
        number, study = self._search.number(trial.trial_id), self._search.study.study_name
        self._epochs += 1
        value = result.get(self._search.metrics[0])
        standing = result["failure"] or ("interrupted" if result["interrupted"] else "")
        if (parts := result.get("accumulation", 1)) > 1:
            standing += f"(each batch in {parts} parts, for want of memory)"
        self._note(f"trial {number} epoch {result['epoch']}: {self._search.metrics[0]} = {value} {standing}")
        self._gauges["epochs_total"].set(self._epochs, {"study": study})
        tags = {"study": study, "trial": str(number)}
        for gauge, amount in (
            ("trial_value", value),
            ("epoch_seconds", result.get("time_this_iter_s")),
            ("data_wait_share", result.get("wait_share")),
        ):
            if isinstance(amount, int | float):
                self._gauges[gauge].set(amount, tags)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Logs why a trial is begun anew from its last state; for want of memory, with half as many images at
        a time."""
        self._note(f"trial {self._search.number(trial.trial_id)} begins anew: {reason_of(trial)}")
        if LOW_ON_MEMORY in last_error(trial):
            with suppress(OSError):
                halve(
                    self._study.runs / trial.config["run_id"],
                    share=trial.config["recipe"]["data"]["batch_size"],
                )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tells the study why a trial's process ended."""
        if self._search.ended(trial.trial_id):
            return
        reason = f"the trial's process ended: {reason_of(trial)}"
        self._note(f"trial {self._search.number(trial.trial_id)} failed: {reason}")
        self._search.fail(trial.trial_id, reason=reason)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Keeps the disk free of weights that no result will need."""
        # storage that is gone now is tidied when the next trial ends
        with suppress(OSError):
            drop_checkpoints(self._study, self._search.study)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Says the status line every few seconds; less often while it stays the same."""
        silent = time.monotonic() - self._said
        if silent < EVERY_SECONDS:
            return
        standing = self.standing()
        if standing != self._standing or silent >= AT_LEAST_EVERY_SECONDS:
            self._said, self._standing = time.monotonic(), standing
            minutes, seconds = divmod(int(self._said - self._begin), 60)
            self._say(f"{minutes}:{seconds:02d} · {standing}")

    def standing(self) -> str:
        """Trials by state, and the best value so far."""
        study = self._search.study
        trials = [t for t in study.get_trials(deepcopy=False) if SKIPPED not in t.user_attrs]
        states = Counter(trial.state for trial in trials)
        tags = {"study": study.study_name}
        for state in TrialState:
            self._gauges["trials"].set(states[state], tags | {"state": state.name.lower()})
        done = sum(states[state] for state in TrialState if state.is_finished())
        parts = [f"{done}/{self._total} trials", f"{states[TrialState.RUNNING]} running"]
        parts += [
            f"{states[state]} {name}"
            for state, name in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed"))
            if states[state]
        ]
        best = best_trials(study)
        if best:
            metric, value = self._search.metrics[0], best[0].values[0]
            self._gauges["best_value"].set(value, tags | {"metric": metric})
            parts.append(f"best {metric} {value:.4f} (trial {best[0].number})")
        return " · ".join([*parts, f"{self._epochs} epochs", *self._waits()])

    def _waits(self) -> list[str]:
        """What the status line says of trials that wait for their storage; the log says it once a trial."""
        reasons = self._waiting()
        for number in reasons.keys() - self._told:
            self._note(f"trial {number} waits: {reasons[number]}")
        for number in self._told - reasons.keys():
            self._note(f"trial {number} waits no longer")
        self._told = set(reasons)
        return [f"trial {number} waits: {reason}" for number, reason in sorted(reasons.items())]

    def _note(self, text: str) -> None:
        """Adds a line to the log, or keeps it until the storage takes it."""
        self._unwritten.append(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {text.rstrip()}\n")
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:
            file.write("".join(self._unwritten))
            file.flush()
            self._unwritten.clear()


def reason_of(trial: Trial) -> str:
    """Ray's reason for the last end of a trial's process, in one line."""
    lines = [line.strip() for line in last_error(trial).splitlines() if line.strip()]
    if memory := [line for line in lines if LOW_ON_MEMORY in line]:
        used = re.search(r"[\d.]+GB used / [\d.]+GB limit", memory[0])
        return (
            f"its node was low on memory ({used[0] if used else memory[0][:200]}), so Ray killed it; lower"
            " data.batch_size or the crop, or have fewer trials at a time with --concurrency"
        )
    return lines[-1][:300] if lines else "no reason was given"


def last_error(trial: Trial) -> str:
    """What Ray says of the last failure alone: its file holds all of them, and `Trial.get_error` looks for it
    where it comes to lie only later."""
    path = Path(trial.error_file or "")
    return path.read_text(encoding="utf-8").rpartition("Failure # ")[2] if path.is_file() else ""
