"""`data check`: names every defect of a data set and its facts. A bad file never stops the check."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from fissura.core.brief import Brief
from fissura.core.errors import DataError
from fissura.core.problems import first
from fissura.core.text import count
from fissura.data.check_lines import (
    MaskFacts,
    count_lines,
    duplicate_lines,
    inverted,
    odd_masks,
    shared_masks,
    straddling,
    thresholds_at_odds,
    without_crack,
)
from fissura.data.dataset import Dataset
from fissura.data.datasets import Named, kind_of, parse_dataset
from fissura.data.duplicates import Duplicate, Fingerprint, duplicates, fingerprint
from fissura.data.labelled import ClassFolder, labelled_kinds, parse_labels
from fissura.data.lost import LostCracks, loss_line
from fissura.data.resize import AnyResize, Fixed
from fissura.data.sample import SPLITS, Sample
from fissura.data.turns import doubtful_turn, turn_warnings
from fissura.data.walk import listed

WORKING_SIZE = Fixed(height=512, width=512)  # the papers' usual one


@dataclass(frozen=True, repr=False)
class CheckReport(Brief):
    """The result of `check`. `problems` make the set unusable; `warnings` make its scores doubtful; `notes`
    are good to know.

    `samples`: images by split ("train", "val", "test"), or by class for a set of labels. `unique`: the number
    of readable images that differ in their pixels. `sizes`: images by "WIDTHxHEIGHT". `crack_share`: crack
    pixels among all (valid or not), 0..1, None without masks. `mask_levels`: pixels by grey level (or label)
    of the mask files.
    """

    kind: str
    title: str
    root: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    samples: dict[str, int]
    unique: int
    sizes: dict[str, int]
    crack_share: float | None
    mask_levels: dict[int, int]
    duplicates: tuple[Duplicate, ...]

    def lines(self) -> list[str]:
        """The data set, its images, the numbers of problems, warnings and notes, and these: equal ones in one
        line, which shows the first."""
        counts = ", ".join(f"{number} {split}" for split, number in self.samples.items())
        levels = (("problem", self.problems), ("warning", self.warnings), ("note", self.notes))
        totals = ", ".join(count(len(texts), level) for level, texts in levels)
        lines = (line for level, texts in levels for line in first(texts, noun=level))
        return [f"{self.title} ({self.root})", f"  {counts or 'no images'}: {totals}", *lines]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each problem, warning and note."""
        levels = (("problem", self.problems), ("warning", self.warnings), ("note", self.notes))
        return [{"level": level, "text": text} for level, texts in levels for text in texts]

    def plain(self) -> dict[str, Any]:
        """The report as JSON types."""
        plain = asdict(self)
        plain["mask_levels"] = {str(level): count for level, count in self.mask_levels.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prints: dict[str, Fingerprint] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)


def parse_source(named: Named) -> Dataset | ClassFolder:
    """The data set that `KIND:ROOT` names, with masks or a folder a class, or `named`; nothing is read.

    Raises:
        SpecError: no such kind, or no root.
        DataError: squares cut from another data set: check that one.
    """
    if kind_of(named) not in labelled_kinds():
        return parse_dataset(named)
    labels = parse_labels(named)
    if isinstance(labels, ClassFolder):
        return labels
    raise DataError(f"`{labels}`: is cut from another data set; check that one: `{labels.source}`")


