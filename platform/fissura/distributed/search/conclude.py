"""The end of a search: the best runs judged on held-out images, then leaderboard and report."""

from pathlib import Path
from typing import Any

import optuna
import ray

from fissura.core.errors import UserError
from fissura.core.progress import Say
from fissura.distributed.preflight import Slots
from fissura.distributed.search.trial import TrialContext
from fissura.records import store
from fissura.records.run_files import MANIFEST
from fissura.segmentation.evaluation import evaluate
from fissura.studies.results import Conclusion, drop_checkpoints, write_results
from fissura.studies.study import Study, runs_to_keep
from fissura.training.runtime import LocalRuntime

EVALUATED_RUNS = 3


def conclude(study: Study, trials: optuna.Study, *, slots: Slots, say: Say) -> Conclusion:
    """Evaluates the best runs and the paper's own on the test images, and writes leaderboard and report."""
    drop_checkpoints(study, trials)
    plan = study.plan()
    waiting = [
        study.runs / run
        for run in runs_to_keep(trials, best=EVALUATED_RUNS)
        if (study.runs / run / MANIFEST).is_file() and not (study.runs / run / store.FILE).is_file()
    ]
    if waiting:
        say(f"evaluating {len(waiting)} runs on the test images")
    task = ray.remote(num_cpus=slots.cpus, num_gpus=slots.gpus)(_evaluate)
    context = TrialContext(
        study=study.path, datasets=plan.datasets, content=plan.content, cache=study.path, cpus=slots.cpus
    ).plain()
    # what is wrong with the data is wrong for each run: it is said once
    for problem in dict.fromkeys(ray.get([task.remote(context, str(run)) for run in waiting])):
        if problem:
            say(problem)
    return write_results(study, trials, say=say)


def _evaluate(context: dict[str, Any], run: str) -> str:
    """A Ray task: evaluates one run; gives what went wrong, or nothing."""
    plan = TrialContext.load(context, source="evaluation context")
    try:
        evaluate(
            Path(run),
            datasets=plan.datasets,
            content=plan.content,
            device=LocalRuntime(cpus=plan.cpus).device,
        )
    except UserError as error:
        return str(error)
    return ""
