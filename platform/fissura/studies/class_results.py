"""What a study of classifiers gives its reader: tables and report, from the runs that were evaluated."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.engine.run import MANIFEST, read_manifest
from fissura.results.class_store import read_classes
from fissura.results.classification import ClassRow, class_table
from fissura.results.classification_export import sections, write_classification
from fissura.results.classification_plots import Candidate, confusion_plot, pareto_plots, progress_plot
from fissura.results.cross_data import cross_data, scores_of_classes
from fissura.results.leaderboard import Leaderboard
from fissura.results.plots import Plot
from fissura.results.report import StudyFacts, write_report
from fissura.studies.results import REPORT, Conclusion
from fissura.studies.sources import described
from fissura.studies.study import PAPER, Study, finished, runs_to_keep

if TYPE_CHECKING:
    import optuna

TARGET_BYTES = 100_000
"""The paper's classifier is to take less."""

Say = Callable[[str], None]


def write_class_results(
    study: Study, trials: "optuna.Study", *, pictures: Sequence[Plot] = (), say: Say
) -> Conclusion:
    """Writes tables and report of what has been evaluated on the study's own data; other data have a table of
    their own in the report. `pictures` join the report's."""
    plan = study.plan()
    runs = read_classes([study.path])
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    found = class_table(runs.records)
    rows = [row for row in found if row.test_set.data_digest == plan.content]
    others = [row for row in found if row.test_set.data_digest != plan.content]
    title = f"Classifiers of {plan.name}"
    files = write_classification(rows, study.path, name="leaderboard", title=title)
    files.append(_report(study, trials, rows, others, pictures))
    return Conclusion(tuple(files), Leaderboard(()), tuple(rows))


def _report(
    study: Study,
    trials: "optuna.Study",
    rows: Sequence[ClassRow],
    others: Sequence[ClassRow],
    pictures: Sequence[Plot],
) -> Path:
    plan = study.plan()
    space = plan.load_space(study.path)
    metrics = [objective.metric for objective in space.objectives]
    paper = [trial.number for trial in trials.get_trials(deepcopy=False) if trial.user_attrs.get(PAPER)]
    best = [
        study.runs / run for run in runs_to_keep(trials, best=1) if (study.runs / run / MANIFEST).is_file()
    ]
    plots: dict[str, Sequence[Plot]] = {"Progress": [_progress(trials, study, metrics)]}
    costly = _candidates(trials, metrics)
    if costly:
        plots["What it costs"] = pareto_plots(costly, limits={"bytes": TARGET_BYTES})
    shown = [confusion_plot(row.confusion, classes=row.classes) for row in rows[:1]]
    plots["On test images"] = [*shown, *pictures]
    return write_report(
        trials,
        study.path / REPORT,
        title=f"{plan.name}: search report",
        rows=None,
        gallery=None,
        extra=StudyFacts(
            objectives=metrics,
            data=described(plan.datasets, content=plan.content),
            command=study.command(),
            cross_data=cross_data(scores_of_classes(rows), scores_of_classes(others)),
            paper_trial=paper[0] if paper else None,
            manifest=read_manifest(best[0]) if best else None,
            plots=plots,
            held_out=sections(rows),
            details={
                "profile": plan.profile or "none",
                "set": str(plan.fixed or "nothing"),
                "study": str(study.path),
            },
        ),
    )


def _progress(trials: "optuna.Study", study: Study, metrics: Sequence[str]) -> Plot:
    """The best value so far by trial, with that of every study beside this one that had the same goal."""
    histories: dict[str, list[float]] = {study.path.name: _values(trials)}
    for other in sorted(study.path.parent.glob("*/study.json")):
        beside = Study(other.parent)
        same = beside.path != study.path and (beside.path / "study.db").is_file()
        if same and _alike(beside, study, metrics):
            histories[beside.path.name] = _values(beside.load())
    return progress_plot(histories, score=metrics[0])


def _alike(one: Study, other: Study, metrics: Sequence[str]) -> bool:
    plan = one.plan()
    objectives = [objective.metric for objective in plan.load_space(one.path).objectives]
    return plan.content == other.plan().content and objectives == list(metrics)


def _values(trials: "optuna.Study") -> list[float]:
    return [trial.values[0] for trial in finished(trials) if trial.values]


def _candidates(trials: "optuna.Study", metrics: Sequence[str]) -> list[Candidate]:
    """Every completed trial whose size and time were measured."""
    found = []
    for trial in finished(trials):
        known: Mapping[str, float] = trial.user_attrs
        if trial.values and {"cv/f1", "bytes", "microseconds"} <= known.keys():
            parameters = (f"{name} = {value}" for name, value in trial.params.items())
            found.append(
                Candidate(
                    label="<br>".join([f"trial {trial.number}", *parameters]),
                    f1=known["cv/f1"],
                    bytes=known["bytes"],
                    microseconds=known["microseconds"],
                )
            )
    return found
