"""Kills and fails trials that hang: those that finish no epoch within their timeout."""

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
GAP_SECONDS = 5.0  # after a longer pause of the driver, the trials' clocks are moved forward


@dataclass
class EpochTimeout:
    """The timeout of an epoch: `seconds`, or, if None, ten times the longest epoch of the search so far, ten
    minutes at least; four hours until an epoch is known."""

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
        timeout: EpochTimeout,
        waiting: Callable[[], dict[int, str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._search, self._timeout, self._waiting, self._clock = search, timeout, waiting, clock
        self._last_epoch: dict[str, float] = {}
        self._trials: dict[str, Trial] = {}
        self._checked = clock()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Starts the trial's clock."""
        self._last_epoch[trial.trial_id] = self._clock()
        self._trials[trial.trial_id] = trial

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Restarts the trial's clock after an epoch."""
        self._timeout.longest = max(self._timeout.longest, result.get("time_this_iter_s", 0.0))
        self._last_epoch[trial.trial_id] = self._clock()
        self._trials[trial.trial_id] = trial

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Ends trials that hang."""
        now = self._clock()
        gap, self._checked = now - self._checked, now
        # of possibly many trials, few run
        running = {name: trial for name, trial in self._trials.items() if trial.status == Trial.RUNNING}
        self._trials = {name: running[name] for name in self._last_epoch.keys() & running.keys()}
        self._last_epoch = {
            trial: seconds + (gap if gap > GAP_SECONDS else 0)
            for trial, seconds in self._last_epoch.items()
            if trial in running
        }
        limit = self._timeout.limit()
        late = [trial for trial, seconds in self._last_epoch.items() if now - seconds >= limit]
        waiting = self._waiting() if late else {}
        for trial in late:
            if self._search.number(trial) in waiting:
                self._last_epoch[trial] = now
            else:
                self._end(running[trial], limit=limit)

    def _end(self, trial: Trial, *, limit: float) -> None:
        del self._last_epoch[trial.trial_id]
        failure = Failure(
            Event.HUNG,
            f"hung: no epoch was finished within {limit:.0f} s, so its process was killed; look into"
            " Ray's logs of it, or give a slow epoch more time with --trial-timeout",
        )
        self._search.fail(trial.trial_id, reason=decide(failure).reason)
        # a trial that hung once would hang again, and hold its CPUs or GPU as long
        trial.max_failures = 0
        ray.kill(trial.temporary_state.ray_actor)
