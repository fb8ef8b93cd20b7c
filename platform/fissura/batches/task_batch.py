"""What a task tells of scored images: the part of a `Task` that batches ask for."""

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
    """A finished batch in the folder `out`: `names` are all of its images, `scored` those with a result,
    `rows` its table."""

    out: Path
    names: Sequence[str]
    scored: Sequence[str]
    rows: pa.Table


class Truth(ABC):
    """What is known of the images of a test set; a model of its `task` alone is scored by it."""

    task: ClassVar[str]

    @abstractmethod
    def scores(
        self, found: ScoredImages, card: ModelCard, *, protocols: Sequence[AnyProtocol]
    ) -> dict[str, Any]:
        """The scores in JSON types, with `remarks`; the images' masks are read, or their maps, as needed.

        Raises:
            DataError: a mask or a map cannot be read, or unlike sizes or classes.
        """


class TaskBatch(ABC):
    """The rows of scored images. A task that `has_maps` answers with a map of probabilities, of which
    pictures are drawn, and which a scale, a threshold and protocols apply to."""

    has_maps: ClassVar[bool] = False
    result: ClassVar[type[Result]]
    """What a model says of one image."""
    columns: ClassVar[Mapping[str, pa.DataType]]
    """Those of its rows that other tasks leave empty."""

    @abstractmethod
    def row(self, result: Any) -> dict[str, Any]:
        """The values of a result for `columns`."""

    def with_map(
        self, result: Result, probability: UInt8[np.ndarray, "h w"], *, mm_per_pixel: float | None
    ) -> Result:
        """The result of an answer that came with its map, whole: its header may hold a part alone."""
        return result

    def test_set(self, named: Named, *, split: Split, directory: Path) -> tuple[ImageSource, Truth] | None:
        """The images of a split of a data set, and what is known of them; None: the set is another task's.

        Raises:
            UserError: no such data set, or no image in the split.
        """
        return None
