"""How much each parameter matters on its own: the objective over its values, a panel a parameter."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any

from fissura.core import text
from fissura.records.trial_attributes import SWEPT
from fissura.reports.differences import plain
from fissura.reports.figures import Plot, Undrawable
from fissura.reports.plots import completed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST = 8  # completed trials that show something without a sweep
COLUMNS = 4
ROW_PIXELS, AXIS_PIXELS, HEAD_PIXELS = 200, 110, 40
SWEEP_COLOUR, OTHER_COLOUR, PAPER_COLOUR = "#2f81d6", "rgba(128, 136, 146, 0.45)", "#d55e00"
_THEM = "lie beyond the axis; a double click shows them"
_LABELS = {
    SWEEP_COLOUR: "sweep: all else as in the paper",
    OTHER_COLOUR: "other trials",
    PAPER_COLOUR: "the paper's value",
}


@dataclass(frozen=True)
class Point:
    """A completed trial as one parameter sees it."""

    value: Any
    objective: float
    number: int


@dataclass(frozen=True)
class Panel:
    """A parameter: its trials of the sweep by value, the paper's own among them, the other trials, and the
    paper's value (no item: it has none)."""

    name: str
    distribution: "BaseDistribution"
    sweep: list[Point]
    others: list[Point]
    paper: list[Any]

    def change(self, *, high_is_good: bool) -> str:
        """By how much the sweep's worst value is behind its best, in a clause; nothing of fewer than two."""
        values = sorted((point.objective for point in self.sweep), reverse=high_is_good)
        if len(values) < 2:
            return ""
        gap = abs(values[0] - values[-1])
        if gap == 0:
            return "stays the same"
        share = f" ({100 * gap / abs(values[0]):.1f} %)" if values[0] else ""
        return f"{'falls' if high_is_good else 'rises'} by at most {text.scaled(gap)}{share}"


def sensitivity(study: "Study", *, objectives: Sequence[str], paper_trial: int | None) -> list[Plot]:
    """A plot for each objective; none of a study without a sweep and with few completed trials.

    `objectives` names the study's values, `paper_trial` is the trial that ran the paper's own setting.
    """
    every = study.get_trials(deepcopy=False)
    if len(completed(study)) < LEAST and not any(SWEPT in trial.user_attrs for trial in every):
        return []
    chosen = []
    for index, name in enumerate(objectives):
        panels = _panels(study, index, paper_trial)
        bounds = _bounds(panels)
        outside = _outside(panels, bounds)
        shows = f"The {name} of each completed trial over its value of each parameter, on validation data."
        if outside:
            them = "lies beyond the axis; a double click shows it" if outside == 1 else _THEM
            shows += f" {text.count(outside, 'trial')} {them}."
        high = study.directions[index].name == "MAXIMIZE"
        draw = partial(_draw, panels, name, bounds, high_is_good=high)
        rows = ceil(len(panels) / COLUMNS)
        title = "One parameter at a time" + (f" of {name}" if len(objectives) > 1 else "")
        chosen.append(Plot(title, shows, draw, whole=True, height=_height(rows)))
    return chosen


def _panels(study: "Study", objective: int, paper_trial: int | None) -> list[Panel]:
    """What a sweep varied, then the other numbers that took more than one value, each in the order met."""
    from optuna.distributions import CategoricalDistribution

    every, trials = study.get_trials(deepcopy=False), completed(study)
    paper = next((trial for trial in every if trial.number == paper_trial), None)
    swept = dict.fromkeys(trial.user_attrs[SWEPT] for trial in every if SWEPT in trial.user_attrs)
    panels = []
    for name in dict.fromkeys([*swept, *(name for trial in trials for name in trial.params)]):
        having = [trial for trial in trials if name in trial.params]
        few = len({repr(trial.params[name]) for trial in having}) < 2
        if not having or (name not in swept and few):
            continue
        distribution = having[-1].distributions[name]
        if name not in swept and isinstance(distribution, CategoricalDistribution):
            continue
        alone = {trial.number for trial in having if name in swept and _alone(trial, name, paper)}
        # what a sweep of another parameter tried stands here at the paper's value, all of it
        points = [
            Point(trial.params[name], float(trial.values[objective]), trial.number)
            for trial in having
            if trial.user_attrs.get(SWEPT, name) == name
        ]
        order = _order(distribution)
        panels.append(
            Panel(
                name,
                distribution,
                sweep=sorted((p for p in points if p.number in alone), key=lambda p: order(p.value)),
                others=[point for point in points if point.number not in alone],
                paper=[paper.params[name]] if paper is not None and name in paper.params else [],
            )
        )
    return panels


def _alone(trial: "FrozenTrial", name: str, paper: "FrozenTrial | None") -> bool:
    """Whether a trial differs from the paper's in this parameter alone, planned so or by chance."""
    if trial.user_attrs.get(SWEPT) == name:
        return True
    if paper is None or trial.params.keys() != paper.params.keys():
        return False
    return all(trial.params[other] == paper.params[other] for other in trial.params if other != name)


