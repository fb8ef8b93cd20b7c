"""`data check`: every defect of a data set, named; and the facts about it. A bad file never stops the
check.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np

from fissura.core.brief import Brief
from fissura.core.errors import DataError
from fissura.data.dataset import Dataset
from fissura.data.datasets import Named, parse_dataset, text_of
from fissura.data.duplicates import Duplicate, Fingerprint, duplicates, fingerprint
from fissura.data.labelled.class_folder import ClassFolder
from fissura.data.lost import LostCracks, both_lost, said_of
from fissura.data.masks import MaskReading
from fissura.data.resize import AnyResize, Fixed
from fissura.data.sample import SPLITS, Sample
from fissura.data.turns import doubtful_turn, said_of_turns
from fissura.data.walk import listed

WORKING_SIZE = Fixed(height=512, width=512)  # the papers' usual one
MOST_LINES = 25  # of one kind of warning, before they are summed up in one


@dataclass(frozen=True, repr=False)
class CheckReport(Brief):
    """What `check` found. `problems` make the set unusable; `warnings` make its scores doubtful; `notes`
    are good to know.

    `samples`: images by split ("train", "val", "test"), or by class for a set of labels. `unique`: how many
    of the readable images differ in their pixels. `sizes`: images by "WIDTHxHEIGHT". `crack_share`: crack
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
        """The data set, its images, how much is wrong with it, and the first problems."""
        counts = ", ".join(f"{count} {split}" for split, count in self.samples.items())
        found = f"{len(self.problems)} problems, {len(self.warnings)} warnings, {len(self.notes)} notes"
        return [f"{self.title} ({self.root})", f"  {counts or 'no images'}: {found}", *self.problems[:3]]

    def rows(self) -> list[dict[str, Any]]:
        """A row for each problem, warning and note."""
        levels = (("problem", self.problems), ("warning", self.warnings), ("note", self.notes))
        return [{"level": level, "text": text} for level, texts in levels for text in texts]

    def plain(self) -> dict[str, Any]:
        """The report as JSON types alone."""
        plain = asdict(self)
        plain["mask_levels"] = {str(level): count for level, count in self.mask_levels.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}


@dataclass(frozen=True)
class _MaskFacts:
    """What is kept of a mask, since all masks of a set may not fit the memory."""

    pixels: int
    cracks: int
    digest: bytes
    levels: dict[int, int]
    grey_share: float
    remark: str | None
    nearest: LostCracks
    area: LostCracks

    @classmethod
    def of(cls, reading: MaskReading, resize: AnyResize) -> Self:
        mask = reading.mask
        digest = sha256(repr(mask.shape).encode() + mask.tobytes()).digest()
        lost = both_lost(resize, mask)
        return cls(
            mask.size, int(mask.sum()), digest, reading.levels, reading.grey_share, reading.remark, *lost
        )


@dataclass
class _Findings:
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    prints: dict[str, Fingerprint] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)


def parse_source(named: Named) -> Dataset | ClassFolder:
    """The data set that `KIND:ROOT` names, with masks or a folder a class, or the one given; nothing is read.

    Raises:
        SpecError: no such kind, or no root.
        DataError: squares to be cut from another data set: that one can be checked.
    """
    if isinstance(named, Dataset | ClassFolder):
        return named
    text = text_of(named, folders="folder")
    kind, _, root = text.partition(":")
    if kind == "class_folder" and root:
        return ClassFolder(root=Path(root).expanduser())
    if kind in {"patches", "severity"}:
        cut_from = ":".join(root.split(":")[-2:])
        raise DataError(f"`{text}`: is cut from another data set; check that one: `{cut_from}`")
    return parse_dataset(named)


