"""Cuts labelled squares out of the images of a data set with masks.

DIRECTORY/squares-<digest>.json   the squares of each image, so that unchanged masks are not read again
"""

import contextlib
import os
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from fissura.core.errors import DataError
from fissura.core.seeding import derive
from fissura.core.spec import digest
from fissura.data.content import FileHashes
from fissura.data.dataset_names import PLACE
from fissura.data.datasets import AnyDataset
from fissura.data.labelled.base import LabelledDataset, LabelledImage, Listing
from fissura.data.labelled.grid import NEITHER, Grid, Labels, Mask, Place
from fissura.data.memo import recall, remember
from fissura.data.options import options_text
from fissura.data.sample import Sample
from fissura.data.splits import draw
from fissura.data.walk import listed

RULE = 2  # raised when the same masks give other squares


class CutSquares(LabelledDataset):
    """Squares cut from a data set with masks.

    `size`: their side in pixels. At most `per_image` of each class come from one image, by a seeded draw;
    none overlap, and all their pixels are valid. `crack_share`: the least share of crack pixels, 0..1, of a
    square with a crack. `margin`: pixels around a square that must not contradict its class. A square's group
    is its image's; test squares come from the source's test images, or if it has none from `test_share` of
    the images.
    """

    source: AnyDataset
    size: int = Field(64, ge=8, le=4096)
    per_image: int = Field(8, ge=1, le=10_000)
    crack_share: float = Field(0.01, gt=0, le=1)
    margin: int = Field(8, ge=0, le=1024)

    @abstractmethod
    def label(self, mask: Mask, grid: Grid) -> Labels:
        """The label of each square of the grid, or `NEITHER`; `mask` holds 0 and 1."""

    def resolved(self) -> Self:
        source = self.source.model_copy(update={"root": self.source.root.expanduser().resolve()})
        return self.model_copy(update={"source": source})

    @property
    def source_text(self) -> str:
        """The data set that is cut, and the options of both, as `--data` names them."""
        plain = f"{self.source.kind}:{self.source.root}"
        queries = (options_text(self), options_text(self.source, lead="source."))
        options = "&".join(query.removeprefix("?") for query in queries if query)
        return f"{plain}?{options}" if options else plain

    def find(self, *, directory: Path | None = None) -> Listing:
        found, classes = self.source.find(), self.classes()
        if found.problems:
            return Listing(classes, (), found.problems, found.notes)
        samples = [
            replace(sample, split="train") if sample.split == "val" else sample for sample in found.samples
        ]
        if all(sample.split == "train" for sample in samples):
            groups = {sample.name: sample.group for sample in samples}
            count = round(self.test_share * len(groups))
            drawn = draw(groups, count=count, seed=self.seed, purpose="test")
            samples = [
                replace(sample, split="test") if sample.name in drawn else sample for sample in samples
            ]
        images: list[LabelledImage] = []
        left_out: list[str] = []
        for sample, cut in zip(samples, self._cut_all(samples, directory), strict=True):
            if isinstance(cut, str):
                left_out.append(f"left out: {cut}")
            else:
                images += [self._image(sample, place) for place in cut]
        images.sort(key=lambda image: image.name)
        problems = []
        present = {image.label for image in images}
        absent = [f"`{name}`" for label, name in enumerate(classes) if label not in present]
        if absent:
            problems = [
                f"{self.label_text}: every class has squares: of {len(images)} drawn from {len(samples)} "
                f"images none is {' or '.join(absent)}; {self.remedy}",
                *left_out,
            ]
        notes = (*found.notes, *left_out, *_straddling(samples))
        return Listing(classes, tuple(images), tuple(problems), notes)

    @property
    def remedy(self) -> str:
        """The remedy if a class has no squares."""
        return f"take smaller squares (now {self.size} pixels) or another data set"

    def _cut_all(self, samples: Sequence[Sample], directory: Path | None) -> list[list[Place] | str]:
        """`_cut` of every sample; the cache folder `directory` keeps squares that were cut before."""
        memo = None
        if directory is not None:
            with contextlib.suppress(DataError):  # `_cut` reports files that cannot be opened
                memo = directory / f"squares-{self._digest(samples, directory)}.json"
        known = recall(memo, whole=lambda loaded: self._whole(loaded, len(samples))) or [None] * len(samples)
        missing = [sample for sample, places in zip(samples, known, strict=True) if places is None]
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            fresh = iter(list(pool.map(self._cut, missing)))
        cuts = [next(fresh) if places is None else [(*place,) for place in places] for places in known]
        if len(missing) == len(samples):
            remember(memo, [None if isinstance(cut, str) else cut for cut in cuts])
        return cuts

    def _digest(self, samples: Sequence[Sample], directory: Path) -> str:
        """A digest of everything that decides the squares, not of paths."""
        files = [[sample.image, sample.mask, *([sample.valid] if sample.valid else [])] for sample in samples]
        hashes = FileHashes(directory).of(path for paths in files for path in paths)
        named = [
            [sample.name, *(hashes[path] for path in paths)]
            for sample, paths in zip(samples, files, strict=True)
        ]
        options = self.plain()
        options["source"] = {key: value for key, value in options["source"].items() if key not in PLACE}
        options.pop("name")
        return digest([RULE, options, named])

    def _cut(self, sample: Sample) -> list[Place] | str:
        """The squares of one image, or why it has none."""
        try:
            mask, valid = self.source.read_mask(sample), self.source.read_valid(sample)
        except DataError as error:
            return " ".join(error.problems)
        if min(mask.shape) < self.size:
            return (
                f"{sample.image}: an image holds a square of {self.size} pixels: this one is "
                f"{mask.shape[1]}x{mask.shape[0]} (width x height); take smaller squares"
            )
        rng = np.random.default_rng(derive(self.seed, "squares", sample.name))
        grid = Grid((mask.shape[0], mask.shape[1]), size=self.size, rng=rng)
        labels = self.label(mask, grid)
        if valid is not None:
            labels = np.where(grid.count(1 - valid) == 0, labels, NEITHER)
        return grid.draw(labels, most=self.per_image, rng=rng)

    def _image(self, sample: Sample, place: Place) -> LabelledImage:
        top, left, label = place
        split: Literal["train", "test"] = "test" if sample.split == "test" else "train"
        name, box = f"{sample.name}-{top:05d}-{left:05d}", (top, left, self.size, self.size)
        return LabelledImage(name, label, sample.group, split, sample.image, box)

    def _whole(self, loaded: Any, count: int) -> bool:
        """Whether `loaded` holds the squares (or None) of each of `count` images."""
        classes = len(self.classes())

        def is_place(place: Any) -> bool:
            if not isinstance(place, list) or [type(value) for value in place] != [int, int, int]:
                return False
            return bool(min(place) >= 0 and place[2] < classes)

        return (
            isinstance(loaded, list)
            and len(loaded) == count
            and all(
                places is None or (isinstance(places, list) and all(map(is_place, places)))
                for places in loaded
            )
        )


def _straddling(samples: Sequence[Sample]) -> list[str]:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
    shared = sorted(group for group, seen in splits.items() if len(seen) > 1)
    return [f"groups on both sides of the given split ({len(shared)}): {listed(shared)}"] if shared else []
