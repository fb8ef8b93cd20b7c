"""What a study gives its reader: leaderboard and report, from the runs that were evaluated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from fissura.core.errors import DataError, UserError
from fissura.core.progress import Say
from fissura.data.content import sources
from fissura.data.dataset import Dataset
from fissura.records import store
from fissura.records.run_files import MANIFEST, forget, read_manifest
from fissura.records.trial_attributes import PAPER, RUN
from fissura.reports.classification import ClassRow
from fissura.reports.cross_data import cross_data, of_data, scores_of_tables
from fissura.reports.curves import SHOWN, TrainingCurves, precision_recall_plots, training_plots
from fissura.reports.export import write_leaderboard
from fissura.reports.figures import Plot
from fissura.reports.leaderboard import Leaderboard, leaderboard
from fissura.reports.pictures import Load
from fissura.reports.report import StudyFacts, write_report
from fissura.segmentation.recipe import segmenter_of
from fissura.studies.sources import called, described, masked
from fissura.studies.study import Plan, Ranking, Study, best_trials, runs_to_keep
from fissura.training.checkpoint import METRICS, STATE, WEIGHTS, read_metrics

if TYPE_CHECKING:
    import optuna

KEPT_RUNS = 10
REPORT = "report.html"


@dataclass(frozen=True)
class Conclusion:
    """Where the results of a study are, and its ranking; `classes` is that of a study of classifiers."""

    files: tuple[Path, ...]
    board: Leaderboard
    classes: tuple[ClassRow, ...] = ()


def write_results(study: Study, trials: "optuna.Study", *, say: Say) -> Conclusion:
    """Writes leaderboard and report of what has been evaluated on the study's own data; other data have a
    table of their own in the report. The images are needed for the pictures alone."""
    plan = study.plan()
    runs = store.read_runs([study.path])
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    space = plan.load_space(study.path)
    # what the search was for leads its tables, its pages and their first sentences
    objective = segmenter_of(space.recipe_for(space.completed({}))).protocol_of(space.objectives[0].metric)
    board, others = of_data(leaderboard(runs.records).led_by(objective), plan.content)
    load: Load | None = None
    missing = ""
    try:
        load = loader(masked(plan.datasets))
    except DataError as error:
        missing = f"The pictures are left out: {error.problems[0]}."
        say(f"{study.path}: {missing}")
    files = write_leaderboard(board, study.path, title=f"Leaderboard of {plan.name}", load=load)
    plots: dict[str, Sequence[Plot]] = {"Training": training_plots(_trainings(study, trials, say=say))}
    if curves := precision_recall_plots(board):
        plots["Precision and recall"] = curves
    title, facts = f"{plan.name}: search report", study_facts(study, trials, plan)
    facts = replace(
        facts,
        plots=plots,
        data=". ".join(filter(None, (facts.data, missing))),
        cross_data=cross_data(scores_of_tables(board), scores_of_tables(others)),
    )
    files.append(
        write_report(trials, study.path / REPORT, title=title, rows=board, gallery=load, extra=facts)
    )
    return Conclusion(tuple(files), board)


def drop_checkpoints(study: Study, trials: "optuna.Study") -> None:
    """Removes the weights of all ended trials but the best ones, so that a long search does not fill the
    disk."""
    kept = set(runs_to_keep(trials, best=KEPT_RUNS)) | _open_runs(trials)
    for trial in trials.get_trials(deepcopy=False):
        if trial.state.is_finished() and RUN in trial.user_attrs and trial.user_attrs[RUN] not in kept:
            _drop(study, trial.user_attrs[RUN])


class Checkpoints:
    """Does what `drop_checkpoints` does as trials end, without a look at all the trials that ended before."""

    def __init__(self, study: Study, trials: "optuna.Study") -> None:
        self._study, self._trials = study, trials
        self.ranking = Ranking(trials)
        self._kept = set(self.ranking.runs(best=KEPT_RUNS))

    def ended(self, trial: "optuna.trial.FrozenTrial") -> None:
        """Removes the weights that a trial's end makes needless: its own, or those that it takes the place
        of."""
        self.ranking.add(trial)
        before, self._kept = self._kept, set(self.ranking.runs(best=KEPT_RUNS))
        for run in (before | {trial.user_attrs[RUN]}) - self._kept - _open_runs(self._trials):
            _drop(self._study, run)


def _open_runs(trials: "optuna.Study") -> set[str]:
    """The runs of trials that have not ended: a sweep trains again, and to its end, what a scheduler once
    stopped."""
    from optuna.trial import TrialState

    going = trials.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    return {trial.user_attrs.get(RUN, "") for trial in going}


def _drop(study: Study, run: str) -> None:
    forget(study.runs / run, (WEIGHTS, STATE))


def loader(datasets: Sequence[Dataset]) -> Load:
    """Reads an image and its mask by data set and name, for pictures.

    Raises:
        DataError: the data sets are no longer where they were.
    """
    found = {(source.label, source.sample.name): source for source in sources(datasets)}

    def load(dataset: str, name: str) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        source = found[dataset, name]
        return source.dataset.read_image(source.sample), source.dataset.read_mask(source.sample)

    return load


def _trainings(study: Study, trials: "optuna.Study", *, say: Say) -> list[TrainingCurves]:
    """The trainings whose curves are drawn, best first: of each network that the search tried the best one,
    as in Isnan et al.'s figure 4; then the others."""
    ranked = best_trials(trials)
    first: dict[tuple[str, ...], optuna.trial.FrozenTrial] = {}
    for trial in ranked:
        first.setdefault(_network(trial), trial)
    leading = {trial.number for trial in first.values()}
    trainings: list[TrainingCurves] = []
    for trial in sorted(ranked, key=lambda trial: trial.number not in leading):
        path = study.runs / trial.user_attrs[RUN] / METRICS
        if len(trainings) < SHOWN and path.is_file():
            try:
                progress, history = read_metrics(path.parent)
            except UserError as error:
                say(f"skipped {error.problems[0]}")
                continue
            name = ", ".join([f"trial {trial.number}", *_network(trial)])
            trainings.append(TrainingCurves(name, history, progress.best_epoch))
    return trainings


def _network(trial: "optuna.trial.FrozenTrial") -> tuple[str, ...]:
    """What a trial chose by name of its network, such as its encoder; widths and rates are numbers."""
    return tuple(
        value for name, value in trial.params.items() if name.startswith("model.") and isinstance(value, str)
    )


def study_facts(study: Study, trials: "optuna.Study", plan: Plan) -> StudyFacts:
    """What the report says of a study beside its trials, whatever the task."""
    space = plan.load_space(study.path)
    recipe = space.recipe_for(space.completed({}))
    metrics = [objective.metric for objective in space.objectives]
    paper = [trial.number for trial in trials.get_trials(deepcopy=False) if trial.user_attrs.get(PAPER)]
    best = [
        study.runs / run for run in runs_to_keep(trials, best=1) if (study.runs / run / MANIFEST).is_file()
    ]
    return StudyFacts(
        objectives=metrics,
        measured=[
            recipe.measured(metric, on=called(plan.datasets, content=plan.content)) for metric in metrics
        ],
        data=described(plan.datasets, content=plan.content),
        command=study.command(),
        paper_trial=paper[0] if paper else None,
        manifest=read_manifest(best[0]) if best else None,
        details={
            "profile": plan.profile or "none",
            "set": str(plan.fixed or "nothing"),
            "study": str(study.path),
        },
    )
