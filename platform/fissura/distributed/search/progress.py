"""Callbacks of Ray Tune that write the study's log and its status line."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from fissura.core.progress import Say
from fissura.distributed.search.failures import decision_of
from fissura.distributed.search.searcher import StudySearch
from fissura.distributed.search.status_line import StatusLine
from fissura.distributed.search.study_log import StudyLog
from fissura.segmentation.micro_batches import halve
from fissura.studies.results import Checkpoints
from fissura.studies.study import Study


class SearchProgress(Callback):
    """Follows the trials of one search; records the reason of a crashed trial, which Ray reports here."""

    def __init__(
        self,
        search: StudySearch,
        study: Study,
        *,
        total: int,
        say: Say,
        waiting: Callable[[], dict[int, str]],
    ) -> None:
        self._waiting, self._logged_waits = waiting, set[int]()
        self._search, self._study = search, study
        self._checkpoints = Checkpoints(study, search.study)
        self.status_line = StatusLine(
            search,
            total=total,
            unit="epochs",
            say=say,
            best=lambda: self._checkpoints.ranking.trials,
            also=self._waits,
        )
        self._note = StudyLog(study).note

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Logs the trial and its run."""
        self.status_line.begun()
        number = self._search.number(trial.trial_id)
        self._note(f"trial {number} begins as run {trial.config['run_id']}")

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Logs an epoch."""
        number = self._search.number(trial.trial_id)
        metric = self._search.metrics[0]
        value = result.get(metric)
        if result["interrupted"]:
            self._note(f"trial {number} is interrupted; search --resume continues it")
            return
        status = result["failure"]
        own = (result.get("own") or [{}])[-1].get(metric)
        if value is not None:
            kept, epoch = result["kept_epoch"], result["epoch"]
            status += "(kept)" if kept == epoch else f"(kept: that of {kept}, {value})"
        if (parts := result.get("accumulation", 1)) > 1:
            status += f" (each batch in {parts} parts, for want of memory)"
        self._note(f"trial {number} epoch {result['epoch']}: {metric} = {own} {status}")
        self.status_line.gauges.epoch(
            number,
            value=value,
            seconds=result.get("time_this_iter_s"),
            wait_share=result.get("wait_share"),
        )

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Logs why a trial restarts from its last checkpoint; after low memory, halves its micro-batch."""
        decision = decision_of(trial)
        self._note(f"trial {self._search.number(trial.trial_id)} begins anew: {decision.reason}")
        if decision.halve:
            with suppress(OSError):
                halve(
                    self._study.runs / trial.config["run_id"],
                    share=trial.config["recipe"]["data"]["batch_size"],
                )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tells the study why a trial's process ended; gives a trial that shall resume back to the search."""
        number = self._search.number(trial.trial_id)
        decision = decision_of(trial)
        if self._search.ended(trial.trial_id):
            self._ended(trial)
        elif decision.action != "fail":
            self._note(f"trial {number} waits to go on: {decision.reason}")
            self._search.give_back(trial.trial_id)
            self._forget(trial)
        else:
            reason = f"the trial's process ended: {decision.reason}"
            self._note(f"trial {number} failed: {reason}")
            self._search.fail(trial.trial_id, reason=reason)
            self._ended(trial)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Frees the disk of weights that no result needs, and the memory of unread values."""
        self._ended(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Updates the status line."""
        self.status_line.tick()

    def _waits(self) -> list[str]:
        """The status line's part about trials that wait for their storage; logs each wait once."""
        reasons = self._waiting()
        for number in reasons.keys() - self._logged_waits:
            self._note(f"trial {number} waits: {reasons[number]}")
        for number in self._logged_waits - reasons.keys():
            self._note(f"trial {number} waits no longer")
        self._logged_waits = set(reasons)
        return [f"trial {number} waits: {reason}" for number, reason in sorted(reasons.items())]

    def _ended(self, trial: Trial) -> None:
        self.status_line.gauges.ended(self._search.number(trial.trial_id))
        # weights on unavailable storage are removed at the end of the search
        with suppress(OSError):
            self._checkpoints.ended(self._search.trial(trial.trial_id))
        self._forget(trial)

    @staticmethod
    def _forget(trial: Trial) -> None:
        # Tune keeps running means of each number that a trial reports, tens of kilobytes a trial, to the end
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.evaluated_params = {}
