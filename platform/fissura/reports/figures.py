"""Figures on one HTML page, drawn by Plotly where the page is read, or the reason why one cannot be drawn."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fissura.core import text
from fissura.reports.html import Html, element, join, script

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


def draw_all(*groups: Sequence[Plot]) -> list[Html]:
    """Each group's plots, the last with Plotly's code; a sentence names what cannot be drawn, and why."""
    drawn = 0
    bodies = []
    for group in groups:
        parts, reasons = [], dict[str, list[str]]()
        for plot in group:
            try:
                with quiet():
                    body = _figure(plot.draw(), f"plot-{drawn}", height=plot.height)
            except Undrawable as reason:
                reasons.setdefault(str(reason), []).append(plot.title)
                continue
            except (ValueError, RuntimeError) as error:
                reasons.setdefault(f"“{error}”, says Optuna", []).append(plot.title)
                continue
            drawn += 1
            shape = "section.whole" if plot.whole else "section"
            parts.append(element(shape, element("h3", plot.title), element("p.muted", plot.shows), body))
        bodies.append(join(element("div.plots", *parts) if parts else None, _left_out(reasons)))
    code = [_plotly(), script(_DRAW)] if drawn else []
    return [*bodies[:-1], join(bodies[-1], *code)]


def _left_out(reasons: Mapping[str, Sequence[str]]) -> Html | None:
    """One sentence about the plots that are not there, by reason."""
    if not reasons:
        return None
    clauses = [
        f"{text.listed(titles)} ({reason[0].lower()}{reason[1:].rstrip('.')})"
        for reason, titles in reasons.items()
    ]
    return element("p.none", f"Not drawn: {'; '.join(clauses)}.")


def _figure(figure: Any, name: str, *, height: int | None) -> Html:
    figure.update_layout(template=None, title=None, width=None, height=None, margin={"t": 40, "r": 16})
    # "<" as an escape: no text of a study can end the element that it stands in.
    plain = Html(figure.to_json().replace("<", "\\u003c"))
    data = Html(f'<script type="application/json" data-plot="{name}">{plain}</script>')
    size = {} if height is None else {"style": f"height: {height}px; min-height: 0"}
    return join(element("div.plot", attributes={"id": name} | size), data)


def _plotly() -> Html:
    from plotly.offline import get_plotlyjs

    return script(get_plotlyjs())


_DRAW = """
const dark = matchMedia('(prefers-color-scheme: dark)');
const restyled = layout => {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue('--text').trim(), line = style.getPropertyValue('--line').trim();
  const clear = 'rgba(0,0,0,0)';
  const modebar = {bgcolor: clear, color: line, activecolor: text};
  const next = {...layout, modebar, paper_bgcolor: clear, plot_bgcolor: clear,
    font: {...layout.font, color: text, size: 12, family: 'system-ui, sans-serif'}, autosize: true};
  const axes = Object.keys(layout).filter(key => /^[xy]axis/.test(key));
  for (const key of new Set([...axes, 'xaxis', 'yaxis']))
    next[key] = {...layout[key], gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true};
  return next;
};
const draw = () => document.querySelectorAll('script[data-plot]').forEach(holder => {
  const figure = JSON.parse(holder.textContent);
  const options = {responsive: true, displaylogo: false};
  Plotly.react(holder.dataset.plot, figure.data, restyled(figure.layout), options);
});
draw();
dark.addEventListener('change', draw);
"""