def check(
    source: Dataset | ClassFolder,
    *,
    resize: AnyResize = WORKING_SIZE,
    on_sample: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Reads every file of `source` and reports; nothing is raised for bad data.

    Warnings of duplicates across splits come first: they leak training images into the test. `resize` is the
    working size at which lost cracks are counted. `on_sample` is called with the number of images done and of
    all.
    """
    if isinstance(source, ClassFolder):
        return _check_labels(source, on_sample)
    found = source.find()
    findings = _Findings([*found.problems], [], [*found.notes])
    masks: dict[str, MaskFacts] = {}
    for done, sample in enumerate(found.samples, start=1):
        facts = _read(source, sample, findings, resize)
        if facts is not None:
            masks[sample.name] = facts
        if on_sample is not None:
            on_sample(done, len(found.samples))
    splits = Counter[str](sample.split for sample in found.samples)
    copies = duplicates(findings.prints)
    where = {sample.name: sample.split for sample in found.samples}
    findings.warnings += duplicate_lines(copies, where, places="splits")
    findings.warnings += straddling(found.samples)
    findings.warnings += count_lines(source.info.counts, splits)
    turned = [sample.name for sample in found.samples if doubtful_turn(sample)]
    findings.warnings += turn_warnings(turned, total=len(found.samples))
    findings.warnings += [*odd_masks(masks), *shared_masks(masks), *inverted(masks)]
    findings.warnings += without_crack(masks, where)
    empty = [name for name, facts in masks.items() if facts.cracks == 0]
    if empty:
        findings.notes.append(f"masks without a crack ({len(empty)} of {len(masks)}): {listed(empty)}")
    nearest = sum((facts.nearest for facts in masks.values()), LostCracks())
    area = sum((facts.area for facts in masks.values()), LostCracks())
    if line := loss_line(resize, rule="area", nearest=nearest, lost=area):
        findings.notes.append(line)
    levels: Counter[int] = Counter()
    for facts in masks.values():
        levels.update(facts.levels)
    pixels = sum(facts.pixels for facts in masks.values())
    return _report(
        source,
        findings,
        samples={split: splits[split] for split in SPLITS if splits[split]},
        crack_share=sum(facts.cracks for facts in masks.values()) / pixels if pixels else None,
        mask_levels=dict(sorted(levels.items())),
        copies=copies,
    )


def _check_labels(source: ClassFolder, on_sample: Callable[[int, int], None] | None) -> CheckReport:
    listing = source.files()
    findings = _Findings([*listing.problems], [], [*listing.notes])
    for done, image in enumerate(listing.images, start=1):
        try:
            _keep(findings, image.name, source.read(image))
        except DataError as error:
            findings.problems += error.problems
        if on_sample is not None:
            on_sample(done, len(listing.images))
    copies = duplicates(findings.prints)
    labels = {image.name: listing.classes[image.label] for image in listing.images}
    findings.warnings += duplicate_lines(copies, labels, places="classes")
    counts = Counter(labels.values())
    classes = {name: counts[name] for name in listing.classes if counts[name]}
    return _report(source, findings, samples=classes, crack_share=None, mask_levels={}, copies=copies)


def _report(
    source: Dataset | ClassFolder,
    findings: _Findings,
    *,
    samples: dict[str, int],
    crack_share: float | None,
    mask_levels: dict[int, int],
    copies: list[Duplicate],
) -> CheckReport:
    readable, exact = len(findings.prints), sum(copy.exact for copy in copies)
    if exact:
        findings.notes.append(f"{readable - exact} of {readable} images are unique")
    findings.notes += thresholds_at_odds(findings.problems)
    return CheckReport(
        kind=source.kind,
        title=source.info.title,
        root=str(source.root),
        problems=tuple(findings.problems),
        warnings=tuple(findings.warnings),
        notes=tuple(findings.notes),
        samples=samples,
        unique=readable - exact,
        sizes=dict(findings.sizes.most_common()),
        crack_share=crack_share,
        mask_levels=mask_levels,
        duplicates=tuple(copies),
    )


def _read(source: Dataset, sample: Sample, findings: _Findings, resize: AnyResize) -> MaskFacts | None:
    """Reads each file of a sample by itself, so that one bad file hides no other."""
    image = valid = reading = None
    try:
        image = source.read_image(sample)
    except DataError as error:
        findings.problems += error.problems
    try:
        # Without a readable image there is no size to compare with.
        reading = (
            source.decode_mask(sample.mask)
            if image is None
            else source.inspect_mask(sample, size=image.shape[:2])
        )
    except DataError as error:
        findings.problems += error.problems
    try:
        valid = None if image is None else source.read_valid(sample, size=image.shape[:2])
    except DataError as error:
        findings.problems += error.problems
    if valid is not None and not valid.any():
        findings.warnings.append(f"{sample.valid}: no pixel is valid, so the image counts for nothing")
    if image is not None:
        _keep(findings, sample.name, image, valid)
    return None if reading is None else MaskFacts.of(reading, resize)


def _keep(findings: _Findings, name: str, image: np.ndarray, valid: np.ndarray | None = None) -> None:
    findings.prints[name] = fingerprint(image, valid=valid)
    findings.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1
