"""The Prometheus gauges of a search, which the metrics agent of its driver's node exports."""

from collections.abc import Mapping

from optuna.trial import TrialState
from ray.util.metrics import Gauge

TRIAL_GAUGES = ("trial_value", "epoch_seconds", "data_wait_share")


class SearchGauges:
    """The gauges of one search; Ray exports `NAME` as `ray_fissura_NAME`.

    Ray drops a gauge that was not set for half a minute, so call `show`, which sets all of them, every few
    seconds. A trial's gauges exist while it runs: Prometheus cannot hold a line for each of 100,000 trials.
    """

    def __init__(self, study: str, *, metric: str) -> None:
        self._study, self._metric = study, metric
        self.epochs = 0
        self._running: dict[int, dict[str, float]] = {}
        self._gauges = {
            name: Gauge(f"fissura_{name}", description=text, tag_keys=("study", *tags))
            for name, text, tags in (
                ("trials", "Trials of the study by state.", ("state",)),
                ("best_value", "Best value of the first objective.", ("metric",)),
                ("epochs_total", "Epochs trained in this search; of classifiers, settings judged.", ()),
                ("trial_value", "Value of the first objective, by trial.", ("trial",)),
                ("epoch_seconds", "Seconds of the last epoch, by trial.", ("trial",)),
                (
                    "data_wait_share",
                    "Share of the last epoch's time that was spent waiting for data, by trial.",
                    ("trial",),
                ),
            )
        }

    def epoch(self, trial: int, *, value: object, seconds: object, wait_share: object) -> None:
        """Records a trial's finished epoch; skips values that are not numbers."""
        self.epochs += 1
        numbers = zip(TRIAL_GAUGES, (value, seconds, wait_share), strict=True)
        self._running[trial] = {name: number for name, number in numbers if isinstance(number, int | float)}
        self._show_trial(trial)

    def ended(self, trial: int) -> None:
        """Removes the gauges of an ended trial."""
        self._running.pop(trial, None)

    def show(self, states: Mapping[TrialState, int], *, best: float | None) -> None:
        """Sets all gauges: how many trials are in each state, and the best value so far."""
        tags = {"study": self._study}
        for state in TrialState:
            self._gauges["trials"].set(states.get(state, 0), tags | {"state": state.name.lower()})
        if best is not None:
            self._gauges["best_value"].set(best, tags | {"metric": self._metric})
        self._gauges["epochs_total"].set(self.epochs, tags)
        for trial in self._running:
            self._show_trial(trial)

    def _show_trial(self, trial: int) -> None:
        for name, number in self._running[trial].items():
            self._gauges[name].set(number, {"study": self._study, "trial": str(trial)})
