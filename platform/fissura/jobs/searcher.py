"""Ray Tune's view of an Optuna study: suggest, report, tell.

OptunaSearch does the asking. What it leaves open is closed here: trials that a scheduler stopped are told as pruned, failed ones
with their reason, interrupted ones go on under their own number, and no configuration is trained twice.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from fissura.core.seeding import derive
from fissura.search.space import LoadedSpace
from fissura.search.study import DUPLICATE, PAPER, REASON, RUN

RANDOM_DRAWS = 256


class StudySearch(OptunaSearch):
    """Suggests the trials of a study until `stop_requested`, or until the space has nothing new.

    A suggestion is `{"number", "run_id", "recipe", "context"}`. What another process left interrupted comes first.
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
    ) -> None:
        metrics, modes = ([getattr(one, name) for one in space.objectives] for name in ("metric", "mode"))
        single = len(metrics) == 1
        # what this process asks for differs from what an earlier one did
        earlier = _count_trials(storage, study_name)
        sampler = space.definition.sampler
        super().__init__(
            space=space.suggest,
            metric=metrics[0] if single else metrics,
            mode=modes[0] if single else modes,
            sampler=sampler.model_copy(update={"seed": derive(sampler.seed, seed, earlier) % 2**32}).build(),
            study_name=study_name,
            storage=storage,
        )
        self.study: optuna.Study = self._ot_study
        self._loaded, self._content, self._context = space, content, dict(context)
        self._stop_requested, self.metrics = stop_requested, metrics
        self._trials: dict[str, optuna.Trial] = {}
        self._ended: set[str] = set()
        trials = self.study.get_trials(deepcopy=False)
        if not trials:
            self.study.enqueue_trial(space.paper_point(), user_attrs={PAPER: True})
        self._interrupted = [trial for trial in trials if trial.state == TrialState.RUNNING]
        self._numbers = {
            trial.user_attrs[RUN]: trial.number
            for trial in trials
            if RUN in trial.user_attrs and DUPLICATE not in trial.user_attrs
        }
        scratch = optuna.samplers.RandomSampler(seed=derive(seed, "scratch", earlier) % 2**32)
        self._scratch = optuna.create_study(sampler=scratch)

    def suggest(self, trial_id: str) -> Any:
        """The next configuration that no trial has had; FINISHED where there is none."""
        if self._stop_requested():
            return Searcher.FINISHED
        trial, plain, run_id = self._ask()
        if self._numbers.get(run_id, trial.number) != trial.number:
            trial.set_user_attr(DUPLICATE, self._numbers[run_id])
            self.study.tell(trial, state=TrialState.FAIL)
            fresh = self._draw()
            if fresh is None:
                return Searcher.FINISHED
            self.study.enqueue_trial(fresh)
            trial, plain, run_id = self._ask()
        trial.set_user_attr(RUN, run_id)
        self._trials[trial_id] = trial
        self._numbers[run_id] = trial.number
        return {"number": trial.number, "run_id": run_id, "recipe": plain, "context": self._context}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keeps the value of an epoch for the plots, and for the scheduler of a resumed search."""
        value, trial = result.get(self.metrics[0]), self._trials.get(trial_id)
        if trial is None or len(self.metrics) > 1 or value is None or not math.isfinite(value):
            return
        step = int(result["epoch"])
        if trial_id not in self._ended and step not in trial.storage.get_trial(trial._trial_id).intermediate_values:
            trial.report(value, step)

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002  Ray's signature
    ) -> None:
        """Tells the study how a trial ended; an interrupted one stays open, for the next search to go on with.

        A crashed one (`error`) waits for `fail`, which knows the reason.
        """
        result = result or {}
        if error or trial_id in self._ended or trial_id not in self._trials or result.get("interrupted"):
            return
        if result.get("failure"):
            self.fail(trial_id, reason=result["failure"])
            return
        values = [float(result.get(metric, math.nan)) for metric in self.metrics]
        if not result.get("finished"):
            # without a result the driver itself gave up on the trial: that is an interruption
            if "epoch" in result:
                self._tell(trial_id, TrialState.PRUNED, None)
        elif not all(map(math.isfinite, values)):
            self.fail(trial_id, reason=f"the objective is not a number: {dict(zip(self.metrics, values, strict=True))}")
        else:
            self._tell(trial_id, TrialState.COMPLETE, values)

    def fail(self, trial_id: str, *, reason: str) -> None:
        """Tells the study that a trial failed, and why."""
        if trial_id in self._trials and trial_id not in self._ended:
            self._trials[trial_id].set_user_attr(REASON, reason)
            self._tell(trial_id, TrialState.FAIL, None)

    def number(self, trial_id: str) -> int:
        """The number of a trial in the study."""
        return self._trials[trial_id].number

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing of worth: the study's database is the state, and Tune's own is never restored."""
        Path(checkpoint_path).touch()

    def _ask(self) -> tuple[optuna.Trial, dict[str, Any], str]:
        if self._interrupted:
            trial = optuna.Trial(self.study, self._interrupted.pop(0)._trial_id)
        else:
            trial = self.study.ask()
        recipe = self._loaded.recipe_for(self._loaded.suggest(trial))
        return trial, recipe.plain(), recipe.run_id(self._content)

    def _draw(self) -> dict[str, Any] | None:
        for _ in range(RANDOM_DRAWS):
            parameters = self._loaded.suggest(self._scratch.ask())
            if self._loaded.recipe_for(parameters).run_id(self._content) not in self._numbers:
                return parameters
        return None

    def _tell(self, trial_id: str, state: TrialState, values: list[float] | None) -> None:
        self._ended.add(trial_id)
        self.study.tell(self._trials[trial_id], values, state=state)


def _count_trials(storage: optuna.storages.BaseStorage, study_name: str) -> int:
    known = {study.study_name: study._study_id for study in storage.get_all_studies()}
    return storage.get_n_trials(known[study_name]) if study_name in known else 0
