"""The results of classifiers: the evaluation of a run; leaderboard and sections of a study's report."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from fissura.classification.evaluation import CONDITIONS, evaluate_classifier, under
from fissura.classification.run import Classifier
from fissura.core import text
from fissura.core.brief import Rows
from fissura.core.errors import DataError, SpecError, UserError
from fissura.core.progress import Say
from fissura.data.cache import default_cache
from fissura.data.labelled import KeyedImage, image_keys, parse_labelled
from fissura.data.labelled.keys import digest_of_keyed
from fissura.data.sources import labelled
from fissura.records.class_store import ClassifierFacts, ClassRecord, read_classes
from fissura.records.run_table import Runs
from fissura.records.study_ranking import finished
from fissura.reports.class_gallery import class_gallery
from fissura.reports.classification import ClassRow, class_table
from fissura.reports.classification_export import found, sections, write_classification
from fissura.reports.classification_plots import Candidate, confusion_plot, pareto_plots, progress_plot
from fissura.reports.cross_data import cross_data, scores_of_classes
from fissura.reports.figures import Plot
from fissura.reports.html import part
from fissura.reports.run_sections import RunSections
from fissura.reports.task_leaderboard import TaskLeaderboard
from fissura.studies.database import DATABASE
from fissura.studies.study import PLAN, Plan, Study
from fissura.studies.task_results import EvaluationTerms, RankedRuns, TaskResults
from fissura.tasks.classification.leaderboard import ClassLeaderboard
from fissura.training.checkpoint import WEIGHTS
from fissura.training.runtime import LocalRuntime

if TYPE_CHECKING:
    import optuna

TARGET_BYTES = 100_000
"""The paper's bound on the size of its classifier."""


@dataclass(frozen=True)
class ClassificationResults:
    """See `TaskResults`. `pictures` join the report's. `images` are those of the study's data; None: they are
    looked for, and a line says so where they are gone."""

    images: Sequence[KeyedImage] | None = None
    pictures: Sequence[Plot] = ()

    def evaluate(self, run: Path, terms: EvaluationTerms) -> Rows[ClassRow]:
        """See `TaskResults`: one row for each condition; names unreadable images through `say`."""
        if terms.split == "val" or terms.protocols or terms.threshold is not None:
            raise SpecError(
                f"{run}: of a classifier, --split is train or test, and --condition its only other option"
            )
        images = image_keys(parse_labelled(terms.data), directory=terms.cache)
        content, conditions = digest_of_keyed(images), terms.conditions or ("clean",)
        unread = evaluate_classifier(
            run,
            images,
            content=content,
            split=terms.split,
            conditions=conditions,
            device=LocalRuntime().device,
            on_image=terms.on_image,
        )
        for skipped in unread:
            terms.say(f"left out: {skipped.reason}")
        rows = class_table(read_classes([run]).records)
        scored = [
            row for row in rows if row.test_set[1:] == (content, terms.split) and row.condition in conditions
        ]
        return Rows(scored, head=_scores, run=run)

    def board(self, paths: Sequence[Path], *, say: Say) -> TaskLeaderboard:
        """See `TaskResults`."""
        return ClassLeaderboard(tuple(class_table(_read(paths, say=say).records)))

    def rank(self, study: Study, plan: Plan, trials: "optuna.Study", *, say: Say) -> RankedRuns:
        """See `TaskResults`."""
        runs = _read([study.path], say=say)
        all_rows = class_table(runs.records)
        rows = [row for row in all_rows if row.test_set.data_digest == plan.content]
        others = [row for row in all_rows if row.test_set.data_digest != plan.content]
        title = f"Classifiers of {plan.name}"
        files = write_classification(rows, study.path, name="leaderboard", title=title)
        plots: dict[str, Sequence[Plot]] = {}
        shown = [confusion_plot(row.confusion, classes=row.classes) for row in rows[:1]]
        plots["On test images"] = [*shown, *self.pictures]
        plots["Progress"] = [_progress(trials, study, plan)]
        candidates = _candidates(trials)
        if candidates:
            plots["What it costs"] = pareto_plots(candidates, limits={"bytes": TARGET_BYTES})
        gallery = [_gallery(plan, rows, runs.records, self.images)] if rows else []
        return RankedRuns(
            files=files,
            board=ClassLeaderboard(tuple(rows)),
            sections=RunSections(
                held_out=[*sections(rows), *gallery],
                found=found(rows) if rows else "",
                plots=plots,
                cross_data=cross_data(scores_of_classes(rows), scores_of_classes(others)),
            ),
        )


