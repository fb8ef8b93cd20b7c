"""The results of a study: leaderboard and report of the evaluated runs."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fissura.core.progress import Say
from fissura.data.sources import called, described
from fissura.records.run_files import MANIFEST, forget, read_manifest
from fissura.records.study_ranking import Ranking, runs_to_keep
from fissura.records.trial_attributes import PAPER, RUN
from fissura.reports.report import StudyFacts, write_report
from fissura.reports.task_leaderboard import TaskLeaderboard
from fissura.studies.study import Plan, Study
from fissura.studies.task_results import TaskResults
from fissura.training.checkpoint import STATE, WEIGHTS

if TYPE_CHECKING:
    import optuna

KEPT_RUNS = 10
REPORT = "report.html"


@dataclass(frozen=True)
class Conclusion:
    """Where the results of a study are, and its leaderboard."""

    files: tuple[Path, ...]
    board: TaskLeaderboard


def write_results(
    study: Study, trials: "optuna.Study", *, results: TaskResults | None = None, say: Say
) -> Conclusion:
    """Writes leaderboard and report of what has been evaluated; `results` are those of the study's task,
    where who asks knows more than the study's folder tells. Without the images no picture is drawn."""
    plan = study.plan()
    results = results or plan.task(study.path).results
    ranked = results.rank(study, plan, trials, say=say)
    facts = study_facts(study, trials, plan)
    report = write_report(
        trials,
        study.path / REPORT,
        title=f"{plan.name}: search report",
        extra=replace(
            facts,
            data=". ".join(filter(None, (facts.data, ranked.remark))),
            runs=ranked.sections,
        ),
    )
    return Conclusion((*ranked.files, report), ranked.board)


def drop_checkpoints(study: Study, trials: "optuna.Study") -> None:
    """Removes the weights of all ended trials but the best ones, so that a long search does not fill the
    disk."""
    kept = set(runs_to_keep(trials, best=KEPT_RUNS)) | _open_runs(trials)
    for trial in trials.get_trials(deepcopy=False):
        if trial.state.is_finished() and RUN in trial.user_attrs and trial.user_attrs[RUN] not in kept:
            _drop(study, trial.user_attrs[RUN])


class Checkpoints:
    """`drop_checkpoints` as trials end, without a scan of all earlier trials."""

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

    open_trials = trials.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
    return {trial.user_attrs.get(RUN, "") for trial in open_trials}


def _drop(study: Study, run: str) -> None:
    forget(study.runs / run, (WEIGHTS, STATE))


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
