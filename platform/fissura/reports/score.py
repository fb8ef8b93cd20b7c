"""Scoring anyone's predictions: a folder of 8-bit probability maps against a folder of masks."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from fissura.core.brief import Brief
from fissura.core.errors import DataError
from fissura.core.problems import first
from fissura.core.rules import no_probability
from fissura.core.spec import digest
from fissura.core.text import count
from fissura.data.dataset_names import folder_name
from fissura.data.images import SUFFIXES
from fissura.data.walk import affix_text, common_affix
from fissura.metrics import (
    Counts,
    Protocol,
    Scores,
    ThresholdSweep,
    crack_pixels,
    level_of,
    mean,
    pool,
    sweep,
)
from fissura.metrics.false_alarms import NO_CRACK, FalseAlarm, false_alarm, summarise
from fissura.reports.score_files import crack_level, list_files, one_level, read_pair, said_of_low


@dataclass(frozen=True)
class ImageScore:
    """One image under one protocol: its counts at all levels, its scores at the threshold.

    `alarm` is None where the image holds a crack among its valid pixels. `mask_digest` names the mask and the
    valid pixels, 64 hex digits, whatever the files they lay in.
    """

    name: str
    height: int
    width: int
    crack_pixels: int
    counts: Counts
    scores: Scores
    alarm: FalseAlarm | None
    mask_digest: str

    def plain(self, level: int) -> dict[str, Any]:
        """One row of a table: the counts at `level` (0..255) and the scores, as JSON types."""
        size = {"image": self.name, "height": self.height, "width": self.width}
        counts = {
            "true_positive": int(self.counts.true_positive[level]),
            "false_positive": int(self.counts.false_positive[level]),
            "found": int(self.counts.found[level]),
            "missed": int(self.counts.missed[level]),
        }
        return {**size, "crack_pixels": self.crack_pixels, **counts, **asdict(self.scores)}


@dataclass(frozen=True, repr=False)
class ScoreReport(Brief):
    """Images under one protocol at one threshold: their pooled score (micro) and their mean score (macro),
    which are None, as is `sweep`, where no image holds a crack.

    `remarks` says, one line a file, what was odd about a mask that could be read all the same. The
    masks are called `data_name`; `data_digest` names them and their valid pixels.
    """

    data_name: str
    data_digest: str
    protocol: Protocol
    threshold: float
    images: tuple[ImageScore, ...]
    micro: Scores | None
    macro: Scores | None
    sweep: ThresholdSweep | None
    remarks: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The pooled and the mean score, and the best threshold where the protocol sweeps it."""
        threshold = f"at threshold {self.threshold:g}"
        scores = [
            f"  {name}: "
            + ", ".join(f"{measure} {getattr(of, measure):.4f}" for measure in self.protocol.measures)
            for name, of in (("pooled", self.micro), ("mean of images", self.macro))
            if of is not None
        ]
        return [
            f"{count(len(self.images), 'image')}, {self.protocol}, {threshold}",
            *(scores or [f"  {NO_CRACK}"]),
            *first(self.remarks, noun="remark"),
        ]

    def plain(self) -> dict[str, Any]:
        """The report as JSON types; `crack_free` is there only where an image holds no crack, `remark` where
        none holds one."""
        alarms = [image.alarm for image in self.images if image.alarm]
        return {
            "data_name": self.data_name,
            "data_digest": self.data_digest,
            "protocol": str(self.protocol),
            "threshold": self.threshold,
            "images": len(self.images),
            "micro": self._pooled(self.micro),
            "macro": self._pooled(self.macro),
            **(self.sweep.plain() if self.sweep else {}),
            **({"remark": NO_CRACK} if self.micro is None else {}),
            **({"crack_free": summarise(alarms)} if alarms else {}),
        }

    def _pooled(self, scores: Scores | None) -> dict[str, float] | None:
        if scores is None:
            return None
        return {measure: getattr(scores, measure) for measure in self.protocol.measures}

    def rows(self) -> list[dict[str, Any]]:
        """One row an image, in order of name, as JSON types."""
        level = level_of(self.threshold)
        return [image.plain(level) for image in self.images]


