"""The warnings of `data check`, a line each: duplicates, leaks, counts, odd masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from fissura.core.problems import ALIKE
from fissura.data.duplicates import Duplicate
from fissura.data.lost import LostCracks, both_lost
from fissura.data.masks import MaskReading
from fissura.data.resize import AnyResize
from fissura.data.sample import PURPOSES, SPLITS, Sample, Split
from fissura.data.walk import listed

MOST_LINES = 25  # of one kind of warning; more are summed up in one


@dataclass(frozen=True)
class MaskFacts:
    """Facts of a mask, kept instead of it: all masks of a set may not fit the memory."""

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


def duplicate_lines(copies: list[Duplicate], where: Mapping[str, str], *, places: str) -> list[str]:
    def line(copy: Duplicate) -> str:
        how = "pixel for pixel" if copy.exact else f"{copy.view}, correlation {copy.correlation:.3f}"
        return f"{copy.first} = {copy.second} ({how})"

    leaks = [copy for copy in copies if where[copy.first] != where[copy.second]]
    lines = [
        f"the same image in two {places} ({where[copy.first]} and {where[copy.second]}): {line(copy)}; "
        f"drop one"
        for copy in leaks
    ]
    if len(leaks) > ALIKE:
        lines = [
            f"the same image in two {places}, {len(leaks)} pairs: {listed([line(copy) for copy in leaks])}; "
            f"drop one of each"
        ]
    for exact, what in ((True, "the same image twice"), (False, "nearly the same image twice")):
        rest = [copy for copy in copies if copy.exact == exact and copy not in leaks]
        if len(rest) > MOST_LINES:
            lines.append(f"{what}, {len(rest)} pairs: {listed([line(copy) for copy in rest])}")
        else:
            lines += [f"{what}: {line(copy)}" for copy in rest]
    return lines


def straddling(samples: Iterable[Sample]) -> list[str]:
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


def count_lines(expected: Mapping[str, int], splits: Mapping[str, int]) -> list[str]:
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


def odd_masks(masks: Mapping[str, MaskFacts]) -> list[str]:
    odd = {name: facts for name, facts in masks.items() if facts.remark is not None}
    if len(odd) <= MOST_LINES:
        return [f"mask of {name}: {facts.remark}" for name, facts in odd.items()]
    worst = max(odd, key=lambda name: odd[name].grey_share)
    mean = sum(facts.grey_share for facts in odd.values()) / len(odd)
    return [
        f"{len(odd)} of {len(masks)} masks hold levels that a mask should not; on average {mean:.1%} of "
        f"their pixels; most in {worst}: {odd[worst].remark}"
    ]


def shared_masks(masks: Mapping[str, MaskFacts]) -> list[str]:
    same = defaultdict(list)
    for name, facts in masks.items():
        if facts.cracks:
            same[facts.digest].append(name)
    return [
        f"images with the same mask, pixel for pixel: {listed(names)}; one of them is likely wrong"
        for names in same.values()
        if len(names) > 1
    ]


def thresholds_at_odds(problems: Iterable[str]) -> list[str]:
    """A note where problems name several thresholds: a data set has one."""
    named = {level for line in problems for level in re.findall(r"\?threshold=(\d+)", line)}
    if len(named) < 2:
        return []
    return [
        f"one `threshold` holds for the whole data set, and its masks ask for"
        f" {listed(sorted(named, key=int))}: save all of them with 0 and"
        " 255, or make a data set of each kind of mask"
    ]


def without_crack(masks: Mapping[str, MaskFacts], where: Mapping[str, Split]) -> list[str]:
    """A line for each split whose masks hold no crack."""
    use = {
        split: f"so there is nothing to {purpose}: no model is trained" for split, purpose in PURPOSES.items()
    }
    lines = []
    for split in SPLITS:
        held = [facts.cracks for name, facts in masks.items() if where[name] == split]
        if held and not any(held):
            consequence = use.get(split, "so their scores are false alarms only")
            lines.append(f"no crack pixel in the masks of the {split} images ({len(held)}), {consequence}")
    return lines


def inverted(masks: Mapping[str, MaskFacts]) -> list[str]:
    most = [name for name, facts in masks.items() if facts.cracks > facts.pixels / 2]
    if not most:
        return []
    return [
        f"masks that are mostly crack ({len(most)}): {listed(most)}; is crack the lighter level in them? If "
        f"not, invert them"
    ]
