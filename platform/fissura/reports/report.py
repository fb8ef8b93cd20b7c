"""The report of a search: one HTML file, whose first screen states the result."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from fissura.core import text
from fissura.core.files import write_text
from fissura.records.manifest import Manifest
from fissura.records.study_ranking import best_trials, finished
from fissura.records.trial_attributes import REASON, SKIPPED, TOOK
from fissura.reports import html
from fissura.reports.differences import plain
from fissura.reports.figures import draw_all, quiet
from fissura.reports.plots import plots
from fissura.reports.run_sections import RunSections
from fissura.reports.sensitivity import sensitivity

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

BEST = 10  # trials in the first table
LISTED = 2_000  # trials in the table of all
NOT_SCORED = "No trial of this search has been scored on held-out images yet."


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What a study does not know of itself.

    `objectives` names its values, and `measured` says of each, as the end of a sentence, on which images and
    by which protocol; `data` says in a sentence what was trained and validated on; `seconds` is the wall time
    of the search; `command` runs it again; `paper_trial` is the number of the trial that ran the paper's own
    setting (None: none did); `runs` says what was found of the evaluated ones; `details` are more facts to
    list.
    """

    objectives: Sequence[str]
    data: str
    command: str
    measured: Sequence[str] = ()
    seconds: float | None = None
    paper_trial: int | None = 0
    manifest: Manifest | None = None
    runs: RunSections = field(default_factory=RunSections)
    details: Mapping[str, str] = field(default_factory=dict)


def write_report(
    study: "Study",
    path: Path,
    *,
    title: str,
    extra: StudyFacts,
) -> Path:
    """Writes the report of `study`, whole or not at all, and gives its path."""
    with quiet():
        trials = list(study.get_trials(deepcopy=False))
        ranked = best_trials(study)
        alone = sensitivity(study, objectives=extra.objectives, paper_trial=extra.paper_trial)
        figures = {"The search": plots(study, objectives=extra.objectives)}
        if alone:
            figures["Sensitivity"] = alone
        figures |= {name: list(own) for name, own in extra.runs.plots.items()}
        sections = {
            "Held-out images": extra.runs.held_out or [html.part("absent", NOT_SCORED)],
            **({"On other data": extra.runs.cross_data} if extra.runs.cross_data else {}),
            "Best trials": [*_best(trials, ranked, extra), *_all_trials(trials, extra)],
            **{name: [part] for name, part in zip(figures, draw_all(*figures.values()), strict=True)},
            "What produced this": _origin(study, extra),
        }
        failed = [trial for trial in finished(study) if trial.state.name == "FAIL"]
        reasons = Counter(str(trial.user_attrs.get(REASON, "no reason was kept")) for trial in failed)
        content = {
            "title": title,
            "sentences": _sentences(trials, ranked, extra),
            "data": extra.data,
            "tiles": _tiles(trials, ranked, extra),
            "failed": text.count(len(failed), "trial"),
            "failures": reasons.most_common(8),
            "sections": sections,
        }
    write_text(path, html.document("report.html", content))
    return path


def _sentences(trials: list["FrozenTrial"], ranked: list["FrozenTrial"], extra: StudyFacts) -> list[str]:
    """What was found."""
    return [_headline(ranked, _paper(trials, extra), extra), extra.runs.found]


def _tiles(trials: list["FrozenTrial"], ranked: list["FrozenTrial"], extra: StudyFacts) -> list[Markup]:
    """The numbers of the first screen."""
    paper = _paper(trials, extra)
    states = Counter(trial.state.name.lower() for trial in trials if SKIPPED not in trial.user_attrs)
    spent = [seconds for trial in trials if (seconds := took(trial))]
    tiles = []
    if ranked and len(extra.objectives) == 1:
        best, where = _leaders(ranked), " ".join(extra.measured)
        tiles.append(
            html.part(
                "tile", f"Best {extra.objectives[0]}", text.score(ranked[0].values[0]), f"{best} {where}"
            )
        )
        has = paper is not None and paper in ranked
        value = text.score(paper.values[0]) if paper is not None and has else "—"
        detail = f"trial {paper.number} {where}" if paper is not None else "not tried"
        tiles.append(
            html.part(
                "tile", "The paper's own setting", value, detail if has or paper is None else _ended(paper)
            )
        )
    elif ranked:
        tiles.append(
            html.part("tile", "On the Pareto front", str(len(ranked)), "trials that none other beats")
        )
    tiles += extra.runs.tiles
    others = [
        f"{number} {_STATES.get(state, state)}" for state, number in states.items() if state != "complete"
    ]
    tiles.append(
        html.part(
            "tile",
            "Trials completed",
            str(states["complete"]),
            ", ".join(others) or "none failed, none pruned",
        )
    )
    if extra.seconds is not None:
        mean = f"{text.duration(sum(spent) / len(spent))} a trial on average" if spent else ""
        tiles.append(html.part("tile", "Time of the search", text.duration(extra.seconds), mean))
    return tiles


_STATES = {"fail": "failed", "running": "still running"}


def _paper(trials: list["FrozenTrial"], extra: StudyFacts) -> "FrozenTrial | None":
    return next((trial for trial in trials if trial.number == extra.paper_trial), None)


