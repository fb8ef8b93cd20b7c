"""The judgement of a run on a data set: one probability map an image, counted under every protocol.

A threshold is chosen on the validation images of the run's own data, never on test images.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fissura.core.errors import DataError
from fissura.core.files import replacing, write_json
from fissura.data.content import content_digest, sources
from fissura.data.dataset import Dataset
from fissura.data.sample import Split
from fissura.engine.predict import Predictor
from fissura.engine.recipe import Given, Recipe
from fissura.engine.run import read_manifest
from fissura.metrics import AnyProtocol
from fissura.metrics.counts import Counts, crack_pixels, pool
from fissura.metrics.false_alarms import FalseAlarm, false_alarm
from fissura.metrics.scores import best_threshold, level_of
from fissura.results.store import Row, ThresholdSource, prediction_path, write_run

THRESHOLDS = "thresholds.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Counted:
    """One image: its size, its labelled pixels among the valid ones, and its counts under each protocol; its
    false alarms at each threshold, where it holds no crack."""

    dataset: str
    name: str
    height: int
    width: int
    crack_pixels: int
    counts: tuple[Counts, ...]
    alarms: tuple[FalseAlarm, ...]


def evaluate(
    run: Path,
    *,
    datasets: Sequence[Dataset],
    protocols: Sequence[AnyProtocol] = (),
    split: Split = "test",
    threshold: float | None = None,
    device: torch.device,
    on_image: Progress | None = None,
) -> list[Row]:
    """Scores a run under each protocol (its recipe's own where none is given), one row an image and protocol.

    The rows are merged into the run's `run.parquet`; the maps stay in its `predictions/`.

    Raises:
        DataError: no finished run, no images in the split, bad images (all are named), a threshold that is
        no probability, or none to be had.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise DataError(f"a threshold is a probability, 0 to 1, not {threshold}; give another, or none")
    manifest = read_manifest(run)
    predictor = Predictor.open(run, device=device)
    recipe, content = predictor.recipe, content_digest(datasets)
    chosen = tuple(dict.fromkeys(protocols or recipe.protocols))
    source: ThresholdSource = "given"
    if threshold is not None:
        thresholds = [threshold] * len(chosen)
    elif isinstance(recipe.threshold, Given):
        source, thresholds = "recipe", [recipe.threshold.value] * len(chosen)
    else:
        own = datasets if content == manifest.data.digest else ()
        source, thresholds = "validation", _thresholds(predictor, run, chosen, own=own)
    rows = [
        _row(
            image,
            place,
            protocol,
            at,
            run_id=manifest.run_id,
            recipe=recipe.name,
            configuration=recipe.configuration,
            seed=recipe.seed,
            data_digest=content,
            split=split,
            threshold_source=source,
        )
        for image in _count(
            predictor,
            datasets,
            chosen,
            thresholds,
            split=split,
            keep=run,
            content=content,
            on_image=on_image,
        )
        for place, (protocol, at) in enumerate(zip(chosen, thresholds, strict=True))
    ]
    write_run(run, rows, manifest)
    return rows


def threshold_of(run: Path, recipe: Recipe) -> float:
    """The recipe's threshold, or the one that was chosen for the first of its protocols.

    Raises:
        DataError: none was chosen yet.
    """
    if isinstance(recipe.threshold, Given):
        return recipe.threshold.value
    path, protocol = run / THRESHOLDS, str(recipe.protocols[0])
    kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if protocol not in kept:
        raise DataError(
            f"{run}: the threshold for {protocol} is chosen on the run's validation images when it is first"
            " evaluated; run `fissura evaluate` on it, or give --threshold"
        )
    return kept[protocol]


def _thresholds(
    predictor: Predictor, run: Path, protocols: Sequence[AnyProtocol], *, own: Sequence[Dataset]
) -> list[float]:
    """The threshold of each protocol, chosen once on the validation images of `own` and kept with the run."""
    path = run / THRESHOLDS
    kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    missing = [protocol for protocol in protocols if str(protocol) not in kept]
    if missing:
        if not own:
            names = ", ".join(map(str, missing))
            raise DataError(
                f"{run}: a threshold for {names} is chosen on the validation images of the run's own data,"
                f" which this is"
                " not; evaluate the run on its own data first, or give --threshold"
            )
        images = list(_count(predictor, own, missing, (), split="val", keep=None, content="", on_image=None))
        if not any(image.crack_pixels for image in images):
            raise DataError(
                f"{', '.join(map(str, own))}: a threshold is chosen on validation images with a crack, and"
                f" the masks of the {len(images)} val images hold none; give --threshold"
            )
        for place, protocol in enumerate(missing):
            kept[str(protocol)] = best_threshold(pool(image.counts[place] for image in images))
        write_json(path, kept)
    return [kept[str(protocol)] for protocol in protocols]


def _count(
    predictor: Predictor,
    datasets: Sequence[Dataset],
    protocols: Sequence[AnyProtocol],
    thresholds: Sequence[float],
    *,
    split: Split,
    keep: Path | None,
    content: str,
    on_image: Progress | None,
) -> Iterator[Counted]:
    """Predicts and counts the images of a split one by one; the maps are written below the run `keep`, if
    given."""
    work = [source for source in sources(datasets) if source.sample.split == split]
    if not work:
        roots = ", ".join(str(dataset.root) for dataset in datasets)
        raise DataError(f"{roots}: no {split} images; name another --split, or a data set that has them")
    problems: list[str] = []
    with ThreadPoolExecutor(1) as reader:
        # one image is read ahead while another is predicted
        readings = iter(work)
        ahead = reader.submit(next(readings).read)
        for number, source in enumerate(work, start=1):
            reading = ahead
            following = next(readings, None)
            if following is not None:
                ahead = reader.submit(following.read)
            try:
                image, mask, valid = reading.result()
            except DataError as error:
                problems += error.problems
                continue
            probability = predictor(image)
            if keep is not None:
                path = prediction_path(
                    keep, dataset=source.label, data_digest=content, split=split, image=source.sample.name
                )
                with replacing(path) as scratch:
                    Image.fromarray(probability).save(scratch, format="PNG")
            counts = tuple(protocol.count(probability, mask, valid) for protocol in protocols)
            height, width = mask.shape
            cracked = crack_pixels(mask, valid)
            levels = [] if cracked else [level_of(threshold) for threshold in thresholds]
            alarms = tuple(false_alarm(probability, valid, level=level) for level in levels)
            yield Counted(source.label, source.sample.name, height, width, cracked, counts, alarms)
            if on_image is not None:
                on_image(number, len(work))
    if problems:
        raise DataError(*problems)


def _row(
    image: Counted,
    place: int,
    protocol: AnyProtocol,
    threshold: float,
    *,
    run_id: str,
    recipe: str,
    configuration: str,
    seed: int,
    data_digest: str,
    split: Split,
    threshold_source: ThresholdSource,
) -> Row:
    """The row of an image under the protocol at `place` among those that it was counted under."""
    counts, level = image.counts[place], level_of(threshold)
    alarm = image.alarms[place] if image.alarms else None
    scores = protocol.score(counts, level)
    curves = (
        {f"curve_{name}": values.astype(np.int32) for name, values in vars(counts).items()}
        if protocol.swept
        else {}
    )
    return Row(
        run_id=run_id,
        recipe=recipe,
        configuration=configuration,
        seed=seed,
        dataset=image.dataset,
        data_digest=data_digest,
        split=split,
        protocol=str(protocol),
        threshold=threshold,
        threshold_source=threshold_source,
        image=image.name,
        height=image.height,
        width=image.width,
        true_positive=int(counts.true_positive[level]),
        false_positive=int(counts.false_positive[level]),
        found=int(counts.found[level]),
        missed=int(counts.missed[level]),
        precision=scores.precision,
        recall=scores.recall,
        f1=scores.f1,
        dice=scores.dice,
        iou=scores.iou,
        crack_pixels=image.crack_pixels,
        alarm_components=alarm.components if alarm else None,
        alarm_area=alarm.area if alarm else None,
        **curves,
    )
