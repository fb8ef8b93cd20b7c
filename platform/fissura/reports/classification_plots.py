"""Pictures of classification for the report: features, confusion, cost against quality, search methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Int64

from fissura.core import text
from fissura.reports.figures import ABOVE, COLOURS, DASHES, Plot, Undrawable

POINTS = 2_000  # of a t-SNE picture
PERPLEXITY = 30.0  # van der Maaten and Hinton's default; less where there are few points
GREY = "rgba(128, 136, 146, 0.55)"

Cost = Literal["bytes", "microseconds"]
_UNITS: dict[Cost, str] = {"bytes": "bytes of the classifier", "microseconds": "microseconds an image"}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trial of a search for small and fast classifiers; `label` is shown where the pointer rests."""

    label: str
    f1: float
    bytes: float
    microseconds: float


def feature_map(
    features: Float[np.ndarray, "image feature"],
    *,
    labels: Int[np.ndarray, " image"],
    predictions: Int[np.ndarray, " image"],
    classes: Sequence[str],
    names: Sequence[str],
    seed: int = 0,
) -> Plot:
    """A t-SNE picture: colour is the label, a cross is wrong; at most POINTS images, drawn by `seed`.

    `names` are those of the images. The plot cannot be drawn of fewer than four images, of features that are
    not finite, or where all are alike.
    """
    shown = np.arange(len(features))
    if len(features) > POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(len(features), POINTS, replace=False))
    some = f"{text.count(len(shown), 'image')}" + (
        f" of {len(features):,}" if len(shown) < len(features) else ""
    )
    shows = f"{some} as t-SNE lays their features out: near means alike. A cross is classified wrongly."
    chosen = [names[index] for index in shown.tolist()]
    draw = partial(_features, features[shown], labels[shown], predictions[shown], classes, chosen, seed)
    return Plot("Features", shows, draw, height=480)


def _features(
    features: Float[np.ndarray, "image feature"],
    labels: Int[np.ndarray, " image"],
    predictions: Int[np.ndarray, " image"],
    classes: Sequence[str],
    names: Sequence[str],
    seed: int,
) -> Any:
    from plotly.graph_objects import Figure, Scatter
    from sklearn.manifold import TSNE

    wrong = int(np.count_nonzero(~np.isfinite(features).all(axis=1)))
    if wrong:
        raise Undrawable(f"The features of {text.count(wrong, 'image')} are not finite.")
    if len(features) < 4:
        raise Undrawable(f"It needs at least four images; there are {len(features)}.")
    if not np.ptp(features, axis=0).any():
        raise Undrawable("All images have the same features.")
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    embedding = TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(features)
    figure = Figure()
    # What is wrong lies on top of what is right.
    for right in (True, False):
        for index, name in enumerate(classes):
            here = (labels == index) & ((predictions == labels) == right)
            if not here.any():
                continue
            # A dark rim sets the crosses off from the points below them, on white and on black.
            rim = {"color": "rgba(20, 23, 26, 0.85)", "width": 1.2}
            mark = {"symbol": "circle", "size": 5} if right else {"symbol": "x", "size": 10, "line": rim}
            figure.add_trace(
                Scatter(
                    x=embedding[here, 0].tolist(),
                    y=embedding[here, 1].tolist(),
                    text=[
                        f"{names[i]}: {name}" + ("" if right else f", taken for {classes[predictions[i]]}")
                        for i in np.flatnonzero(here).tolist()
                    ],
                    hovertemplate="%{text}<extra></extra>",
                    mode="markers",
                    marker={**mark, "color": COLOURS[index % len(COLOURS)], "opacity": 0.55 if right else 1},
                    name=name if right else f"{name}, wrong",
                )
            )
    # The axes of t-SNE have no unit and no zero.
    bare = {"showticklabels": False, "zeroline": False, "showgrid": False}
    figure.update_xaxes(**bare)
    figure.update_yaxes(**bare, scaleanchor="x")
    return figure.update_layout(legend={"orientation": "h", "x": 0, "y": 0, "yanchor": "top"})


def confusion_plot(
    matrix: Int64[np.ndarray, "label prediction"], *, classes: Sequence[str], title: str = "Confusion"
) -> Plot:
    """The confusion matrix: counts, and their share of the images of that label, which is the colour too."""
    shows = "Images by label and prediction; the share and the colour are of the label's images."
    return Plot(title, shows, partial(_confusion, matrix, classes), height=120 + 80 * max(3, len(classes)))


