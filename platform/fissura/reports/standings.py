"""What a leaderboard is made of: a table a condition, a standing a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import JsonValue

from fissura.core import text
from fissura.metrics.false_alarms import NO_CRACK
from fissura.records.manifest import Manifest
from fissura.reports.statistics import Interval
from fissura.reports.swept import Swept

Metric = Literal["f1", "macro_f1", "precision", "recall", "dice", "iou"]


class Condition(NamedTuple):
    """What must be alike for two scores to be ranked together; the columns of that name in a run."""

    dataset: str
    data_digest: str
    split: str
    protocol: str
    threshold_source: str


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One configuration in a table of either task.

    `rank` is None where no seed scored every image; exact ties share one. `differs` holds the parameters, in
    dotted form, in which it differs from the table's other configurations of the same recipe. `scores` has
    the names of its task's, but for the undefined. `group` is the letter of its significance group by the
    score `ranked_by`. `seconds` are of one training, the mean over seeds; `parameters` are as in the
    manifest. `seeds`, `run_ids` and `directories` go together.
    """

    ranked_by: str
    rank: int | None
    recipe: str
    configuration: str
    differs: Mapping[str, JsonValue]
    seeds: tuple[int, ...]
    images: int
    scores: Mapping[str, Interval]
    group: str
    parameters: int
    seconds: float
    run_ids: tuple[str, ...]
    directories: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Standing(Ranked):
    """One configuration in a table of segmentations.

    `scores` has the names of `crack_scores.STATISTICS`: micro precision, recall and f1, macro_*, dice and iou
    where the protocol has them, none of which there is where no image holds a crack; and of
    `crack_scores.FALSE_ALARMS`, where an image holds none. `energy_joules` are of one training, the mean over
    seeds. `image_f1` is each image's F1, the mean over seeds. `thresholds` and `manifests` go with `seeds`.
    """

    thresholds: tuple[float, ...]
    swept: Swept | None
    energy_joules: float | None
    code_versions: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    image_f1: Mapping[str, float]


@dataclass(frozen=True)
class Table:
    """The configurations scored under one condition, best first; those without a rank last. `data_name` is
    what people call the data set; `crack_free` are the images without a crack, by name."""

    condition: Condition
    ranked_by: str
    images: int
    standings: tuple[Standing, ...]
    data_name: str
    crack_free: frozenset[str] = frozenset()

    @property
    def data(self) -> str:
        """The data set by its name and what it holds: "bridge (1a2b3c4d)"."""
        return text.data(self.data_name, self.condition.data_digest)

    @property
    def no_crack(self) -> bool:
        """Whether no image holds a crack, so that there are false alarms only."""
        return len(self.crack_free) == self.images

    @property
    def remark(self) -> str:
        """What is to be said of images without a crack before any number; nothing where there is none."""
        if self.no_crack:
            return NO_CRACK
        return f"{len(self.crack_free)} without a crack" if self.crack_free else ""
