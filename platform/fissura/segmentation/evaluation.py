"""Scores a run on a data set: one probability map an image, counted under every protocol.

A threshold is chosen on the validation images of the run's own data, never on test images.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fissura.core.documents import read_json
from fissura.core.errors import DataChanged, DataError
from fissura.core.files import check_writable
from fissura.core.rules import no_probability
from fissura.core.spec import MOST_VALUES
from fissura.data.content import FileHashes, change_lines, digest_of, missing_folders, require_same, sources
from fissura.data.dataset import Dataset
from fissura.data.sample import Split
from fissura.metrics import AnyProtocol
from fissura.metrics.counts import pool
from fissura.metrics.scores import best_threshold, level_of
from fissura.records.run_files import REMEDIES, check_files, read_manifest, rewriting, write_sums
from fissura.records.store import Row, ThresholdSource, prediction_folder, write_run
from fissura.segmentation.counting import CountedImage, Judged, Progress, count_images
from fissura.segmentation.predict import Predictor
from fissura.segmentation.recipe import Given, Recipe

THRESHOLDS = "thresholds.json"


def evaluate(
    run: Path,
    *,
    datasets: Sequence[Dataset],
    protocols: Sequence[AnyProtocol] = (),
    split: Split = "test",
    threshold: float | None = None,
    device: torch.device,
    content: str | None = None,
    on_image: Progress | None = None,
) -> list[Row]:
    """Scores a run under each protocol (by default its recipe's), one row an image and protocol. `content` is
    the digest that the data must have, where it is known.

    The rows are merged into the run's `run.parquet`; the unstretched maps are kept in its `predictions/`.
    Under the protocol that a recipe stretches its maps for, the stretched maps are scored.

    Raises:
        DataError: no finished run, or one that cannot be written; no images in the split; bad images (all are
        named); a threshold outside 0..1, or none available.
        DataChanged: the data are not those of `content`, or changed meanwhile; no row is written.
    """
    if threshold is not None and (wrong := no_probability(threshold)):
        raise DataError(wrong)
    if content is not None and (lost := missing_folders(datasets)):
        raise DataChanged(*lost)
    check_writable(run)
    manifest = read_manifest(run)
    predictor = Predictor.open(run, device=device)
    recipe, hashes, images = predictor.recipe, FileHashes(None), sources(datasets)
    held = digest_of(images, hashes.of(path for image in images for path in image.files))
    require_same(datasets, held=held, content=content or held)
    content = held
    chosen = tuple(dict.fromkeys(protocols or recipe.protocols))
    source: ThresholdSource = "given"
    if threshold is not None:
        thresholds = [threshold] * len(chosen)
    elif isinstance(recipe.threshold, Given):
        source, thresholds = "recipe", [recipe.threshold.value] * len(chosen)
    else:
        own = datasets if content == manifest.data.digest else ()
        mismatch = f"this is {content}, and the run's own is {manifest.data.digest}"
        source = "validation"
        thresholds = _thresholds(predictor, run, chosen, own=own, mismatch=mismatch)
    rows = [
        _row(
            image,
            number,
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
        for image in count_images(
            predictor,
            datasets,
            [(protocol, recipe.maps_under(protocol)) for protocol in chosen],
            thresholds,
            split=split,
            keep=run,
            content=content,
            on_image=on_image,
        )
        for number, (protocol, at) in enumerate(zip(chosen, thresholds, strict=True))
    ]
    if changed := hashes.changed():
        raise DataChanged(*change_lines(datasets, changed, doing="the run was scored on it"))
    for dataset in sorted({row.dataset for row in rows}):
        write_sums(run, prediction_folder(run, dataset, data_digest=content, split=split))
    write_run(run, rows, manifest)
    return rows


def threshold_of(run: Path, recipe: Recipe) -> float:
    """The threshold of a deployed model, for unstretched maps: the recipe's, or the one that was chosen under
    its first protocol.

    Raises:
        DataError: none has been chosen yet.
    """
    if isinstance(recipe.threshold, Given):
        return recipe.threshold.value
    name, kept = _name((recipe.protocols[0], "probability"), recipe), _kept_thresholds(run)
    if name not in kept:
        raise DataError(
            f"{run}: the threshold for {name} is chosen on the run's validation images when it is first"
            " evaluated; run `fissura evaluate` on it, or give --threshold"
        )
    return kept[name]


def _kept_thresholds(run: Path) -> dict[str, float]:
    """The thresholds that have been chosen, by the name of their protocol.

    Raises:
        UserError: the file is damaged.
    """
    path, remedy = run / THRESHOLDS, REMEDIES[THRESHOLDS]
    if not path.is_file():
        return {}
    check_files(run, (THRESHOLDS,))
    kept: dict[str, float] = {}
    for name, value in read_json(path, remedy=remedy, values=MOST_VALUES).items():
        if not isinstance(value, float | int) or not 0 <= value <= 1:
            raise DataError(f"{path}: is damaged: a threshold is a probability, not {value!r:.80}; {remedy}")
        kept[name] = value
    return kept


def _name(judged: Judged, recipe: Recipe) -> str:
    """The name under which a threshold is kept: the protocol, and a note if it does not score these maps."""
    protocol, maps = judged
    return str(protocol) if maps == recipe.maps_under(protocol) else f"{protocol}, maps as they are"


def _thresholds(
    predictor: Predictor,
    run: Path,
    protocols: Sequence[AnyProtocol],
    *,
    own: Sequence[Dataset],
    mismatch: str,
) -> list[float]:
    """The threshold of each protocol, chosen once on the validation images of `own` and kept with the run.

    If the recipe stretches its maps, also chooses the threshold of a deployed model, whose maps are not
    stretched.
    """
    recipe = predictor.recipe
    judged: list[Judged] = [(protocol, recipe.maps_under(protocol)) for protocol in protocols]
    wanted = {_name(each, recipe): each for each in judged}
    names = list(wanted)
    if own and recipe.map_range != "probability":
        in_use: Judged = (recipe.protocols[0], "probability")
        wanted[_name(in_use, recipe)] = in_use
    kept = _kept_thresholds(run)
    missing = {name: each for name, each in wanted.items() if name not in kept}
    if missing:
        if not own:
            raise DataError(
                f"{run}: a threshold for {', '.join(missing)} is chosen on the validation images of the run's"
                f" own data, which this is not ({mismatch}); evaluate the run on its own data first, wherever"
                " it lies now, or give --threshold"
            )
        images = list(
            count_images(
                predictor, own, [*missing.values()], (), split="val", keep=None, content="", on_image=None
            )
        )
        if not any(image.crack_pixels for image in images):
            raise DataError(
                f"{', '.join(map(str, own))}: a threshold is chosen on validation images with a crack, and"
                f" the masks of the {len(images)} val images hold none; give --threshold"
            )
        for number, name in enumerate(missing):
            kept[name] = best_threshold(pool(image.counts[number] for image in images))
        with rewriting(run, THRESHOLDS) as scratch:
            scratch.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [kept[name] for name in names]


def _row(
    image: CountedImage,
    number: int,
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
    """The row of an image under the protocol `number` of those that it was counted under."""
    counts, level = image.counts[number], level_of(threshold)
    alarm = image.alarms[number] if image.alarms else None
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
        data_name=image.data_name,
        **curves,
    )