def _confusion(matrix: Int64[np.ndarray, "label prediction"], classes: Sequence[str]) -> Any:
    from plotly.graph_objects import Figure, Heatmap

    if not matrix.sum():
        raise Undrawable("No image was classified.")
    labelled = matrix.sum(axis=1, keepdims=True)
    shares = matrix / np.maximum(labelled, 1)
    # A translucent colour lets the page's ground through, so that the page's text is legible on every cell.
    scale = [[0, "rgba(47, 129, 214, 0.04)"], [1, "rgba(47, 129, 214, 0.6)"]]
    figure = Figure(
        Heatmap(
            x=list(classes),
            y=list(classes),
            z=shares.tolist(),
            zmin=0,
            zmax=1,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            hovertemplate="labelled %{y}, classified %{x}: %{z:.1%}<extra></extra>",
        )
    )
    for row, label in enumerate(classes):
        for column, prediction in enumerate(classes):
            share = f"{shares[row, column]:.1%}" if labelled[row, 0] else "—"
            words = f"<b>{matrix[row, column]:,}</b><br>{share}"
            figure.add_annotation(x=prediction, y=label, text=words, showarrow=False)
    figure.update_xaxes(title_text="classified", type="category", showgrid=False)
    figure.update_yaxes(
        title_text="labelled", title_standoff=14, type="category", showgrid=False, autorange="reversed"
    )
    return figure


def front(trials: Sequence[Candidate], *, cost: Cost) -> list[int]:
    """The places of those trials that none other beats in F1 and `cost` together, cheapest first.

    A trial is beaten by one at least as good in both and better in one; equal ones are all kept.
    """
    order = sorted(range(len(trials)), key=lambda i: (getattr(trials[i], cost), -trials[i].f1, i))
    kept: list[int] = []
    for index in order:
        best = trials[kept[-1]] if kept else None
        same = best is not None and getattr(best, cost) == getattr(trials[index], cost)
        if best is None or trials[index].f1 > best.f1 or (same and trials[index].f1 == best.f1):
            kept.append(index)
    return kept


def pareto_plots(
    trials: Sequence[Candidate], *, limits: Mapping[Cost, float] | None = None
) -> tuple[Plot, Plot]:
    """F1 against bytes and against microseconds; `limits` are targets, drawn as dotted lines."""
    shows = "Blue: trials that none other beats in both. Grey: the others."
    made = [
        Plot(f"F1 against {cost}", shows, partial(_pareto, trials, cost, (limits or {}).get(cost)))
        for cost in _UNITS
    ]
    return made[0], made[1]


def _pareto(trials: Sequence[Candidate], cost: Cost, limit: float | None) -> Any:
    from plotly.graph_objects import Figure, Scatter

    finite = [trial for trial in trials if isfinite(trial.f1) and isfinite(getattr(trial, cost))]
    if not finite:
        raise Undrawable("It needs at least one completed trial.")
    best = front(finite, cost=cost)
    others = [index for index in range(len(finite)) if index not in set(best)]
    figure = Figure()
    for indices, name, colour in ((others, "dominated", GREY), (best, "Pareto front", COLOURS[0])):
        joined = indices is best
        figure.add_trace(
            Scatter(
                x=[getattr(finite[i], cost) for i in indices],
                y=[finite[i].f1 for i in indices],
                text=[finite[i].label for i in indices],
                hovertemplate=f"%{{text}}<br>F1 %{{y:.4f}}, %{{x:,.4g}} {cost}<extra></extra>",
                mode="lines+markers" if joined else "markers",
                marker={"color": colour, "size": 9 if joined else 6},
                # Between two trials of the front nothing better than the cheaper one is known.
                line={"color": colour, "width": 2, "shape": "hv"},
                name=name,
            )
        )
    if limit is not None:
        figure.add_vline(x=limit, line={"color": COLOURS[1], "width": 1.5, "dash": "dot"})
    costs = [getattr(trial, cost) for trial in finite]
    figure.update_xaxes(title_text=_UNITS[cost], **({"type": "log"} if min(costs) > 0 else {}))
    figure.update_yaxes(title_text="F1")
    return figure.update_layout(legend=ABOVE)


def progress_plot(histories: Mapping[str, Sequence[float]], *, score: str = "F1") -> Plot:
    """The best score so far by trial number, a line a search method.

    `histories` holds each method's scores in the order of its trials; nan for one that failed.
    """
    shows = f"The best {score} that each method has found after so many trials, on validation data."
    return Plot("Search methods", shows, partial(_progress, histories, score))


def _progress(histories: Mapping[str, Sequence[float]], score: str) -> Any:
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for index, (method, values) in enumerate(histories.items()):
        known = [value if isfinite(value) else -inf for value in values]
        best = np.maximum.accumulate(np.array(known)) if known else np.array([])
        numbers = np.flatnonzero(np.isfinite(best))
        if not len(numbers):
            continue
        figure.add_trace(
            Scatter(
                x=(numbers + 1).tolist(),
                y=best[numbers].tolist(),
                hovertemplate=f"after %{{x}} trials: {score} %{{y:.4f}}<extra>%{{fullData.name}}</extra>",
                mode="lines" if len(numbers) > 1 else "markers",
                line={
                    "color": COLOURS[index % len(COLOURS)],
                    "dash": DASHES[index % len(DASHES)],
                    "width": 2.5,
                    "shape": "hv",
                },
                name=f"{method}: {best[-1]:.4f}",
            )
        )
    if not figure.data:
        raise Undrawable("It needs at least one completed trial.")
    figure.update_xaxes(title_text="trials")
    figure.update_yaxes(title_text=f"best {score} so far")
    return figure.update_layout(legend=ABOVE, showlegend=True)
