"""The plots of a study, most of them by Optuna.

Their words are the study's: objectives by name, epochs, and parameters by what tells them apart.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

from fissura.core import text
from fissura.records.trial_attributes import CURVE
from fissura.reports.figures import Plot, Undrawable

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    Target = Callable[[FrozenTrial], float] | None

SLICED = 6  # parameters in the slice plot
FEW = 30  # completed trials, below which importances are called a hint
PARALLEL = 8  # axes in the parallel-coordinate plot


def completed(study: "Study") -> list["FrozenTrial"]:
    """The trials that ended with finite values, by number."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if all(isfinite(value) for value in trial.values)]


def importances(study: "Study", *, objective: int = 0) -> dict[str, float]:
    """Each parameter's share in what sets the best tenth of the trials apart (PED-ANOVA), largest first.

    Raises:
        Undrawable: if the trials cannot tell.
    """
    import optuna

    trials = _some(completed(study), least=2)
    names = _varied(trials)
    if len(names) < 2:
        few = "No parameter" if not names else "Only one parameter"
        raise Undrawable(f"{few} took more than one value, so there is nothing to compare.")
    if len({trial.values[objective] for trial in trials}) == 1:
        raise Undrawable("All completed trials have the same value.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        shares = optuna.importance.get_param_importances(
            study, params=names, target=_low_is_good(study, objective)
        )
    if any("importances will be equal" in str(warning.message) for warning in caught):
        raise Undrawable("The completed trials are too few, or too much alike, to tell parameters apart.")
    return dict(shares)


def _target(study: "Study", objective: int) -> "Target":
    # Of one objective Optuna knows the direction itself, but only where no target is given.
    return None if len(study.directions) == 1 else lambda trial: float(trial.values[objective])


def _low_is_good(study: "Study", objective: int) -> "Target":
    """The target of PED-ANOVA, which takes the lowest targets for the best trials, whatever the direction."""
    from optuna.study import StudyDirection

    if len(study.directions) == 1:
        return None
    sign = -1.0 if study.directions[objective] == StudyDirection.MAXIMIZE else 1.0
    return lambda trial: sign * float(trial.values[objective])


def plots(study: "Study", *, objectives: Sequence[str]) -> list[Plot]:
    """The plots of a study; `objectives` names its values."""
    several, study = len(objectives) > 1, _with_short_names(study)
    chosen = []
    if several:
        shows = "Trials that none other beats in every objective, and the others."
        chosen.append(Plot("Pareto front", shows, partial(_pareto, study, objectives)))
    trials = len(completed(study))
    few = f" {trials} trials are few: a hint, no more." if 1 < trials < FEW else ""
    for index, name in enumerate(objectives):
        of = f" of {name}" if several else ""
        chosen += [
            Plot(
                f"{title}{of}",
                shows + (few if draw is _importances else ""),
                partial(draw, study, index, name),
                whole,
            )
            for title, shows, draw, whole in _OF_ONE_OBJECTIVE
        ]
    shows = f"Each epoch's own {objectives[0]} of each trial; a dot is the epoch whose model is kept."
    return [*chosen, Plot("Learning curves", shows, partial(_curves, study, objectives[0]))]


def _with_short_names(study: "Study") -> "Study":
    """The same trials, with parameters named by what tells their paths apart."""
    import optuna

    trials = study.get_trials(deepcopy=False)
    short = text.shortened(name for trial in trials for name in trial.params)
    shown = optuna.create_study(study_name=study.study_name, directions=study.directions)
    for trial in trials:
        renamed = copy.copy(trial)
        renamed.params = {short[name]: value for name, value in trial.params.items()}
        renamed.distributions = {short[name]: value for name, value in trial.distributions.items()}
        shown.add_trial(renamed)
    return shown


def _in_own_words(figure: Any, *, objective: str) -> Any:
    """The figure without Optuna's words at its axes and in its legend."""
    words = {
        "Intermediate Value": objective,
        "Objective Value": objective,
        "Step": "epoch",
        "Trial": "trial",
        "Hyperparameter": "",
        "Hyperparameter Importance": "share",
        f"Importance for {objective}": "share",
        "Best Value": "best so far",
        "Best Trial": "on the front",
    }
    figure.for_each_xaxis(lambda axis: axis.update(title_text=words.get(axis.title.text, axis.title.text)))
    figure.for_each_yaxis(lambda axis: axis.update(title_text=words.get(axis.title.text, axis.title.text)))
    for trace in figure.data:
        if trace.name in words:
            trace.name = words[trace.name]
        bar = getattr(getattr(trace, "marker", None), "colorbar", None)
        if bar is not None and bar.title.text in words:
            bar.title.text = words[bar.title.text]
    return figure


def _history(study: "Study", objective: int, name: str) -> Any:
    from optuna.visualization import plot_optimization_history

    _some(completed(study), least=1)
    figure = plot_optimization_history(study, target=_target(study, objective), target_name=name)
    return _in_own_words(figure, objective=name)