def check(
    source: Dataset | ClassFolder,
    *,
    resize: AnyResize = WORKING_SIZE,
    on_sample: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Reads every file of `source` and reports; nothing is raised for bad data.

    Duplicates across splits are warned of first: they leak training images into the test. `resize` is the
    working size at which lost cracks are counted. `on_sample` is told how many images are done, and of how
    many.
    """
    if isinstance(source, ClassFolder):
        return _check_labels(source, on_sample)
    found = source.find()
    findings = _Findings([*found.problems], [], [*found.notes])
    masks: dict[str, _MaskFacts] = {}
    for done, sample in enumerate(found.samples, start=1):
        facts = _read(source, sample, findings, resize)
        if facts is not None:
            masks[sample.name] = facts
        if on_sample is not None:
            on_sample(done, len(found.samples))
    splits = Counter[str](sample.split for sample in found.samples)
    copies = duplicates(findings.prints)
    where = {sample.name: sample.split for sample in found.samples}
    findings.warnings += _duplicate_lines(copies, where, places="splits")
    findings.warnings += _straddling(found.samples)
    findings.warnings += _count_lines(source.info.counts, splits)
    turned = [sample.name for sample in found.samples if doubtful_turn(sample)]
    findings.warnings += said_of_turns(turned, total=len(found.samples))
    findings.warnings += [*_odd_masks(masks), *_shared_masks(masks), *_inverted(masks)]
    empty = [name for name, facts in masks.items() if facts.cracks == 0]
    if empty:
        findings.notes.append(f"masks without a crack ({len(empty)} of {len(masks)}): {listed(empty)}")
    nearest = sum((facts.nearest for facts in masks.values()), LostCracks())
    area = sum((facts.area for facts in masks.values()), LostCracks())
    if line := said_of(resize, rule="area", nearest=nearest, lost=area):
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
    findings.warnings += _duplicate_lines(copies, labels, places="classes")
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


def _read(source: Dataset, sample: Sample, findings: _Findings, resize: AnyResize) -> _MaskFacts | None:
    """Reads all files of a sample, each for itself, so that one bad file hides no other."""
    image = valid = reading = None
    try:
        image = source.read_image(sample)
    except DataError as error:
        findings.problems += error.problems
    try:
        # Without a readable image there is no size to compare with.
        reading = source.decode_mask(sample.mask) if image is None else source.inspect_mask(sample)
    except DataError as error:
        findings.problems += error.problems
    try:
        valid = None if image is None else source.read_valid(sample)
    except DataError as error:
        findings.problems += error.problems
    if valid is not None and not valid.any():
        findings.warnings.append(f"{sample.valid}: no pixel is valid, so the image counts for nothing")
    if image is not None:
        _keep(findings, sample.name, image, valid)
    return None if reading is None else _MaskFacts.of(reading, resize)


def _keep(findings: _Findings, name: str, image: np.ndarray, valid: np.ndarray | None = None) -> None:
    findings.prints[name] = fingerprint(image, valid=valid)
    findings.sizes[f"{image.shape[1]}x{image.shape[0]}"] += 1


def _duplicate_lines(copies: list[Duplicate], where: Mapping[str, str], *, places: str) -> list[str]:
    def line(copy: Duplicate) -> str:
        how = "pixel for pixel" if copy.exact else f"{copy.view}, correlation {copy.correlation:.3f}"
        return f"{copy.first} = {copy.second} ({how})"

    leaks = [copy for copy in copies if where[copy.first] != where[copy.second]]
    lines = [
        f"the same image in two {places} ({where[copy.first]} and {where[copy.second]}): {line(copy)}; "
        f"drop one"
        for copy in leaks
    ]
    for exact, what in ((True, "the same image twice"), (False, "nearly the same image twice")):
        rest = [copy for copy in copies if copy.exact == exact and copy not in leaks]
        if len(rest) > MOST_LINES:
            lines.append(f"{what}, {len(rest)} pairs: {listed([line(copy) for copy in rest])}")
        else:
            lines += [f"{what}: {line(copy)}" for copy in rest]
    return lines


def _straddling(samples: Iterable[Sample]) -> list[str]:
    splits = defaultdict(set)
    for sample in samples:
        splits[sample.group].add(sample.split)
    shared = sorted(group for group, seen in splits.items() if len(seen) > 1)
    if not shared:
        return []
    return [
        f"source photographs with images in two splits ({len(shared)}), so the test may leak: "
        f"{listed(shared)}"
    ]


def _count_lines(expected: Mapping[str, int], splits: Mapping[str, int]) -> list[str]:
    if not expected:
        return []
    # A "val" that this project carved out of "train" counts as "train".
    seen = {split: splits.get(split, 0) for split in expected}
    if "train" in expected and "val" not in expected:
        seen["train"] += splits.get("val", 0)
    if seen == dict(expected):
        return []
    listing = ", ".join(f"{split} {seen[split]} of {count}" for split, count in expected.items())
    return [f"the published set has other counts: found {listing}; fetch what is missing"]


def _odd_masks(masks: Mapping[str, _MaskFacts]) -> list[str]:
    odd = {name: facts for name, facts in masks.items() if facts.remark is not None}
    if len(odd) <= MOST_LINES:
        return [f"mask of {name}: {facts.remark}" for name, facts in odd.items()]
    worst = max(odd, key=lambda name: odd[name].grey_share)
    mean = sum(facts.grey_share for facts in odd.values()) / len(odd)
    return [
        f"{len(odd)} of {len(masks)} masks hold levels that a mask should not; on average {mean:.1%} of "
        f"their pixels; most in {worst}: {odd[worst].remark}"
    ]


def _shared_masks(masks: Mapping[str, _MaskFacts]) -> list[str]:
    same = defaultdict(list)
    for name, facts in masks.items():
        if facts.cracks:
            same[facts.digest].append(name)
    return [
        f"images with the same mask, pixel for pixel: {listed(names)}; one of them is likely wrong"
        for names in same.values()
        if len(names) > 1
    ]


def _inverted(masks: Mapping[str, _MaskFacts]) -> list[str]:
    most = [name for name, facts in masks.items() if facts.cracks > facts.pixels / 2]
    if not most:
        return []
    return [f"masks that are mostly crack ({len(most)}): {listed(most)}; is crack white (255) in them?"]
