"""Ray Tune's view of an Optuna study: suggest, report, tell.

Extends OptunaSearch: trials that a scheduler stopped become pruned, failed trials keep their reason,
interrupted trials resume under their own number, and no configuration is trained twice.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from fissura.core.errors import SpecError
from fissura.core.seeding import derive
from fissura.records.trial_attributes import CURVE, PAPER, REASON, RUN, SECONDS, SKIPPED, SWEPT, TOOK
from fissura.spaces.space import LoadedSpace
from fissura.studies.study_memory import StudyMemory

RANDOM_DRAWS = 256
MOST_SKIPPED = 64


class StudySearch(OptunaSearch):
    """Suggests the trials of a study until `stop_requested`, up to the number that `allow` sets, or until the
    space has no new point.

    A suggestion is `{"number", "run_id", "recipe", "context", "to_end", "last_phase"}`: `to_end` forbids
    schedulers to stop it, `last_phase` is the range of its last phase's epochs. Interrupted trials of another
    process come first, then the paper's own point and the points of `sweep` (a parameter's path and its
    value), then the sampler's. Calls `on_end` with each trial that ended.
    """

    def __init__(
        self,
        space: LoadedSpace,
        *,
        storage: optuna.storages.BaseStorage,
        study_name: str,
        seed: int,
        content: str,
        context: Mapping[str, Any],
        stop_requested: Callable[[], bool],
        sweep: Sequence[tuple[str, Any]] = (),
        on_end: Callable[[optuna.trial.FrozenTrial], None] = lambda _: None,
    ) -> None:
        metrics = [objective.metric for objective in space.objectives]
        modes = [objective.mode for objective in space.objectives]
        single = len(metrics) == 1
        # this process draws other points than earlier ones
        self._memory = memory = StudyMemory(storage, name=study_name)
        earlier = _count_trials(memory, study_name)
        sampler = space.definition.sampler
        super().__init__(
            space=space.suggest,
            metric=metrics[0] if single else metrics,
            mode=modes[0] if single else modes,
            sampler=sampler.model_copy(update={"seed": derive(sampler.seed, seed, earlier) % 2**32}).build(),
            study_name=study_name,
            storage=memory,
        )
        self.study: optuna.Study = self._ot_study
        self._loaded, self._content, self._context = space, content, dict(context)
        self._stop_requested, self.metrics, self._on_end = stop_requested, metrics, on_end
        # open trials; of all trials, only their ids in the storage
        self._trials: dict[str, optuna.Trial] = {}
        self._storage_ids: dict[str, int] = {}
        self._begun: dict[str, float] = {}
        self._seconds: dict[str, dict[int, float]] = {}
        self._curves: dict[str, dict[int, float]] = {}
        self._kept: dict[str, int] = {}
        self._allowance = math.inf
        self._running = set[str]()  # trials that Tune may still give up
        with warnings.catch_warnings():  # the axis labels of optuna-dashboard
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names(metrics)
        if not earlier:
            self.study.enqueue_trial(space.paper_point(), user_attrs={PAPER: True})
        self._enqueue(sweep)
        trials = self.study.get_trials(deepcopy=False)
        self._interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._numbers = {
            trial.user_attrs[RUN]: trial.number
            for trial in trials
            if RUN in trial.user_attrs and SKIPPED not in trial.user_attrs
        }
        scratch = optuna.samplers.RandomSampler(seed=derive(seed, "scratch", earlier) % 2**32)
        self._scratch = optuna.create_study(sampler=scratch)

    def allow(self, trials: int) -> None:
        """Sets how many trials may begin."""
        self._allowance = trials

    def suggest(self, trial_id: str) -> Any:
        """The next new configuration; FINISHED if there is none, None if a trial may still be given back."""
        if not self._allowance:
            return None if self._running else Searcher.FINISHED
        for _ in range(MOST_SKIPPED):
            if self._stop_requested():
                return Searcher.FINISHED
            trial = self._ask()
            try:
                recipe = self._loaded.recipe_for(self._loaded.suggest(trial))
            except SpecError as error:
                self._skip(trial, f"breaks a rule: {error}")
                continue
            run_id = recipe.run_id(self._content)
            if self._numbers.get(run_id, trial.number) == trial.number:
                break
            self._skip(trial, f"the same as trial {self._numbers[run_id]}")
            fresh = self._draw()
            if fresh is None:
                return Searcher.FINISHED
            self.study.enqueue_trial(fresh)
        else:
            return Searcher.FINISHED
        trial.set_user_attr(RUN, run_id)
        self._memory.write()
        self._trials[trial_id], self._storage_ids[trial_id] = trial, trial._trial_id
        self._numbers[run_id] = trial.number
        self._begun[trial_id] = time.monotonic()
        self._allowance -= 1
        self._running.add(trial_id)
        return {
            "number": trial.number,
            "run_id": run_id,
            "recipe": recipe.plain(),
            "context": self._context,
            "to_end": trial.number == 0 or SWEPT in trial.user_attrs,
            "last_phase": [recipe.last_phase.start, recipe.last_phase.stop],
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Records an epoch's own value for the plots, and the kept epoch's for a resumed scheduler."""
        value, trial = result.get(self.metrics[0]), self._trials.get(trial_id)
        if trial is not None and result.get("step_seconds"):
            self._seconds.setdefault(trial_id, {})[int(result["epoch"])] = round(result["step_seconds"], 4)
        for record in result.get("own", ()):
            own = record.get(self.metrics[0], math.nan)
            self._curves.setdefault(trial_id, {})[int(record["epoch"])] = own
            self._kept[trial_id] = int(result["kept_epoch"])
        if trial is None or len(self.metrics) > 1 or value is None or not math.isfinite(value):
            return
        reported = self.trial(trial_id).intermediate_values
        for step, kept in {**self._kept_values(result), int(result["epoch"]): value}.items():
            if step not in reported:
                trial.report(kept, step)

    def _kept_values(self, result: dict[str, Any]) -> dict[int, float]:
        """The trial's value after each epoch in `result` but the last: a killed driver may have missed
        them."""
        own = {int(record["epoch"]): record for record in result.get("own", ())}
        kept = {
            epoch: own[record["kept_epoch"]].get(self.metrics[0], math.nan)
            for epoch, record in own.items()
            if epoch < result["epoch"] and record.get("kept_epoch") in own
        }
        return {epoch: value for epoch, value in kept.items() if math.isfinite(value)}

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002  Ray's signature
    ) -> None:
        """Tells the study how a trial ended; an interrupted trial stays open, and the next search resumes it.

        A crashed trial (`error`) waits for `fail`, which knows the reason.
        """
        self._running.discard(trial_id)
        result = result or {}
        if error or trial_id not in self._trials or result.get("interrupted"):
            return
        # Ray passes a trial's last result to a searcher only here
        self.on_trial_result(trial_id, result)
        if result.get("failure"):
            self.fail(trial_id, reason=result["failure"])
            return
        values = [float(result.get(metric, math.nan)) for metric in self.metrics]
        if not result.get("finished"):
            # without a result the driver itself gave up the trial: an interruption
            if "epoch" in result:
                self._tell(trial_id, TrialState.PRUNED, None)
        elif not all(map(math.isfinite, values)):
            self.fail(
                trial_id,
                reason=f"the objective is not a number: {dict(zip(self.metrics, values, strict=True))}",
            )
        else:
            self._tell(trial_id, TrialState.COMPLETE, values)

    def fail(self, trial_id: str, *, reason: str) -> None:
        """Tells the study that a trial failed, and why."""
        if trial_id in self._trials:
            self._trials[trial_id].set_user_attr(REASON, reason)
            self._tell(trial_id, TrialState.FAIL, None)

    def give_back(self, trial_id: str) -> None:
        """Lets a new Tune trial resume this one, which Tune gave up although it did not fail."""
        self._interrupted.append(self.trial(trial_id))
        self._allowance += 1
        for records in (self._trials, self._begun, self._seconds, self._curves, self._kept):
            records.pop(trial_id, None)

    def ended(self, trial_id: str) -> bool:
        """Whether the study knows how the trial ended, or the trial was given back."""
        return trial_id in self._storage_ids and trial_id not in self._trials

    def note(self, trial_id: str, attributes: Mapping[str, Any]) -> None:
        """Stores attributes of a trial besides its objectives."""
        for name, value in attributes.items():
            self._trials[trial_id].set_user_attr(name, value)

    def number(self, trial_id: str) -> int:
        """The number of a trial in the study."""
        return self.trial(trial_id).number

    def trial(self, trial_id: str) -> optuna.trial.FrozenTrial:
        """A trial as the study has it now."""
        return self._memory.get_trial(self._storage_ids[trial_id])

    def save(self, checkpoint_path: str) -> None:
        """Writes an empty file: the study's database is the state, and Tune's own is never restored."""
        Path(checkpoint_path).touch()

    def _enqueue(self, sweep: Sequence[tuple[str, Any]]) -> None:
        """Enqueues the points of a sweep in the database, except those enqueued before."""
        trials = self.study.get_trials(deepcopy=False)
        known = {trial.user_attrs[RUN] for trial in trials if SWEPT in trial.user_attrs}
        for path, value in sweep:
            point = self._loaded.completed({path: value})
            run_id = self._loaded.recipe_for(point).run_id(self._content)
            if run_id not in known:
                self.study.enqueue_trial(point, user_attrs={SWEPT: path, RUN: run_id})

    def _ask(self) -> optuna.Trial:
        if self._interrupted:
            return optuna.Trial(self.study, self._interrupted.pop(0)._trial_id)
        return self.study.ask()

    def _skip(self, trial: optuna.Trial, reason: str) -> None:
        trial.set_user_attr(SKIPPED, reason)
        trial.set_user_attr(REASON, f"skipped: {reason}")
        self.study.tell(trial, state=TrialState.FAIL)

    def _draw(self) -> dict[str, Any] | None:
        """A new random point; None after hundreds of draws without one."""
        for _ in range(RANDOM_DRAWS):
            point = self._loaded.suggest(self._scratch.ask())
            try:
                run_id = self._loaded.recipe_for(point).run_id(self._content)
            except SpecError:
                continue
            if run_id not in self._numbers:
                return point
        return None

    def _tell(self, trial_id: str, state: TrialState, values: list[float] | None) -> None:
        trial = self._trials.pop(trial_id)
        trial.set_user_attr(TOOK, round(time.monotonic() - self._begun.pop(trial_id), 3))
        if seconds := self._seconds.pop(trial_id, None):
            trial.set_user_attr(SECONDS, list(seconds.values()))
        if own := self._curves.pop(trial_id, None):
            curve = {epoch: value for epoch, value in sorted(own.items()) if math.isfinite(value)}
            trial.set_user_attr(
                CURVE, {"epochs": [*curve], "values": [*curve.values()], "kept": self._kept.pop(trial_id)}
            )
        self.study.tell(trial, values, state=state)
        self._on_end(self.trial(trial_id))


def _count_trials(storage: optuna.storages.BaseStorage, study_name: str) -> int:
    known = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return storage.get_n_trials(known[study_name]) if study_name in known else 0
