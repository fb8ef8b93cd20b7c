"""What a leaderboard is made of: a table a condition, a standing a configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import JsonValue

from fissura.core import text
from fissura.metrics.false_alarms import NO_CRACK
from fissura.records.manifest import Manifest
from fissura.reports.statistics import (
    Interval,
)
from fissura.reports.swept import Swept

if TYPE_CHECKING:
    pass


Metric = Literal["f1", "macro_f1", "precision", "recall", "dice", "iou"]


AlarmRate = Literal["false_alarms_per_megapixel", "false_pixels_per_megapixel"]


class Condition(NamedTuple):
    """What must be alike for two scores to be ranked together; the columns of that name in a run."""

    dataset: str
    data_digest: str
    split: str
    protocol: str
    threshold_source: str


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One configuration in a table.

    `rank` is None where no seed scored every image; exact ties share one. `differs` holds the parameters, in
    dotted form, in which it differs from the table's other configurations of the same recipe. `scores` has
    the names of `statistics.STATISTICS`: micro precision, recall and f1, macro_*, dice and iou where the
    protocol has them, none of which there is where no image holds a crack; and of `statistics.FALSE_ALARMS`,
    where an image holds none. `seconds` and `energy_joules` are of one training, the mean over seeds.
    `image_f1` is each image's F1, the mean over seeds. `seeds`, `thresholds`, `run_ids`, `directories` and
    `manifests` go together.
    """

    rank: int | None
    recipe: str
    configuration: str
    differs: Mapping[str, JsonValue]
    seeds: tuple[int, ...]
    images: int
    scores: Mapping[str, Interval]
    thresholds: tuple[float, ...]
    swept: Swept | None
    group: str
    parameters: int
    seconds: float
    energy_joules: float | None
    run_ids: tuple[str, ...]
    directories: tuple[Path, ...]
    code_versions: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    image_f1: Mapping[str, float]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """The configurations scored under one condition, best first; those without a rank last. `data_name` is
    what people call the data set; `crack_free` are the images without a crack, by name."""

    condition: Condition
    ranked_by: Metric | AlarmRate
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
