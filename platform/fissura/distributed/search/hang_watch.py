"""Trials that make no progress: one that finishes no epoch for too long fails, and its process is killed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.tune import Callback
from ray.tune.experiment import Trial

from fissura.distributed.failure_policy import Event, Failure, decide
from fissura.distributed.search.searcher import StudySearch

FIRST_EPOCH_SECONDS = 4 * 3600.0
FLOOR_SECONDS = 600.0
TIMES_THE_LONGEST = 10
GAP_SECONDS = 5.0  # a driver that was held up for longer knows nothing of its trials


@dataclass
class EpochTimeout:
    """How long a trial may take for an epoch: `seconds`, or, where that is None, ten times the longest epoch
    of the search so far, and ten minutes at least; four hours while no epoch is known."""

    seconds: float | None = None
    longest: float = 0.0

    def limit(self) -> float:
        """Seconds without a finished epoch after which a trial hangs."""
        if self.seconds is not None:
            return self.seconds
        return max(FLOOR_SECONDS, TIMES_THE_LONGEST * self.longest) if self.longest else FIRST_EPOCH_SECONDS


class HangWatch(Callback):
    """Kills the process of a trial that hangs, and fails the trial with the reason.

    Ray's raylet ends the process with SIGKILL after some seconds, whatever it is stuck in, and its CPUs and
    GPUs are free for the next trial. A trial in `waiting` waits for its storage, and does not hang.
    """

    def __init__(
        self,
        search: StudySearch,
        *,
        patience: EpochTimeout,
        waiting: Callable[[], dict[int, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search, self._patience, self._waiting, self._clock = search, patience, waiting, clock
        self._heard: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}
        self._looked = clock()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The clock of the trial starts."""
        self._heard[trial.trial_id] = self._clock()
        self._trials[trial.trial_id] = trial

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch: the trial makes progress."""
        self._patience.longest = max(self._patience.longest, result.get("time_this_iter_s", 0.0))
        self._heard[trial.trial_id] = self._clock()
        self._trials[trial.trial_id] = trial

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Looks for trials that hang."""
        now = self._clock()
        gap, self._looked = now - self._looked, now
        # of all trials, of which there may be many, those that run are few
        running = {name: trial for name, trial in self._trials.items() if trial.status == Trial.RUNNING}
        self._trials = {name: running[name] for name in self._heard.keys() & running.keys()}
        self._heard = {
            trial: heard + (gap if gap > GAP_SECONDS else 0)
            for trial, heard in self._heard.items()
            if trial in running
        }
        limit = self._patience.limit()
        late = [trial for trial, heard in self._heard.items() if now - heard >= limit]
        waiting = self._waiting() if late else {}
        for trial in late:
            if self._search.number(trial) in waiting:
                self._heard[trial] = now
            else:
                self._end(running[trial], limit=limit)

    def _end(self, trial: Trial, *, limit: float) -> None:
        del self._heard[trial.trial_id]
        failure = Failure(
            Event.HUNG,
            f"hung: no epoch was finished within {limit:.0f} s, so its process was killed; look into"
            " Ray's logs of it, or give a slow epoch more time with --trial-timeout",
        )
        self._search.fail(trial.trial_id, reason=decide(failure).reason)
        # a trial that hung once would hang again, and hold its CPUs or GPU as long
        trial.max_failures = 0
        ray.kill(trial.temporary_state.ray_actor)
