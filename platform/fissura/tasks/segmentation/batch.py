"""Batches of segmented images: measures of their cracks, and scores by their masks."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, get_type_hints

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from pydantic import Field

from fissura.batches.evaluation import check_some
from fissura.batches.pictures import bare_name, picture_path, picture_stems
from fissura.batches.scorer import ModelCard, Result, threshold_of_map
from fissura.batches.source import ImageSource
from fissura.batches.task_batch import ScoredImages, TaskBatch, Truth
from fissura.core.errors import DataError
from fissura.data.content import content_digest
from fissura.data.dataset import Dataset
from fissura.data.dataset_names import folder_name, name_of
from fissura.data.datasets import Named, kind_of, kinds, parse_datasets
from fissura.data.sample import Sample, Split
from fissura.data.walk import composed
from fissura.metrics import AnyProtocol
from fissura.reports.score import ImageScore, report, score_image
from fissura.reports.score_files import read_map, read_mask
from fissura.segmentation.crack_measures import SUMMARY, CrackMeasures, MeasuredCrack, measure_map


class CracksFound(Result):
    """The `threshold` of the mask, the measures of its `cracks`, and the longest of them one by one (none
    where a service of an earlier version does not tell)."""

    threshold: float = Field(ge=0, le=1)
    cracks: dict[str, int | float | None]
    crack_table: tuple[MeasuredCrack, ...] = ()


class Labelled(NamedTuple):
    """The mask of an image (0 background), its valid pixels (not 0; None: all), what was odd about them."""

    mask: UInt8[np.ndarray, "h w"]
    valid: UInt8[np.ndarray, "h w"] | None = None
    remark: str | None = None


@dataclass(frozen=True)
class Masks(Truth):
    """Readers of the masks of a test set; its name, and the digest of its content
    (None: that of the masks)."""

    task = "segmentation"

    read: Mapping[str, Callable[[], Labelled]]
    data_name: str
    data_digest: str | None

    def scores(
        self, scored_images: ScoredImages, card: ModelCard, *, protocols: Sequence[AnyProtocol]
    ) -> dict[str, Any]:
        """Under each of the protocols at the threshold of the model, from the maps that were kept."""
        threshold = threshold_of_map(card.threshold)
        stems = picture_stems(scored_images.names)

        def score(name: str) -> tuple[list[ImageScore], str | None] | DataError:
            path = picture_path(scored_images.out, "probabilities", stems[name])
            try:
                probability, (mask, valid, remark) = read_map(path), self.read[name]()
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
            outcomes = list(threads.map(score, scored_images.scored))
        problems = [
            line for outcome in outcomes if isinstance(outcome, DataError) for line in outcome.problems
        ]
        if problems:
            raise DataError(*problems)
        successes = [outcome for outcome in outcomes if not isinstance(outcome, DataError)]
        reports = [
            report(
                [scores[index] for scores, _ in successes],
                protocol=protocol,
                threshold=threshold,
                data_name=self.data_name,
                data_digest=self.data_digest,
            )
            for index, protocol in enumerate(protocols)
        ]
        remarks = [remark for _, remark in successes if remark]
        data_facts = {"data_name": reports[0].data_name, "data_digest": reports[0].data_digest}
        return {**data_facts, "scores": [outcome.plain() for outcome in reports], "remarks": remarks}


def masks_in(folder: Path, source: ImageSource) -> Masks:
    """The masks of a source's images in a folder: each under the name of its image, with any suffix. They
    are called what the images' folder is.

    Raises:
        DataError: an image has no mask, or two, or a mask no image.
    """
    mask_source = ImageSource.open(str(folder))
    root = mask_source.root or folder.parent
    stems = {name: composed(stem) for name, stem in picture_stems(source.names()).items()}
    problems = []
    masks: dict[str, Path] = {}
    for name in mask_source.names():
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


def _column(kind: Any) -> pa.DataType:
    if kind == tuple[int, int, int, int]:
        return pa.list_(pa.int64())
    return pa.int64() if kind is int else pa.float64()


MEASURES = {name: _column(get_type_hints(CrackMeasures)[name]) for name in SUMMARY}
CRACK = pa.struct([pa.field(name, _column(kind)) for name, kind in get_type_hints(MeasuredCrack).items()])


class SegmentationBatch(TaskBatch):
    """Measures (see `CrackMeasures`), and the longest cracks (see `MeasuredCrack`)."""

    has_maps = True
    result = CracksFound
    columns = MappingProxyType({"threshold": pa.float64(), **MEASURES, "crack_table": pa.list_(CRACK)})

    def row(self, result: CracksFound) -> dict[str, Any]:
        """See `TaskBatch`."""
        cracks = {key: value for key, value in result.cracks.items() if key in MEASURES}
        return {**result.model_dump(include={"threshold", "crack_table"}), **cracks}

    def with_map(
        self, result: Result, probability: UInt8[np.ndarray, "h w"], *, mm_per_pixel: float | None
    ) -> Result:
        """See `TaskBatch`."""
        measures = measure_map(
            probability, threshold=threshold_of_map(result.threshold), mm_per_pixel=mm_per_pixel
        )
        return Result.of({**result.model_dump(), "crack_table": measures.table()})

    def test_set(self, named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth] | None:
        """See `TaskBatch`."""
        if kind_of(named) not in kinds():
            return None
        (dataset,) = parse_datasets([named])
        samples = [sample for sample in dataset.samples() if sample.split == split]
        check_some(samples, named, split)
        files = [(sample.name, sample.image) for sample in samples]
        masks = Masks(
            {sample.name: partial(_labelled, dataset, sample) for sample in samples},
            name_of(dataset.plain()),
            content_digest([dataset], directory=directory),
        )
        return ImageSource.of_files(f"{dataset}, {split}", files, root=dataset.root), masks


def _labelled(dataset: Dataset, sample: Sample) -> Labelled:
    return Labelled(dataset.read_mask(sample), dataset.read_valid(sample))


def _mask_file(path: Path) -> Labelled:
    mask, remark = read_mask(path)
    return Labelled(mask, None, remark)


SEGMENTATION_BATCH: TaskBatch = SegmentationBatch()
