"""Early stopping of weak trials: Ray's schedulers, over our own count of epochs and a study's earlier
trials."""

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from fissura.studies.space import LoadedSpace

EPOCH = "epoch"


class StudyASHA(AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li et al., MLSys 2020) that knows the trials of an earlier process of
    the study, and lets those run to their end with which others are compared: the paper's own, and a
    sweep's."""

    def remember(self, trials: Sequence[FrozenTrial]) -> None:
        """Puts the trials' values on the rungs that they reached."""
        bracket = self._brackets[0]
        for trial in trials:
            for milestone, recorded in bracket._rungs:
                reached = [step for step in trial.intermediate_values if step >= milestone]
                if reached:
                    recorded[f"earlier-{trial.number}"] = (
                        self._metric_op * trial.intermediate_values[min(reached)]
                    )

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Ray's decision, unless the trial is to run to its end."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE if trial.config["to_end"] else decision)


class StudyMedian(MedianStoppingRule):
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
        asha = StudyASHA(
            time_attr=EPOCH,
            metric=objective.metric,
            mode=objective.mode,
            max_t=max(epochs, spec.grace),
            grace_period=spec.grace,
            reduction_factor=spec.reduction,
        )
        asha.remember(earlier)
        return asha
    if spec.kind == "median":
        return StudyMedian(
            time_attr=EPOCH, metric=objective.metric, mode=objective.mode, grace_period=spec.grace
        )
    return FIFOScheduler()