def _ended(trial: "FrozenTrial") -> str:
    return f"trial {trial.number}: {_state(trial)}"


def _leaders(ranked: Sequence["FrozenTrial"]) -> str:
    """The trials that share the best value: "trial 3", "trials 3 and 5"."""
    best = [str(trial.number) for trial in ranked if trial.values[0] == ranked[0].values[0]]
    return f"trial{'s' if len(best) > 1 else ''} {text.listed(best)}"


def _headline(ranked: list["FrozenTrial"], paper: "FrozenTrial | None", extra: StudyFacts) -> str:
    """What the search found, on which images and by which protocol, in a sentence or two."""
    if not ranked:
        return "No trial has completed, so the search has found nothing yet."
    measured = extra.measured or [""] * len(extra.objectives)
    if len(extra.objectives) > 1:
        pairs = zip(extra.objectives, measured, strict=True)
        named = ", ".join(f"{name} {where}".strip() for name, where in pairs)
        return (
            f"{text.count(len(ranked), 'trial')} on the Pareto front of {named}: no other beats them in all."
        )
    best, name = ranked[0], extra.objectives[0]
    says = f"The best trial reached {name} {text.score(best.values[0])} {measured[0]}".rstrip()
    if paper is None or paper not in ranked:
        return f"{says}. The paper's own setting has no value to compare with."
    if paper.values[0] == best.values[0]:
        return f"{says}: the paper's own setting; no other trial is better."
    gap = best.values[0] - paper.values[0]
    return f"{says}, against {text.score(paper.values[0])} with the paper's own setting ({gap:+.3g})."


def _best(trials: list["FrozenTrial"], ranked: list["FrozenTrial"], extra: StudyFacts) -> list[Markup]:
    if not ranked:
        return [html.part("absent", "No trial has completed.")]
    paper = _paper(trials, extra)
    shown = ranked[:BEST]
    if paper is not None and paper not in shown:
        shown.append(paper)
    note = "Values are of validation data, on which the search chose. Grey: as in the paper's own setting."
    return [_table(shown, paper, extra), html.part("muted", note)]


def _all_trials(trials: list["FrozenTrial"], extra: StudyFacts) -> list[Markup]:
    if not trials:
        return []
    all_of_them = f"All {text.count(len(trials), 'trial')}"
    summary = all_of_them if len(trials) <= LISTED else f"The first {LISTED:,} trials"
    listing = _table(trials[:LISTED], _paper(trials, extra), extra)
    return [html.part("folded", summary, listing)]


def _table(shown: Sequence["FrozenTrial"], paper: "FrozenTrial | None", extra: StudyFacts) -> Markup:
    """Trials with a column for each parameter; a value that the paper's trial has too is set in grey."""
    names = list(dict.fromkeys(name for trial in shown for name in trial.params))
    rows = [
        [
            html.Cell(f"{trial.number} (paper)" if trial is paper else str(trial.number), trial.number),
            *_values(trial, extra),
            _time(trial),
            *(_parameter(trial, name, paper) for name in names),
            html.Cell(_state(trial)),
        ]
        for trial in shown
    ]
    short = text.shortened(names)
    numbers = ["Trial", *extra.objectives, "Time", *short.values()]
    hints = {shown: name for name, shown in short.items()}
    return html.table([*numbers, "State"], rows, numeric=numbers, hints=hints)


def _values(trial: "FrozenTrial", extra: StudyFacts) -> list[html.Cell]:
    if not trial.values or len(trial.values) != len(extra.objectives):
        return [html.Cell("—", "") for _ in extra.objectives]
    return [html.Cell(text.score(value), value) for value in trial.values]


def _time(trial: "FrozenTrial") -> html.Cell:
    seconds = took(trial)
    return html.Cell("—", "") if seconds is None else html.Cell(text.duration(seconds), seconds)


def took(trial: "FrozenTrial") -> float | None:
    """The seconds that a trial ran, never less than 0; None where it has not ended. Optuna's own times are
    those of a clock that people and servers set: they count only where nothing else is known."""
    if trial.duration is None:
        return None
    return float(trial.user_attrs.get(TOOK, max(0.0, trial.duration.total_seconds())))


def _parameter(trial: "FrozenTrial", name: str, paper: "FrozenTrial | None") -> html.Cell:
    if name not in trial.params:
        return html.Cell("", "")
    value = trial.params[name]
    same = paper is not None and trial is not paper and paper.params.get(name) == value
    return html.Cell(plain(value), plain(value), muted=same)


def _state(trial: "FrozenTrial") -> str:
    state = trial.state.name.lower()
    reason = f": {trial.user_attrs[REASON]}" if REASON in trial.user_attrs else ""
    return _STATES.get(state, state) + reason


def _origin(study: "Study", extra: StudyFacts) -> list[Markup]:
    known: dict[str, str] = {"Study": study.study_name, "Data": extra.data, **extra.details}
    if extra.manifest is not None:
        run = extra.manifest
        known |= {
            "Data digest": run.data.digest,
            "Code": run.code_version,
            "Device": f"{run.device}, {text.count(run.cpus, 'core')} a trial",
            "Libraries": ", ".join(f"{name} {version}" for name, version in run.libraries.items()),
        }
    return [html.part("facts", known), html.part("section", "Run it again", html.part("pre", extra.command))]