def _importances(study: "Study", objective: int, name: str) -> Any:
    from optuna.visualization import plot_param_importances

    names = list(importances(study, objective=objective))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that low targets are taken for good: they are
        figure = plot_param_importances(
            study, params=names, target=_low_is_good(study, objective), target_name=name
        )
    return _in_own_words(figure, objective=name)


def _slice(study: "Study", objective: int, name: str) -> Any:
    from optuna.visualization import plot_slice

    names = _leading(study, objective)[:SLICED]
    figure = plot_slice(study, params=names, target=_target(study, objective), target_name=name)
    figure.update_xaxes(tickangle=-40, tickfont_size=10, title_font_size=11)
    return _in_own_words(figure, objective=name)


def _contour(study: "Study", objective: int, name: str) -> Any:
    from optuna.visualization import plot_contour

    names = _pair(study, objective)
    figure = plot_contour(study, params=names, target=_target(study, objective), target_name=name)
    return _in_own_words(figure, objective=name)


def _parallel(study: "Study", objective: int, name: str) -> Any:
    from optuna.visualization import plot_parallel_coordinate

    names = _common(study)
    figure = plot_parallel_coordinate(study, params=names, target=_target(study, objective), target_name=name)
    figure.update_xaxes(ticktext=[name, *sorted(names)])  # Optuna cuts them off at 20 letters
    return _in_own_words(figure, objective=name)


_OF_ONE_OBJECTIVE: tuple[tuple[str, str, Callable[["Study", int, str], Any], bool], ...] = (
    ("History", "Each completed trial's value, and the best so far.", _history, False),
    (
        "Which parameters matter",
        "Each parameter's share in what sets the best tenth of the trials apart (PED-ANOVA).",
        _importances,
        False,
    ),
    ("Each parameter alone", "Every completed trial, once a parameter.", _slice, True),
    (
        "Two parameters together",
        "The two that matter most; the colour between trials is a guess.",
        _contour,
        False,
    ),
    (
        "All parameters together",
        "A line is a trial, from its value to each of its parameters.",
        _parallel,
        True,
    ),
)


def _some(trials: list["FrozenTrial"], *, least: int) -> list["FrozenTrial"]:
    if len(trials) < least:
        have = {0: "no trial", 1: "one trial"}.get(len(trials), f"{len(trials)} trials")
        has = "have" if len(trials) > 1 else "has"
        need = {1: "one trial", 2: "two trials"}.get(least, f"{least} trials")
        raise Undrawable(f"It needs at least {need} completed; {have} {has} completed.")
    return trials


def _varied(trials: list["FrozenTrial"]) -> list[str]:
    """The parameters that took more than one value, in the order first met; absence is no value."""
    names = dict.fromkeys(name for trial in trials for name in trial.params)
    return [name for name in names if len({repr(t.params[name]) for t in trials if name in t.params}) > 1]


def _leading(study: "Study", objective: int) -> list[str]:
    """The varied parameters: by importance where that is known, else in the order first met."""
    names = _varied(_some(completed(study), least=2))
    if not names:
        raise Undrawable("No parameter took more than one value.")
    try:
        return list(importances(study, objective=objective))
    except Undrawable:
        return names


def _pair(study: "Study", objective: int) -> list[str]:
    names = _leading(study, objective)
    trials = _some(completed(study), least=3)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = [trial for trial in trials if first in trial.params and second in trial.params]
            if {first, second} <= set(_varied(both)):
                return [first, second]
    raise Undrawable("No two parameters took more than one value in the same trials.")


def _common(study: "Study") -> list[str]:
    trials = _some(completed(study), least=2)
    names = [name for name in _varied(trials) if all(name in trial.params for trial in trials)]
    if len(names) < 2:
        raise Undrawable("Fewer than two parameters took more than one value and are part of every trial.")
    return names[:PARALLEL]


def _pareto(study: "Study", objectives: Sequence[str]) -> Any:
    from optuna.visualization import plot_pareto_front

    _some(completed(study), least=1)
    if len(objectives) > 3:
        raise Undrawable(f"It shows two or three objectives, and there are {len(objectives)}.")
    figure = plot_pareto_front(study, target_names=list(objectives))
    return _in_own_words(figure, objective=objectives[0])


def _curves(study: "Study", name: str) -> Any:
    from plotly.graph_objects import Figure, Scatter

    lines = []
    for trial in study.get_trials(deepcopy=False):
        curve = trial.user_attrs.get(CURVE)
        # a trial that has not ended, or of an earlier version, has the kept epoch's values alone
        points = (
            dict(zip(curve["epochs"], curve["values"], strict=True)) if curve else trial.intermediate_values
        )
        if points:
            sizes = [9 if curve and epoch == curve["kept"] else 0 for epoch in points]
            lines.append(
                Scatter(
                    x=[*points],
                    y=[*points.values()],
                    mode="lines+markers",
                    marker={"size": sizes, "line_width": 0},
                    name=f"Trial {trial.number}",
                )
            )
    longest = max((len(line.x) for line in lines), default=0)
    if longest < 2:
        one = "more than one value" if longest else "values"
        raise Undrawable(f"No trial reported {one} while it trained.")
    return Figure(lines, {"xaxis_title": "epoch", "yaxis_title": name, "showlegend": len(lines) <= FEW})
