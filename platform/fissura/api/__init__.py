"""The verbs of fissura, as functions: what the command line calls, and what a notebook can.

A path is a string or a `Path`; a data set is `KIND:ROOT`, its object, or the `Path` of a folder; arguments
that take several also take one. A protocol is text such as `tolerant:2`; recipes and search spaces go by name
or path. Results print in a few lines, and `to_pandas()` returns their rows. Each verb raises a `UserError`
for what the caller can fix, before it writes anything.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fissura.api.arguments import (
    AnyPath,
    Data,
    Words,
    fixed_of,
    maybe_path,
    named_in,
    parse_protocols,
    path_of,
    words_of,
)
from fissura.api.batches import batch
from fissura.api.classifiers import class_leaderboard, classify, interference, train_classifier
from fissura.api.dashboards import dashboard
from fissura.api.datasets import check, prepare, prune
from fissura.api.demos import demo
from fissura.api.diagnosis import doctor
from fissura.api.drills import drill
from fissura.api.evaluation import evaluate, leaderboard
from fissura.api.nodes import spot_watch
from fissura.api.planning import plan
from fissura.api.serving import rollout, serve
from fissura.api.studies import repair, report, verify
from fissura.core.files import check_writable
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.deploy.export import Bundle
    from fissura.distributed.preflight import Hardware
    from fissura.distributed.search.search_result import SearchResult
    from fissura.records.trained import Trained
    from fissura.reports.score import ScoreReport

Count = Callable[[int, int], None]


def search(
    space: AnyPath | None = None,
    *,
    data: Data = (),
    storage: AnyPath = Path("studies"),
    trials: int | None = None,
    name: str | None = None,
    profile: str = "auto",
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    begin: Literal["new", "resume"] = "new",
    extend: int = 0,
    sweep: int | None = None,
    over: Words = (),
    objectives: Words = (),
    hardware: "Hardware | None" = None,
    trial_timeout: float | None = None,
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "SearchResult":
    """Searches `space` for the best recipe on `data`; the study is the folder `storage/name`.

    "resume" resumes a study as planned; `extend` adds that many trials to it. `profile` "auto" takes the
    space's `cpu` profile on a machine without a GPU, else its `gpu` profile.

    `sweep` varies one parameter at a time from the paper's own point: that many values of each range, and
    each choice's other values, of all parameters or of those at the paths `over`. A new study then has these
    trials and the paper's own; a resumed one gets those that it lacks. `objectives` are metrics that replace
    the space's own; with several, every trial runs to its end.

    A trial that finishes no epoch for `trial_timeout` seconds fails; by default ten times the longest epoch
    so far, ten minutes at least. For classifiers the timeout is that of one setting, by default an hour.
    Calls `on_image` with the number of prepared images and their total.
    """
    from fissura.distributed.environment import check_temporary_folder, prepare_environment
    from fissura.spaces.load import check_profile

    if space is not None and begin == "new" and not extend:
        check_profile(space, profile)
    check_temporary_folder(hardware.address if hardware else None)
    prepare_environment(hardware.address if hardware else None)
    from fissura.distributed.preflight import Hardware
    from fissura.distributed.search.search import run_search
    from fissura.studies.plan import Request

    request = Request(
        space=None if space is None else str(space),
        data=named_in(data),
        storage=path_of(storage),
        trials=trials,
        name=name,
        profile=profile,
        fixed=fixed_of(fixed),
        seed=seed,
        begin=begin,
        extend=extend,
        sweep=sweep,
        over=words_of(over),
        objectives=words_of(objectives),
    )
    return run_search(
        request,
        hardware=hardware or Hardware(),
        cache=maybe_path(cache),
        say=say,
        trial_timeout=trial_timeout,
        on_image=on_image,
    )


def train(
    recipe: AnyPath,
    *,
    data: Data,
    storage: AnyPath = Path("studies"),
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 1,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    cache: AnyPath | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
    on_image: Count | None = None,
    say: Say = silent,
) -> "Trained":
    """Trains one recipe; returns its run directory (named by its content, below `storage/runs`) and manifest.

    A finished run is not trained again; an interrupted one resumes. With several `workers`, Ray Train splits
    each step's batch among them. Calls `on_image` with the number of prepared images and their total, and,
    with one worker, `on_epoch` with each epoch's record (`epochs` is their total). Reports through `say` the
    cracks lost at the working size, and the skipped images of a classifier.
    """
    from fissura.core.tasks import task_named
    from fissura.data.cache import default_cache
    from fissura.distributed.training.task_training import TrainingTerms
    from fissura.recipes import load_recipe
    from fissura.spaces.fields import override

    chosen = override(load_recipe(str(recipe)), {**fixed_of(fixed), "seed": seed})
    root = path_of(storage).resolve()
    check_writable(root)
    terms = TrainingTerms(
        data=named_in(data),
        storage=root,
        cache=maybe_path(cache) or default_cache(),
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
        say=say,
        on_epoch=on_epoch,
        on_image=on_image,
    )
    return task_named(chosen.task).training(chosen, terms)


def score(
    predictions: AnyPath,
    masks: AnyPath,
    *,
    protocol: str,
    threshold: float = 0.5,
    valid: AnyPath | None = None,
    mask_threshold: int | None = None,
    name: str | None = None,
    on_image: Count | None = None,
) -> "ScoreReport":
    """Scores anyone's probability maps (8-bit PNGs) against masks of the same names; `name` names the data in
    the result. In grey masks, values above `mask_threshold` (0..254) are crack."""
    from fissura.metrics import parse_protocol
    from fissura.reports.score import score_folders

    return score_folders(
        path_of(predictions),
        path_of(masks),
        protocol=parse_protocol(protocol),
        threshold=threshold,
        valid=maybe_path(valid),
        mask_threshold=mask_threshold,
        name=name,
        on_image=on_image,
    )


def export(
    run: AnyPath,
    *,
    to: Literal["onnx"] = "onnx",
    out: AnyPath,
    quantise: Literal["none", "int8"] = "none",
    threshold: float | None = None,
) -> "Bundle":
    """Writes a run to the new folder `out` as ONNX, with scripts that need onnxruntime, NumPy and Pillow.

    "int8" adds a copy of the network with int8 weights. `threshold` is a segmentation's; by default the
    recipe's, or the one that its evaluation chose.
    """
    from fissura.deploy.export import export_run

    return export_run(
        path_of(run).resolve(), out=path_of(out).resolve(), quantise=quantise, threshold=threshold
    )


__all__ = [
    "batch",
    "check",
    "class_leaderboard",
    "classify",
    "dashboard",
    "demo",
    "doctor",
    "drill",
    "evaluate",
    "export",
    "interference",
    "leaderboard",
    "parse_protocols",
    "plan",
    "prepare",
    "prune",
    "repair",
    "report",
    "rollout",
    "score",
    "search",
    "serve",
    "spot_watch",
    "train",
    "train_classifier",
    "verify",
]
