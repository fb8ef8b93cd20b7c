"""Curves of trained models: loss and Dice over the epochs, and precision over recall with the ODS point."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

from fissura.core import text
from fissura.reports.columns import heading
from fissura.reports.figures import ABOVE, COLOURS, DASHES, Plot, Undrawable
from fissura.reports.leaderboard import Leaderboard
from fissura.reports.standings import Standing

SHOWN = len(COLOURS)  # models in one picture


@dataclass(frozen=True)
class TrainingCurves:
    """A training: what it is called, its epochs' records in order, and the epoch of the kept weights, from 1
    (0: not known)."""

    name: str
    history: Sequence[Mapping[str, Any]]
    kept: int


def training_plots(trainings: Sequence[TrainingCurves]) -> list[Plot]:
    """Dice and loss of training and validation over the epochs, at most SHOWN trainings; Isnan et al.'s
    figure 4 where they are of one backbone each."""
    legend = "Solid: validation images. Dotted: the training batches, augmented, as they are learnt from."
    kept = "A ring: the epoch whose weights are kept."
    return [
        Plot(
            f"{title} while training",
            f"{legend} {kept}",
            partial(_training, trainings[:SHOWN], measure, title),
        )
        for measure, title in (("dice", "Dice at 0.5"), ("loss", "Loss"))
    ]


def _training(trainings: Sequence[TrainingCurves], measure: str, title: str) -> Any:
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    for training, colour in zip(trainings, COLOURS, strict=False):
        for split, dash in (("val", "solid"), ("train", "dot")):
            known = [record for record in training.history if record.get(f"{split}/{measure}") is not None]
            if not known:
                continue
            words = {"val": "validation", "train": "training"}[split]
            kept = [record["epoch"] == training.kept and split == "val" for record in known]
            figure.add_trace(
                Scatter(
                    x=[record["epoch"] for record in known],
                    y=[record[f"{split}/{measure}"] for record in known],
                    mode="lines+markers",
                    line={"color": colour, "dash": dash, "width": 2 if split == "val" else 1.5},
                    marker={
                        "size": [10 if ring else 3 for ring in kept],
                        "symbol": ["circle-open" if ring else "circle" for ring in kept],
                        "line": {"width": [2 if ring else 0 for ring in kept], "color": colour},
                    },
                    name=training.name,
                    legendgroup=training.name,
                    showlegend=split == "val",
                    hovertemplate=f"{words}, epoch %{{x}}: %{{y:.4f}}<extra>{training.name}</extra>",
                )
            )
    if not figure.data:
        raise Undrawable("No finished training kept what its epochs came to.")
    longest = max(len(training.history) for training in trainings)
    figure.update_xaxes(title_text="epoch", dtick=max(1, round(longest / 8)))
    figure.update_yaxes(title_text=title)
    return figure.update_layout(legend=ABOVE, showlegend=True)


def precision_recall_plots(board: Leaderboard) -> list[Plot]:
    """A plot for each table whose protocol keeps its curves: precision over recall at every threshold, with
    the point of the best F1 (ODS) marked, as in Siriborvornratanakul's figure 3."""
    plots = []
    for table in board.tables:
        swept = [standing for standing in table.standings if standing.swept is not None]
        if swept:
            shows = "Each threshold of the pooled maps; the square is the best F1 (ODS). Faint: equal F1."
            plots.append(Plot(heading(table), shows, partial(_precision_recall, swept[:SHOWN])))
    return plots


def _precision_recall(standings: Sequence[Standing]) -> Any:
    from plotly.graph_objects import Figure, Scatter

    figure = Figure()
    _equal_f1(figure)
    for standing, colour, dash in zip(standings, COLOURS, cycle(DASHES), strict=False):
        swept = standing.swept
        if swept is None:
            continue
        name = (
            f"{'' if standing.rank is None else f'#{standing.rank} '}{standing.recipe}: ODS {swept.ods:.3f}"
        )
        figure.add_trace(
            Scatter(
                x=list(swept.recall),
                y=list(swept.precision),
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                customdata=[level / 255 for level in range(1, 256)],
                hovertemplate="recall %{x:.3f}, precision %{y:.3f} at %{customdata:.2f}<extra></extra>",
                name=name,
                legendgroup=name,
            )
        )
        index = round(swept.ods_threshold * 255) - 1
        figure.add_trace(
            Scatter(
                x=[swept.recall[index]],
                y=[swept.precision[index]],
                mode="markers",
                marker={"symbol": "square", "size": 10, "color": colour},
                hovertemplate=f"ODS {swept.ods:.4f} at {swept.ods_threshold:.2f}<extra></extra>",
                name=name,
                legendgroup=name,
                showlegend=False,
            )
        )
    figure.update_xaxes(title_text="recall", range=[0, 1.01])
    figure.update_yaxes(title_text="precision", range=[0, 1.01])
    return figure.update_layout(legend=ABOVE, showlegend=True)


def _equal_f1(figure: Any) -> None:
    """Faint lines along which F1 is the same."""
    from plotly.graph_objects import Scatter

    for f1 in (0.2, 0.4, 0.6, 0.8):
        recalls = [f1 / 2 + (1 - f1 / 2) * step / 50 for step in range(1, 51)]
        figure.add_trace(
            Scatter(
                x=recalls,
                y=[f1 * recall / (2 * recall - f1) for recall in recalls],
                mode="lines",
                line={"color": "rgba(128, 136, 146, 0.35)", "width": 1},
                hovertemplate=f"F1 {text.number(f1)}<extra></extra>",
                showlegend=False,
            )
        )
