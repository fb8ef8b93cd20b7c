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
    the study, and never stops the paper's own configuration, which the others are compared with."""

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
        """Ray's decision; the first trial goes on whatever it is."""
        decision = super().on_trial_result(tune_controller, trial, result)
        return str(TrialScheduler.CONTINUE if trial.config["number"] == 0 else decision)


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
        return MedianStoppingRule(
            time_attr=EPOCH, metric=objective.metric, mode=objective.mode, grace_period=spec.grace
        )
    return FIFOScheduler()
