"""Early stopping of weak trials: Ray's schedulers, with our own count of epochs and a study's earlier trials.
They compare trials by their progress in the last phase."""

from collections.abc import Sequence
from typing import Any, assert_never

from optuna.trial import FrozenTrial
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, TrialScheduler

from fissura.spaces.halving import ROUNDING, Halving, progress
from fissura.spaces.space import Asha, LoadedSpace, Median, Objective, RunAll

EPOCH, PROGRESS = "epoch", "progress"


class StudyFIFO(FIFOScheduler):
    """Lets every trial run to its end."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next trial, searched among live trials only; Ray's own method searches all."""
        live = sorted(tune_controller.get_live_trials(), key=lambda trial: int(trial.config["number"]))
        for status in (Trial.PENDING, Trial.PAUSED):
            for trial in live:
                if trial.status == status:
                    return trial
        return None


class StudyASHA(StudyFIFO):
    """`spaces.halving.Halving` as Ray Tune's scheduler, with the values of the study's earlier trials.
    Reference trials, the paper's own and a sweep's, run to their end."""

    def __init__(self, spec: Asha, *, objective: Objective, epochs: int) -> None:
        super().__init__()
        self._halving = Halving(grace=spec.grace, reduction=spec.reduction, longest=epochs)
        self._name, self._sign = objective.metric, 1 if objective.mode == "max" else -1

    def remember(self, trial: FrozenTrial, *, phase: range) -> None:
        """Records an earlier trial's values on the rungs that it reached; `phase` are the epochs of its last
        phase."""
        first: dict[float, int] = {}
        for step in sorted(trial.intermediate_values):
            for rung in self._halving.reached(step, phase=phase):
                first.setdefault(rung, step)
        for rung, step in first.items():
            value = self._sign * trial.intermediate_values[step]
            self._halving.record(f"earlier-{trial.number}", rung=rung, value=value)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """STOP for a trial that falls behind, unless it must run to its end."""
        stops = self._falls_behind(trial, result) and not trial.config["to_end"]
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keeps the last value of a trial for the others."""
        self._falls_behind(trial, result)

    def _falls_behind(self, trial: Trial, result: dict[str, Any]) -> bool:
        epoch, value = result.get(EPOCH), result.get(self._name)
        if epoch is None or value is None:
            return False
        return self._halving.falls_behind(
            trial.trial_id, epoch=epoch, value=self._sign * value, phase=_last_phase(trial)
        )


class StudyMedian(StudyFIFO, MedianStoppingRule):
    """The median rule, which lets the same trials as `StudyASHA` run to their end. `epochs` is the longest
    trial's length."""

    def __init__(self, spec: Median, *, objective: Objective, epochs: int) -> None:
        super().__init__(
            time_attr=PROGRESS, metric=objective.metric, mode=objective.mode, grace_period=spec.grace
        )
        self._grace, self._whole = spec.grace, range(epochs)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ray's decision, except that it never stops a trial that must run to its end."""
        in_phase = self._in_phase(trial, result)
        if in_phase is None:
            return str(TrialScheduler.CONTINUE)
        decision = super().on_trial_result(tune_controller, trial, in_phase)
        if not trial.config["to_end"] or decision != TrialScheduler.STOP:
            return str(decision)
        self._stopped_trials.discard(trial)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keeps the last value of a trial for the others."""
        in_phase = self._in_phase(trial, result)
        if in_phase is not None:
            super().on_trial_complete(tune_controller, trial, in_phase)

    def _in_phase(self, trial: Trial, result: dict[str, Any]) -> dict[str, Any] | None:
        """The result with the trial's progress in its last phase; None before it, or without a value."""
        if result.get(EPOCH) is None or result.get(self._metric) is None:
            return None
        done = progress(result[EPOCH], phase=_last_phase(trial) or self._whole, grace=self._grace)
        return {**result, PROGRESS: done} if done > ROUNDING else None


def scheduler_for(space: LoadedSpace, *, epochs: int, earlier: Sequence[FrozenTrial]) -> TrialScheduler:
    """The scheduler that a search space asks for. `epochs` is the longest trial's length."""
    spec, objective = space.definition.scheduler, space.objectives[0]
    match spec:
        case Asha():
            asha = StudyASHA(spec, objective=objective, epochs=epochs)
            phases = space.last_phases(trial.params for trial in earlier)
            for trial, phase in zip(earlier, phases, strict=True):
                asha.remember(trial, phase=phase)
            return asha
        case Median():
            return StudyMedian(spec, objective=objective, epochs=epochs)
        case RunAll():
            return StudyFIFO()
        case _:
            assert_never(spec)


def _last_phase(trial: Trial) -> range | None:
    """The epochs of a trial's last phase, from its searcher; None: all."""
    phase = trial.config.get("last_phase")
    return None if phase is None else range(*phase)
