"""Early stopping of weak trials: Ray's schedulers, over our own count of epochs and a study's earlier
trials."""

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, MedianStoppingRule, TrialScheduler

from fissura.studies.halving import Halving
from fissura.studies.space import Asha, LoadedSpace, Objective

EPOCH = "epoch"


class StudyFIFO(FIFOScheduler):
    """Lets every trial run to its end."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """The next trial in turn, sought among those that have not ended: Ray's own looks at all."""
        live = sorted(tune_controller.get_live_trials(), key=lambda trial: int(trial.config["number"]))
        for status in (Trial.PENDING, Trial.PAUSED):
            for trial in live:
                if trial.status == status:
                    return trial
        return None


class StudyASHA(StudyFIFO):
    """`studies.halving.Halving` as Ray Tune's scheduler, with the values of an earlier process of the study.
    Those trials run to their end with which others are compared: the paper's own, and a sweep's."""

    def __init__(self, spec: Asha, *, objective: Objective, epochs: int) -> None:
        super().__init__()
        longest = max(epochs, spec.grace)
        self._halving = Halving(grace=spec.grace, reduction=spec.reduction, longest=longest)
        self._name, self._sign = objective.metric, 1 if objective.mode == "max" else -1
        self._longest = longest

    def remember(self, trials: Sequence[FrozenTrial]) -> None:
        """Puts the trials' values on the rungs that they reached."""
        for trial in trials:
            for rung in self._halving.rungs:
                reached = [step for step in trial.intermediate_values if step >= rung]
                if reached:
                    value = self._sign * trial.intermediate_values[min(reached)]
                    self._halving.record(f"earlier-{trial.number}", rung=rung, value=value)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """STOP for a trial that falls behind, unless it is to run to its end."""
        stops = result.get(EPOCH, 0) >= self._longest or self._falls_behind(trial, result)
        stops = stops and not trial.config["to_end"]
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Keeps the last value of a trial for the others."""
        self._falls_behind(trial, result)

    def _falls_behind(self, trial: Trial, result: dict[str, Any]) -> bool:
        epoch, value = result.get(EPOCH), result.get(self._name)
        if epoch is None or value is None:
            return False
        return self._halving.falls_behind(trial.trial_id, epoch=epoch, value=self._sign * value)


class StudyMedian(StudyFIFO, MedianStoppingRule):
    """The median rule, which lets the same trials as `StudyASHA` run to their end."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ray's decision, unless it is to stop a trial that is to run to its end."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if not trial.config["to_end"] or decision != TrialScheduler.STOP:
            return str(decision)
        self._stopped_trials.discard(trial)
        return str(TrialScheduler.CONTINUE)


def scheduler_for(space: LoadedSpace, *, epochs: int, earlier: Sequence[FrozenTrial]) -> TrialScheduler:
    """The scheduler that a search space asks for. `epochs` is the longest trial's length."""
    spec, objective = space.definition.scheduler, space.objectives[0]
    if spec.kind == "asha":
        asha = StudyASHA(spec, objective=objective, epochs=epochs)
        asha.remember(earlier)
        return asha
    if spec.kind == "median":
        return StudyMedian(
            time_attr=EPOCH, metric=objective.metric, mode=objective.mode, grace_period=spec.grace
        )
    return StudyFIFO()