def _read(paths: Sequence[Path], *, say: Say) -> Runs[ClassifierFacts]:
    runs = read_classes(paths)
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    return runs


def _scores(rows: Sequence[ClassRow]) -> list[str]:
    return [
        f"{row.data} {row.test_set.split}, {row.condition}: F1 {row.scores['f1'].value:.4f} of"
        f" {row.images} images"
        for row in rows
        if "f1" in row.scores
    ]


def _gallery(
    plan: Plan,
    rows: Sequence[ClassRow],
    records: Sequence[ClassRecord],
    images: Sequence[KeyedImage] | None,
) -> Markup:
    try:
        known = image_keys(labelled(plan.datasets), directory=default_cache()) if images is None else images
    except DataError as error:
        return part("absent", f"No pictures: {error.problems[0]}")
    by_name = {(record.source, record.image.name): record for record in known}

    def load(dataset: str, name: str, condition: str) -> UInt8[np.ndarray, "h w 3"]:
        return under(by_name[dataset, name], condition=condition)

    leader = next((record for record in records if record.manifest.run_id == rows[0].run_ids[0]), None)
    classify = None
    if leader is not None and (leader.directory / WEIGHTS).is_file():
        classify = partial(_class_of, Classifier.open(leader.directory, device=LocalRuntime().device))
    return class_gallery(rows, records, conditions=CONDITIONS, load=load, judge=classify)


def _class_of(classifier: Classifier, image: UInt8[np.ndarray, "h w 3"]) -> int:
    return int(classifier([image])[0][0])


def _progress(trials: "optuna.Study", study: Study, plan: Plan) -> Plot:
    """The best value so far by trial, with that of every study beside this one that had the same goal."""
    histories: dict[str, list[float]] = {study.path.name: _values(trials)}
    goal = _goal(study, plan)
    for plan_file in sorted(study.path.parent.glob(f"*/{PLAN}")):
        other = Study(plan_file.parent)
        # another study that is damaged is no fault of this one
        with suppress(UserError):
            searched = other.path != study.path and (other.path / DATABASE).is_file()
            if searched and _goal(other, other.plan()) == goal:
                histories[other.path.name] = _values(other.load())
    return progress_plot(histories, score=goal[1][0])


def _goal(study: Study, plan: Plan) -> tuple[str, list[str]]:
    """The data of a study, and its objectives."""
    return plan.content, [objective.metric for objective in plan.load_space(study.path).objectives]


def _values(trials: "optuna.Study") -> list[float]:
    return [trial.values[0] for trial in finished(trials) if trial.values]


def _candidates(trials: "optuna.Study") -> list[Candidate]:
    """Every completed trial whose size and time were measured."""
    candidates, trials_done = [], finished(trials)
    short = text.shortened(name for trial in trials_done for name in trial.params)
    for trial in trials_done:
        measures: Mapping[str, float] = trial.user_attrs
        if trial.values and {"cv/f1", "bytes", "microseconds"} <= measures.keys():
            parameters = (f"{short[name]} = {value}" for name, value in trial.params.items())
            candidates.append(
                Candidate(
                    label="<br>".join([f"trial {trial.number}", *parameters]),
                    f1=measures["cv/f1"],
                    bytes=measures["bytes"],
                    microseconds=measures["microseconds"],
                )
            )
    return candidates


CLASSIFICATION_RESULTS: TaskResults = ClassificationResults()
