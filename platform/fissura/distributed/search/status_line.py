"""The status line of a search, every few seconds, and its Prometheus gauges."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from optuna.trial import FrozenTrial, TrialState

from fissura.core import text
from fissura.core.progress import Reminders, Say
from fissura.distributed.periodic import every
from fissura.distributed.search.gauges import SearchGauges
from fissura.distributed.search.searcher import StudySearch
from fissura.records.study_ranking import best_trials
from fissura.records.trial_attributes import SKIPPED

EVERY_SECONDS = 3.0
AT_LEAST_EVERY_SECONDS = 15.0
LOOK_EVERY_SECONDS = 1.0


class StatusLine:
    """The status of a search of `total` trials; `unit` is what its gauges count: epochs, or settings. `also`
    returns further parts of the line; `best` returns the completed trials, best first."""

    def __init__(
        self,
        search: StudySearch,
        *,
        total: int,
        unit: str,
        say: Say,
        best: Callable[[], Sequence[FrozenTrial]] | None = None,
        also: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._search, self._total, self._unit, self._say, self._also = search, total, unit, say, also
        self._best = best or (lambda: best_trials(search.study))
        self.gauges = SearchGauges(search.study.study_name, metric=search.metrics[0])
        self._begin = self._checked = self._reported = time.monotonic()
        self._line = ""
        self._started = False

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Reports what the search waits for, at once and at rising intervals, until a first epoch or setting
        ends; from a thread, since Ray may block the search itself meanwhile."""
        self._say(f"waiting for {self._waited_for()}")
        reminders = Reminders()

        def look() -> None:
            if not self.gauges.epochs and (waited := reminders.due()):
                self._say(f"still waiting, for {text.duration(waited)} now, for {self._waited_for()}")

        with every(LOOK_EVERY_SECONDS, look):
            yield

    def begun(self) -> None:
        """Marks that the first trial has begun."""
        self._started = True

    def _waited_for(self) -> str:
        doing = "it is being computed" if self._started else "Ray's workers start, and load code and data"
        return f"the first of the {self._unit}: {doing}"

    def tick(self) -> None:
        """Updates every few seconds and prints the line; less often while it stays the same."""
        now = time.monotonic()
        if now - self._checked < EVERY_SECONDS:
            return
        self._checked, line = now, self.line()
        if line != self._line or now - self._reported >= AT_LEAST_EVERY_SECONDS:
            self._reported, self._line = now, line
            self._say(f"{text.clock(now - self._begin)} · {line}")

    def line(self) -> str:
        """Trials by state, and the best value so far; the gauges show the same."""
        study = self._search.study
        trials = [t for t in study.get_trials(deepcopy=False) if SKIPPED not in t.user_attrs]
        states = Counter(trial.state for trial in trials)
        done = sum(states[state] for state in TrialState if state.is_finished())
        parts = [f"{done}/{self._total} trials", f"{states[TrialState.RUNNING]} running"]
        parts += [
            f"{states[state]} {name}"
            for state, name in ((TrialState.PRUNED, "pruned"), (TrialState.FAIL, "failed"))
            if states[state]
        ]
        best = self._best()
        if best:
            metric, value = self._search.metrics[0], best[0].values[0]
            parts.append(f"best {metric} {value:.4f} (trial {best[0].number})")
        self.gauges.show(states, best=best[0].values[0] if best else None)
        return " · ".join([*parts, f"{self.gauges.epochs} {self._unit}", *self._also()])
