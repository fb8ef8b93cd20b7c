"""The evaluation of a test set by a batch: what an endpoint says of labelled images, scored as
`fissura evaluate` scores it."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from fissura.batches.pictures import bare_name, picture_path, picture_stems, png
from fissura.batches.rows import read_rows
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError
from fissura.core.files import write_json
from fissura.data.content import content_digest
from fissura.data.dataset import Dataset
from fissura.data.datasets import Named, kinds, parse_datasets
from fissura.data.labelled import (
    ClassFolder,
    LabelledDataset,
    LabelledImage,
    image_keys,
    labelled_kinds,
    parse_labelled,
)
from fissura.data.labelled.keys import digest_of_keyed
from fissura.data.naming import folder_name, name_of
from fissura.data.sample import Sample, Split
from fissura.data.walk import composed
from fissura.metrics import AnyProtocol
from fissura.metrics.classification import TELLING_APART, class_scores, confusion, one_class
from fissura.reports.score import ImageScore, report, score_image
from fissura.reports.score_files import read_map, read_mask

SCORES = "scores.json"


class Labelled(NamedTuple):
    """The mask of an image (0 background), its valid pixels (not 0; None: all), what was odd about them."""

    mask: UInt8[np.ndarray, "h w"]
    valid: UInt8[np.ndarray, "h w"] | None = None
    remark: str | None = None


@dataclass(frozen=True)
class Masks:
    """How to read the mask of each image of a test set; what it is called, and the digest of what it holds
    (None: that of the masks)."""

    read: Mapping[str, Callable[[], Labelled]]
    data_name: str
    data_digest: str | None


@dataclass(frozen=True)
class Labels:
    """The label of each image of a test set: an index into the classes, lowest first; what it is called, and
    the digest of what it holds."""

    classes: tuple[str, ...]
    of: Mapping[str, int]
    data_name: str
    data_digest: str


Truth = Masks | Labels


def names_a_data_set(text: str) -> bool:
    """Whether `text` is KIND:ROOT, and no folder or URL."""
    kind, colon, rest = text.partition(":")
    return bool(colon) and not rest.startswith("//") and kind in {**kinds(), **labelled_kinds()}


def open_test_set(named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth]:
    """The images of a split of the data set `KIND:ROOT`, as their files lie there, and their masks or labels.

    Squares that are cut from images are sent as PNG. `directory` is the cache folder.

    Raises:
        UserError: no such data set, or no image in the split.
    """
    text = str(named)
    if text.partition(":")[0] in kinds():
        (dataset,) = parse_datasets([named])
        samples = [sample for sample in dataset.samples() if sample.split == split]
        _check_some(samples, text, split)
        files = [(sample.name, sample.image) for sample in samples]
        masks = Masks(
            {sample.name: partial(_labelled, dataset, sample) for sample in samples},
            name_of(dataset.plain()),
            content_digest([dataset], directory=directory),
        )
        return ImageSource.of_files(f"{dataset}, {split}", files, root=dataset.root), masks
    (labelled,) = parse_labelled([named])
    keyed = image_keys([labelled], directory=directory)
    images = [one.image for one in keyed if one.image.split == split]
    _check_some(images, text, split)
    root = labelled.root if isinstance(labelled, ClassFolder) else labelled.source.root
    source = ImageSource.of_files(
        f"{labelled}, {split}", [(one.name, one.path) for one in images if one.box is None], root=root
    )
    squares = {one.name: partial(_square, labelled, one) for one in images if one.box is not None}
    label_of = {one.name: one.label for one in images}
    labels = Labels(labelled.classes(), label_of, name_of(labelled.plain()), digest_of_keyed(keyed))
    return ImageSource(source.label, {**source.readers, **squares}, root), labels


def masks_in(folder: Path, source: ImageSource) -> Masks:
    """The masks of a source's images in a folder: each under the name of its image, with any suffix. They
    are called what the images' folder is.

    Raises:
        DataError: an image has no mask, or two, or a mask no image.
    """
    found = ImageSource.open(str(folder))
    root = found.root or folder.parent
    stems = {name: composed(stem) for name, stem in picture_stems(source.names()).items()}
    problems = []
    masks: dict[str, Path] = {}
    for name in found.names():
        if composed(bare_name(name)) in masks:
            problems.append(f"{root / name}: an image has one mask, and there is another; remove one")
        masks.setdefault(composed(bare_name(name)), root / name)
    for name, stem in stems.items():
        if stem not in masks:
            problems.append(
                f"{name}: an image has a mask of its name: add {root / stem}.png, or remove the image"
            )
    problems += [
        f"{masks[stem]}: a mask has an image of its name: there is none; add it, or remove the mask"
        for stem in sorted(masks.keys() - set(stems.values()))
    ]
    if problems:
        raise DataError(*problems)
    read = {name: partial(_mask_file, masks[stem]) for name, stem in stems.items()}
    return Masks(read, folder_name(source.root or root), None)


def evaluate(
    out: Path,
    results: Path,
    truth: Truth,
    *,
    names: Sequence[str],
    protocols: Sequence[AnyProtocol],
    threshold: float | None,
    classes: Sequence[str],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The scores of a finished batch over its `names`, in JSON types; they are `OUT/scores.json` too.

    Images without a result are left out, and named. A segmentation is scored under each of the protocols at
    the `threshold` of its model, from the maps that were kept; a classification by the model's `classes`.
    `facts` are kept beside the scores.

    Raises:
        DataError: a mask or a map cannot be read, unlike sizes or classes, or no image has a result.
    """
    table = read_rows(results)
    error_of = dict(zip(table.column("image").to_pylist(), table.column("error").to_pylist(), strict=True))
    scored = [name for name in names if error_of[name] is None]
    if not scored:
        raise DataError(
            f"{results}: no image has a result, so there is nothing to score; see its column `error`"
        )
    head = {
        **facts,
        "images": len(scored),
        "left_out": sorted(set(names) - set(scored)),
    }
    if isinstance(truth, Masks):
        own = _mask_scores(out, truth, scored, names, protocols=protocols, threshold=threshold or 0.0)
    else:
        own = _label_scores(truth, scored, table, classes)
    plain = {**head, **own}
    write_json(out / SCORES, plain)
    return plain


