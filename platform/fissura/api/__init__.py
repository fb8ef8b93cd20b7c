"""The verbs of fissura, as functions: what the command line calls, and what a notebook can.

Data sets are named `KIND:ROOT`, protocols `tolerant:2`, recipes and search spaces by name or path. Each verb
raises a `UserError` for what the caller can mend, before anything is written.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fissura.api.batches import batch
from fissura.api.classifiers import class_leaderboard, classify, interference, train_classifier
from fissura.api.dashboards import dashboard
from fissura.api.diagnosis import doctor
from fissura.api.drills import drill
from fissura.api.nodes import spot_watch
from fissura.api.planning import plan
from fissura.api.serving import rollout, serve
from fissura.core.errors import DataError
from fissura.core.files import check_writable
from fissura.data.sample import Split

if TYPE_CHECKING:
    from fissura.engine.export import Bundle
    from fissura.jobs.outcome import SearchResult
    from fissura.jobs.preflight import Hardware
    from fissura.metrics import AnyProtocol
    from fissura.results.leaderboard import Leaderboard
    from fissura.results.manifest import Manifest
    from fissura.results.score import ScoreReport
    from fissura.results.store import Row

Say = Callable[[str], None]
Count = Callable[[int, int], None]


def silent(_: str) -> None:
    """Says nothing."""


def search(
    space: str | Path | None = None,
    *,
    data: Sequence[str] = (),
    storage: Path = Path("studies"),
    trials: int | None = None,
    name: str | None = None,
    profile: str = "auto",
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    begin: Literal["new", "resume"] = "new",
    extend: int = 0,
    sweep: int | None = None,
    over: Sequence[str] = (),
    objectives: Sequence[str] = (),
    hardware: "Hardware | None" = None,
    trial_timeout: float | None = None,
    cache: Path | None = None,
    say: Say = silent,
    on_image: Count | None = None,
) -> "SearchResult":
    """Searches `space` for the best recipe on `data`; the study is the folder `storage/name`.

    "resume" goes on with a study as it was planned; `extend` adds that many trials to it. `profile` "auto"
    takes the space's `cpu` profile on a machine without a GPU, else its `gpu` profile.

    `sweep` varies one parameter at a time from the paper's own point: that many values of each range, and
    each choice's other values, of all parameters or of those at the paths `over`. A new study then has these
    trials and the paper's own; one that is resumed gets those that it lacks. `objectives` are metrics that
    take the place of the space's own; with several, every trial runs to its end.

    A trial that finishes no epoch for `trial_timeout` seconds is ended as a failure; by default ten times the
    longest epoch so far, ten minutes at least; of classifiers a setting that is not judged in so long, by
    default an hour. `on_image` is told how many images are prepared, and of how many.
    """
    from fissura.jobs.environment import prepare_environment

    prepare_environment(hardware.address if hardware else None)
    from fissura.jobs.preflight import Hardware
    from fissura.jobs.search import run_search
    from fissura.studies.plan import Request

    request = Request(
        space=None if space is None else str(space),
        data=tuple(data),
        storage=storage,
        trials=trials,
        name=name,
        profile=profile,
        fixed=dict(fixed or {}),
        seed=seed,
        begin=begin,
        extend=extend,
        sweep=sweep,
        over=tuple(over),
        objectives=tuple(objectives),
    )
    return run_search(
        request,
        hardware=hardware or Hardware(),
        cache=cache,
        say=say,
        trial_timeout=trial_timeout,
        on_image=on_image,
    )


def train(
    recipe: str | Path,
    *,
    data: Sequence[str],
    storage: Path = Path("studies"),
    fixed: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 1,
    cpus_per_worker: int | None = None,
    address: str | None = None,
    cache: Path | None = None,
    on_epoch: Callable[[dict[str, Any]], None] = lambda _: None,
    on_image: Count | None = None,
    say: Say = silent,
) -> "tuple[Path, Manifest]":
    """Trains one recipe; gives its run directory (named by its content, below `storage/runs`) and manifest.

    A run that stands there already is not trained again; an interrupted one goes on. With several `workers`,
    Ray Train shares each step's batch among them. `on_image` is told how many images are prepared, and of how
    many; `on_epoch`, where there is one worker, gets each epoch's record, with `epochs`: of how many. Of a
    classifier, `say` is told what becomes of its images.
    """
    from fissura.data.cache import default_cache
    from fissura.data.content import content_digest
    from fissura.data.datasets import parse_datasets
    from fissura.data.trainable import prepare_training
    from fissura.engine.fit import fit
    from fissura.engine.recipe import segmenter_of
    from fissura.engine.runtime import LocalRuntime
    from fissura.models import check_weights
    from fissura.recipes import load_recipe
    from fissura.studies.paths import override

    asked = override(load_recipe(str(recipe)), {**(fixed or {}), "seed": seed})
    storage = storage.expanduser().resolve()
    check_writable(storage)
    folder = cache or default_cache()
    if asked.task == "classification":
        return train_classifier(
            asked,
            data=data,
            storage=storage,
            cache=folder,
            workers=workers,
            cpus_per_worker=cpus_per_worker,
            address=address,
            say=say,
        )
    chosen, datasets = segmenter_of(asked), parse_datasets(data)
    check_weights(chosen.model)
    prepare_training(datasets, resize=chosen.data.resize, directory=folder, on_sample=on_image)
    content = content_digest(datasets, directory=folder)
    run = storage / "runs" / chosen.run_id(content)
    if workers == 1 and address is None:
        runtime = LocalRuntime(cpus=cpus_per_worker)

        def counted(record: dict[str, Any]) -> None:
            on_epoch({**record, "epochs": chosen.epochs})

        return run, fit(chosen, datasets=datasets, run=run, cache=folder, runtime=runtime, on_epoch=counted)
    from fissura.jobs.environment import prepare_environment

    prepare_environment(address)
    from fissura.jobs.train import train_on_workers

    manifest = train_on_workers(
        chosen,
        datasets=datasets,
        content=content,
        run=run,
        cache=folder,
        workers=workers,
        cpus_per_worker=cpus_per_worker,
        address=address,
    )
    return run, manifest


def evaluate(
    run: Path,
    *,
    data: Sequence[str],
    protocols: Sequence[str] = (),
    split: Split = "test",
    threshold: float | None = None,
    on_image: Count | None = None,
) -> "list[Row]":
    """Scores a run on a split, by default under its recipe's own protocols; one row an image and protocol."""
    from fissura.data.datasets import parse_datasets
    from fissura.engine.evaluate import evaluate as evaluate_run
    from fissura.engine.runtime import LocalRuntime

    return evaluate_run(
        run.resolve(),
        datasets=parse_datasets(data),
        protocols=parse_protocols(protocols),
        split=split,
        threshold=threshold,
        device=LocalRuntime().device,
        on_image=on_image,
    )


