"""A task in batches: the part of a `Task` that batches need."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8

from fissura.batches.scorer import ModelCard, Result
from fissura.batches.source import ImageSource
from fissura.data.datasets import Named
from fissura.data.sample import Split
from fissura.metrics import AnyProtocol


@dataclass(frozen=True)
class ScoredImages:
    """A finished batch in the folder `out`: `names` are all images, `scored` those with a result, `rows` is
    its table."""

    out: Path
    names: Sequence[str]
    scored: Sequence[str]
    rows: pa.Table


class Truth(ABC):
    """The truth of a test set's images; it scores models of its `task`."""

    task: ClassVar[str]

    @abstractmethod
    def scores(
        self, scored_images: ScoredImages, card: ModelCard, *, protocols: Sequence[AnyProtocol]
    ) -> dict[str, Any]:
        """The scores in JSON types, with `remarks`; the images' masks are read, or their maps, as needed.

        Raises:
            DataError: a mask or a map cannot be read, or unlike sizes or classes.
        """


class TaskBatch(ABC):
    """The rows of scored images. The results of a task that `has_maps` come with a map of probabilities, to
    which pictures, a scale, a threshold and protocols apply."""

    has_maps: ClassVar[bool] = False
    result: ClassVar[type[Result]]
    """The kind of the task's results."""
    columns: ClassVar[Mapping[str, pa.DataType]]
    """The task's own columns, which other tasks leave empty."""

    @abstractmethod
    def row(self, result: Any) -> dict[str, Any]:
        """The values of a result for `columns`."""

    def with_map(
        self, result: Result, probability: UInt8[np.ndarray, "h w"], *, mm_per_pixel: float | None
    ) -> Result:
        """The full result of an image and its map: the header beside a picture may hold only a part."""
        return result

    def test_set(self, named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth] | None:
        """The images of a split of a data set, and their truth; None if the set belongs to another task.

        Raises:
            UserError: no such data set, or no image in the split.
        """
        return None
