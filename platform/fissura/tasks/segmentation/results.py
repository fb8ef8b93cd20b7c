"""The results of segmentations: the evaluation of a run; leaderboard and sections of a study's report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from fissura.core.brief import Rows
from fissura.core.errors import DataError, SpecError, UserError
from fissura.core.progress import Say
from fissura.data.content import sources
from fissura.data.dataset import Dataset
from fissura.data.datasets import parse_datasets
from fissura.data.sources import masked
from fissura.records.store import Row, mean_scores, read_runs
from fissura.records.study_ranking import best_trials
from fissura.records.trial_attributes import RUN
from fissura.reports.cross_data import cross_data, of_data, scores_of_tables
from fissura.reports.curves import SHOWN, TrainingCurves, precision_recall_plots, training_plots
from fissura.reports.export import held_out, write_leaderboard
from fissura.reports.figures import Plot
from fissura.reports.leaderboard import Leaderboard, leaderboard
from fissura.reports.pictures import Load
from fissura.reports.task_leaderboard import TaskLeaderboard
from fissura.segmentation.evaluation import evaluate
from fissura.segmentation.recipe import segmenter_of
from fissura.studies.study import Plan, Study
from fissura.studies.task_results import EvaluationTerms, RankedRuns, TaskResults
from fissura.tasks.segmentation.leaderboard import SegmentationLeaderboard
from fissura.training.checkpoint import METRICS, read_metrics
from fissura.training.runtime import LocalRuntime

if TYPE_CHECKING:
    import optuna


class SegmentationResults:
    """See `TaskResults`."""

    def evaluate(self, run: Path, terms: EvaluationTerms) -> Rows[Row]:
        """See `TaskResults`: one row for each image and protocol."""
        if terms.conditions:
            raise SpecError(f"{run}: --condition is a classifier's; of a segmentation give --protocol")
        rows = evaluate(
            run,
            datasets=parse_datasets(terms.data),
            protocols=terms.protocols,
            split=terms.split,
            threshold=terms.threshold,
            device=LocalRuntime().device,
            on_image=terms.on_image,
        )
        return Rows(rows, head=mean_scores, run=run)

    def board(self, paths: Sequence[Path], *, say: Say) -> TaskLeaderboard:
        """See `TaskResults`."""
        return SegmentationLeaderboard(self._leaderboard(paths, say=say))

    def _leaderboard(self, paths: Sequence[Path], *, say: Say) -> Leaderboard:
        runs = read_runs(paths)
        for skipped in runs.skipped:
            say(f"skipped {skipped.path}: {skipped.reason}")
        return leaderboard(runs.records)

    def rank(self, study: Study, plan: Plan, trials: "optuna.Study", *, say: Say) -> RankedRuns:
        """The images are needed for the pictures alone; where they are gone, a line says so. The protocol of
        the search's first objective leads the tables, the pages and their first sentences."""
        space = plan.load_space(study.path)
        recipe = segmenter_of(space.recipe_for(space.completed({})))
        led = self._leaderboard([study.path], say=say).led_by(recipe.protocol_of(space.objectives[0].metric))
        board, others = of_data(led, plan.content)
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
        return RankedRuns(
            files=files,
            board=SegmentationLeaderboard(board),
            sections=replace(
                held_out(board, load=load),
                plots=plots,
                cross_data=cross_data(scores_of_tables(board), scores_of_tables(others)),
            ),
            remark=missing,
        )


def loader(datasets: Sequence[Dataset]) -> Load:
    """Reads an image and its mask by data set and name, for pictures.

    Raises:
        DataError: the data sets are no longer where they were.
    """
    sources_by_name = {(source.label, source.sample.name): source for source in sources(datasets)}

    def load(dataset: str, name: str) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        source = sources_by_name[dataset, name]
        return source.dataset.read_image(source.sample), source.dataset.read_mask(source.sample)

    return load


def _trainings(study: Study, trials: "optuna.Study", *, say: Say) -> list[TrainingCurves]:
    """The trainings whose curves are drawn, best first: of each network that the search tried the best one,
    as in Isnan et al.'s figure 4; then the others."""
    ranked = best_trials(trials)
    best_of_network: dict[tuple[str, ...], optuna.trial.FrozenTrial] = {}
    for trial in ranked:
        best_of_network.setdefault(_network(trial), trial)
    leading = {trial.number for trial in best_of_network.values()}
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


SEGMENTATION_RESULTS: TaskResults = SegmentationResults()