def score(
    predictions: Path,
    masks: Path,
    *,
    protocol: str,
    threshold: float = 0.5,
    valid: Path | None = None,
    on_image: Count | None = None,
) -> "ScoreReport":
    """Scores anyone's probability maps (8-bit PNGs) against masks of the same names."""
    from fissura.metrics import parse_protocol
    from fissura.results.score import score_folders

    return score_folders(
        predictions,
        masks,
        protocol=parse_protocol(protocol),
        threshold=threshold,
        valid=valid,
        on_image=on_image,
    )


def leaderboard(paths: Sequence[Path], *, say: Say = silent) -> "Leaderboard":
    """The ranking of all evaluated runs below `paths`; files that are no runs are named through `say`."""
    from fissura.results.class_store import read_classes
    from fissura.results.leaderboard import leaderboard as rank
    from fissura.results.store import read_runs

    missing = [path for path in paths if not path.exists()]
    if missing:
        raise DataError(*(f"{path}: does not exist; name a study, or a folder of them" for path in missing))
    runs = read_runs(paths)
    for skipped in runs.skipped:
        say(f"skipped {skipped.path}: {skipped.reason}")
    if not runs.records and not read_classes(paths).records:
        raise DataError(
            f"{', '.join(map(str, paths))}: no evaluated run lies there; run `fissura evaluate` on one, or"
            " search first"
        )
    return rank(runs.records)


def report(study: Path, *, say: Say = silent) -> Path:
    """Writes the report of a study as one HTML file, and gives its path."""
    from fissura.studies.results import REPORT, write_results
    from fissura.studies.study import find_study

    found = find_study(study)
    write_results(found, found.load(), say=say)
    return found.path / REPORT


def export(
    run: Path,
    *,
    to: Literal["onnx"] = "onnx",
    out: Path,
    quantise: Literal["none", "int8"] = "none",
    threshold: float | None = None,
) -> "Bundle":
    """Writes a run to the new folder `out` as ONNX, with scripts that need onnxruntime and NumPy alone.

    "int8" adds a copy of the network with int8 weights. `threshold` is a segmentation's; by default the
    recipe's, or the one that its evaluation chose.
    """
    from fissura.engine.export import export_run

    return export_run(
        run.expanduser().resolve(), out=out.expanduser().resolve(), quantise=quantise, threshold=threshold
    )


def demo(directory: Path = Path("demo"), *, trials: int = 8, say: Say = silent) -> "SearchResult":
    """Draws synthetic cracks, searches the recipe `small_unet` on them, ranks and reports, below `directory`.

    What stands there already is not drawn or trained again.
    """
    from fissura.data.synthetic import SyntheticSpec, write
    from fissura.studies.study import Study

    images = directory / "images"
    write(SyntheticSpec(), images)
    begun = Study((directory / "studies" / "demo").resolve())
    known = begun.plan().trials if begun.exists else 0
    return search(
        "small_unet",
        data=() if begun.exists else (f"synthetic:{images}",),
        storage=directory / "studies",
        name="demo",
        trials=None if begun.exists else trials,
        begin="resume" if begun.exists else "new",
        extend=max(0, trials - known) if begun.exists else 0,
        profile="auto" if begun.exists else "demo",
        cache=directory / "cache",
        say=say,
    )


def parse_protocols(texts: Sequence[str]) -> "tuple[AnyProtocol, ...]":
    """The protocols of these names."""
    from fissura.metrics import parse_protocol

    return tuple(parse_protocol(text) for text in texts)


__all__ = [
    "batch",
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
    "report",
    "rollout",
    "score",
    "search",
    "serve",
    "spot_watch",
    "train",
    "train_classifier",
]