def score_folders(
    predictions: Path,
    masks: Path,
    *,
    protocol: Protocol,
    threshold: float = 0.5,
    valid: Path | None = None,
    mask_threshold: int | None = None,
    name: str | None = None,
    on_image: Callable[[int, int], None] | None = None,
) -> ScoreReport:
    """Scores every map in `predictions` against the mask of the same name in `masks`.

    A map is an 8-bit grey PNG, value / 255 the probability of crack; a pixel is predicted where that is at
    least `threshold` (0..1). Where all maps together hold 0 and one other level, they are masks: that level
    is crack, with a remark. Names are compared without their suffixes. A mask holds 0 and one level of crack;
    of a grey one what is above `mask_threshold` (0..254) is crack; a JPEG mask is thresholded, with a remark.
    `valid` is a folder of masks of the valid pixels, one an image; the others are left out of the scores.
    `name` is what the result calls the masks, by default what their folder is called. `on_image` is told how
    many images are done, and of how many.

    Raises:
        DataError: one line for each folder, file or option that breaks a rule.
    """
    problems: list[str] = []
    if wrong := no_probability(threshold):
        problems.append(wrong)
    if mask_threshold is not None and not 0 <= mask_threshold <= 254:
        problems.append(f"a mask's threshold is a grey level, 0 to 254, not {mask_threshold}")
    maps = list_files(predictions, frozenset({".png"}), "8-bit grey PNG maps", problems)
    labels = list_files(masks, SUFFIXES, "masks", problems)
    insides = list_files(valid, SUFFIXES, "masks of valid pixels", problems) if valid else None
    if problems:
        raise DataError(*problems)

    if affix := common_affix(maps, labels):
        raise DataError(
            f"{masks}: a mask has the name of its prediction: {affix_text(affix)} ({len(labels)} masks,"
            f" {len(maps)} predictions); rename the masks, or the predictions alike"
        )
    for missing in sorted(labels.keys() - maps.keys()):
        remedy = f"add {predictions / missing}.png, or remove the mask"
        problems.append(f"{labels[missing]}: a mask has a prediction of the same name; {remedy}")
    for missing in sorted(maps.keys() - labels.keys()):
        remedy = f"add {masks / missing}.png, or remove the prediction"
        problems.append(f"{maps[missing]}: a prediction has a mask of the same name; {remedy}")
    names = sorted(maps.keys() & labels.keys())
    if valid and insides is not None:
        for missing in (name for name in names if name not in insides):
            remedy = f"add {valid / missing}.png"
            problems.append(
                f"{labels[missing]}: a mask has a mask of valid pixels of the same name; {remedy}"
            )

    def score(name: str, crack: int | None = None) -> tuple[ImageScore | None, list[str], int | None, int]:
        try:
            inside_path = insides.get(name) if insides is not None else None
            probability, mask, inside, remarks = read_pair(
                maps[name], labels[name], inside_path, mask_threshold=mask_threshold
            )
        except DataError as error:
            return None, list(error.problems), None, 0
        level, highest = one_level(probability), int(probability.max())
        if crack is not None:
            probability = np.where(probability == crack, np.uint8(255), np.uint8(0))
        image = score_image(name, probability, mask, inside, protocol=protocol, threshold=threshold)
        return image, remarks, level, highest

    images: list[ImageScore] = []
    remarks: list[str] = []
    levels: set[int | None] = set()
    reached: dict[str, int] = {}
    with ThreadPoolExecutor() as threads:
        for done, (image, lines, level, highest) in enumerate(threads.map(score, names), start=1):
            levels.add(level)
            if image:
                images.append(image)
                remarks += lines
                reached |= {image.name: highest} if image.crack_pixels else {}
            else:
                problems += lines
            if on_image:
                on_image(done, len(names))
        if problems:
            raise DataError(*problems)
        if (crack := crack_level(levels)) is not None:
            images = [image for image, *_ in threads.map(partial(score, crack=crack), names) if image]
            remarks.append(
                f"{predictions}: no map holds a level but 0 and {crack}, so they are read as masks, {crack}"
                " as crack"
            )
        else:
            remarks += said_of_low(reached)
    called = name or folder_name(masks)
    return report(images, protocol=protocol, threshold=threshold, data_name=called, remarks=remarks)


def score_image(
    name: str,
    probability: UInt8[np.ndarray, "h w"],
    mask: UInt8[np.ndarray, "h w"],
    valid: UInt8[np.ndarray, "h w"] | None = None,
    *,
    protocol: Protocol,
    threshold: float,
) -> ImageScore:
    """Scores one map (in 1/255) against its mask (labelled where not 0), among its valid pixels (not 0)."""
    level = level_of(threshold)
    counts = protocol.count(probability, mask, valid)
    labelled = crack_pixels(mask, valid)
    alarm = None if labelled else false_alarm(probability, valid, level=level)
    height, width = mask.shape
    scores, held = protocol.score(counts, level), sha256(repr(mask.shape).encode())
    for plane in (mask, *([] if valid is None else [valid])):
        held.update((plane != 0).tobytes())
    return ImageScore(name, height, width, labelled, counts, scores, alarm, held.hexdigest())


def report(
    images: Sequence[ImageScore],
    *,
    protocol: Protocol,
    threshold: float,
    data_name: str,
    data_digest: str | None = None,
    remarks: Sequence[str] = (),
) -> ScoreReport:
    """The scores of at least one image, all scored under `protocol` at `threshold`, pooled and as a mean.
    `data_digest` None is that of the masks."""
    counts = [image.counts for image in images]
    cracked = any(image.crack_pixels for image in images)
    return ScoreReport(
        data_name=data_name,
        data_digest=data_digest or digest(sorted(image.mask_digest for image in images)),
        protocol=protocol,
        threshold=threshold,
        images=tuple(images),
        micro=protocol.score(pool(counts), level_of(threshold)) if cracked else None,
        macro=mean([image.scores for image in images]) if cracked else None,
        sweep=sweep(counts) if protocol.swept and cracked else None,
        remarks=tuple(remarks),
    )
