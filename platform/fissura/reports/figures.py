"""Figures on one HTML page, drawn by Plotly where the page is read, or the reason why one cannot be drawn."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from fissura.core import text
from fissura.reports import html

# Okabe and Ito's colours, told apart by the colour-blind, those that stand out on white and on black alone.
COLOURS = ("#2f81d6", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#7f6fd0", "#8a6d5b")
DASHES = ("solid", "dash", "dot", "dashdot")
ABOVE = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
"""Where a legend stands that takes no width of its figure."""


class Undrawable(Exception):
    """Why a plot cannot be drawn, in a sentence."""


@dataclass(frozen=True)
class Plot:
    """A plot's title, what it shows, and how it is drawn; `draw` raises Undrawable."""

    title: str
    shows: str
    draw: Callable[[], Any]
    whole: bool = False  # as wide as the page
    height: int | None = None  # in pixels; None: the page's own


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna's logger and its warnings of experimental features, silent inside the block."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def draw_all(*groups: Sequence[Plot]) -> list[Markup]:
    """Each group's plots, the last with Plotly's code; a sentence names what cannot be drawn, and why."""
    count = 0
    bodies = []
    for group in groups:
        drawn, reasons = [], dict[str, list[str]]()
        for plot in group:
            try:
                with quiet():
                    data = _data(plot.draw())
            except Undrawable as reason:
                reasons.setdefault(str(reason), []).append(plot.title)
                continue
            except (ValueError, RuntimeError) as error:
                reasons.setdefault(f"“{error}”, says Optuna", []).append(plot.title)
                continue
            drawn.append((plot, f"plot-{count}", data))
            count += 1
        body = html.part("plots", drawn) if drawn else Markup()
        bodies.append(body + _left_out(reasons))
    if count:
        bodies[-1] += _drawing()
    return bodies


def _left_out(reasons: Mapping[str, Sequence[str]]) -> Markup:
    """One sentence about the plots that are not there, by reason."""
    if not reasons:
        return Markup()
    clauses = [
        f"{text.listed(titles)} ({reason[0].lower()}{reason[1:].rstrip('.')})"
        for reason, titles in reasons.items()
    ]
    return html.part("absent", f"Not drawn: {'; '.join(clauses)}.")


def _data(figure: Any) -> str:
    figure.update_layout(template=None, title=None, width=None, height=None, margin={"t": 40, "r": 16})
    # "<" as an escape: no text of a study can end the element that it stands in.
    return str(figure.to_json()).replace("<", "\\u003c")


def _drawing() -> Markup:
    from plotly.offline import get_plotlyjs

    return html.part("drawing", get_plotlyjs())