def _order(distribution: "BaseDistribution") -> Any:
    """The key by which values stand side by side."""
    choices = getattr(distribution, "choices", None)
    return (lambda value: value) if choices is None else (lambda value: choices.index(value))


def _bounds(panels: Sequence[Panel]) -> tuple[float, float] | None:
    """The objective's axis where there is a sweep: its values and a margin; the others may lie far off."""
    values = [point.objective for panel in panels for point in panel.sweep]
    margin = 0.35 * (max(values) - min(values)) if values else 0.0
    return (min(values) - margin, max(values) + margin) if margin else None


def _outside(panels: Sequence[Panel], bounds: tuple[float, float] | None) -> int:
    if bounds is None:
        return 0
    low, high = bounds
    others = {point.number: point.objective for panel in panels for point in panel.others}
    return sum(not low <= value <= high for value in others.values())


def _draw(
    panels: Sequence[Panel], objective: str, bounds: tuple[float, float] | None, *, high_is_good: bool
) -> Any:
    from plotly.subplots import make_subplots

    if not panels:
        raise Undrawable("No trial of a sweep has completed, and no number took more than one value.")
    rows, columns = ceil(len(panels) / COLUMNS), min(len(panels), COLUMNS)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes="all",
        horizontal_spacing=0.025,
        vertical_spacing=AXIS_PIXELS / (_height(rows) - HEAD_PIXELS - AXIS_PIXELS),
    )
    short = text.shortened([panel.name for panel in panels])
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        _fill(figure, panel, place={"row": row + 1, "col": column + 1})
        caption = panel.change(high_is_good=high_is_good)
        title = f"<b>{short[panel.name]}</b><br><span style='font-size: 11px'>{caption}</span>"
        figure.update_xaxes(title_text=title, title_font_size=12, row=row + 1, col=column + 1)
        if column == 0:
            figure.update_yaxes(title_text=objective, row=row + 1, col=1)
    for colour in _LABELS:
        group = [trace for trace in figure.data if trace.legendgroup == colour]
        # a line says more than the lone points of categories
        for trace in sorted(group, key=lambda trace: "lines" not in trace.mode)[:1]:
            trace.showlegend = True
    if bounds:
        figure.update_yaxes(range=list(bounds))
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"})
    figure.update_layout(margin={"b": AXIS_PIXELS})
    return figure


def _height(rows: int) -> int:
    return HEAD_PIXELS + rows * (ROW_PIXELS + AXIS_PIXELS)


def _fill(figure: Any, panel: Panel, *, place: dict[str, int]) -> None:
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from plotly.graph_objects import Scatter

    categories = None
    if isinstance(panel.distribution, CategoricalDistribution):
        categories = [plain(choice) for choice in panel.distribution.choices]
        axis = {"type": "category", "categoryarray": categories, "range": [-0.5, len(categories) - 0.5]}
        figure.update_xaxes(**axis, categoryorder="array", tickangle=-40, tickfont_size=10, **place)
    elif getattr(panel.distribution, "log", False):
        ticks = _log_ticks([point.value for point in (*panel.sweep, *panel.others)])
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=list(map(text.number, ticks)), **place)
    elif isinstance(panel.distribution, IntDistribution):
        low, high = panel.distribution.low, panel.distribution.high
        figure.update_xaxes(tick0=low, dtick=ceil((high - low) / 5), **place)
    for points, colour in ((panel.others, OTHER_COLOUR), (panel.sweep, SWEEP_COLOUR)):
        if not points:
            continue
        joined = colour == SWEEP_COLOUR and categories is None
        figure.add_trace(
            Scatter(
                x=[plain(point.value) if categories else point.value for point in points],
                y=[point.objective for point in points],
                text=[f"trial {point.number}: {panel.name} = {plain(point.value)}" for point in points],
                hovertemplate="%{text}<br>%{y:.4g}<extra></extra>",
                mode="lines+markers" if joined else "markers",
                marker={"color": colour, "size": 8 if colour == SWEEP_COLOUR else 6},
                line={"color": colour, "width": 2},
                name=_LABELS[colour],
                legendgroup=colour,
                showlegend=False,
            ),
            **place,
        )
    for value in panel.paper:
        at = categories.index(plain(value)) if categories else value
        line = {"color": PAPER_COLOUR, "width": 1.5, "dash": "dot"}
        figure.add_vline(x=at, line=line, **place)
        nowhere = Scatter(x=[None], y=[None], mode="lines", line=line, name=_LABELS[PAPER_COLOUR])
        figure.add_trace(nowhere.update(legendgroup=PAPER_COLOUR, showlegend=False), **place)


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 of each decade where there are few, else whole decades."""
    low, high = min(values), max(values)
    steps = (1, 2, 5) if high < 100 * low else (1,)
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    return [float(f"{step}e{decade}") for decade in decades for step in steps]