def _mask_scores(
    out: Path,
    truth: Masks,
    scored: Sequence[str],
    names: Sequence[str],
    *,
    protocols: Sequence[AnyProtocol],
    threshold: float,
) -> dict[str, Any]:
    stems = picture_stems(names)

    def score(name: str) -> tuple[list[ImageScore], str | None] | DataError:
        path = picture_path(out, "probabilities", stems[name])
        try:
            probability, (mask, valid, remark) = read_map(path), truth.read[name]()
            if probability.shape != mask.shape:
                (height, width), (mask_height, mask_width) = probability.shape, mask.shape
                raise DataError(
                    f"{path}: a map is as large as its mask: it is {width}x{height}, the mask is"
                    f" {mask_width}x{mask_height} (width x height); mend the mask"
                )
        except DataError as error:
            return error
        scores = [
            score_image(name, probability, mask, valid, protocol=protocol, threshold=threshold)
            for protocol in protocols
        ]
        return scores, f"{name}: {remark}" if remark else None

    with ThreadPoolExecutor() as threads:
        outcomes = list(threads.map(score, scored))
    problems = [line for one in outcomes if isinstance(one, DataError) for line in one.problems]
    if problems:
        raise DataError(*problems)
    good = [one for one in outcomes if not isinstance(one, DataError)]
    reports = [
        report(
            [scores[place] for scores, _ in good],
            protocol=protocol,
            threshold=threshold,
            data_name=truth.data_name,
            data_digest=truth.data_digest,
        )
        for place, protocol in enumerate(protocols)
    ]
    remarks = [remark for _, remark in good if remark]
    known = {"data_name": reports[0].data_name, "data_digest": reports[0].data_digest}
    return {**known, "scores": [one.plain() for one in reports], "remarks": remarks}


def _label_scores(
    truth: Labels, scored: Sequence[str], table: pa.Table, classes: Sequence[str]
) -> dict[str, Any]:
    if len(classes) != len(truth.classes):
        raise DataError(
            f"a test set has the classes of its model: it has {', '.join(truth.classes)}, the model"
            f" {', '.join(classes)}; name another data set, or another --model"
        )
    rows = {row["image"]: row for row in table.select(["image", "label", "decisions"]).to_pylist()}
    strange = sorted({rows[name]["label"] for name in scored} - set(classes))
    if strange:
        raise DataError(f"a label is a class of the model ({', '.join(classes)}), not {', '.join(strange)}")
    known = sorted(classes) == sorted(truth.classes)
    number = [classes.index(name) if known else place for place, name in enumerate(truth.classes)]
    labels = np.array([number[truth.of[name]] for name in scored], np.int64)
    predictions = np.array([classes.index(rows[name]["label"]) for name in scored], np.int64)
    # in single precision, as the store of evaluated classifiers keeps them
    decisions = np.array([rows[name]["decisions"] for name in scored], np.float32)
    scores = class_scores(labels, predictions, classes=len(classes), decisions=decisions)
    taken = f"the data's classes {', '.join(truth.classes)} are taken for {', '.join(classes)}"
    only = one_class(labels, classes)
    return {
        "data_name": truth.data_name,
        "data_digest": truth.data_digest,
        "classes": list(classes),
        "scores": {
            name: None if only and name.startswith(TELLING_APART) else value
            for name, value in asdict(scores).items()
        },
        "confusion": confusion(labels, predictions, len(classes)).tolist(),
        "remarks": [*([] if known else [taken]), *([only] if only else [])],
    }


def _labelled(dataset: Dataset, sample: Sample) -> Labelled:
    return Labelled(dataset.read_mask(sample), dataset.read_valid(sample))


def _mask_file(path: Path) -> Labelled:
    mask, remark = read_mask(path)
    return Labelled(mask, None, remark)


def _square(dataset: LabelledDataset, image: LabelledImage) -> bytes:
    return png(dataset.read(image))


def _check_some(images: Sequence[object], text: str, split: str) -> None:
    if not images:
        raise DataError(f"{text}: no {split} images; name another --split, or a data set that has them")
