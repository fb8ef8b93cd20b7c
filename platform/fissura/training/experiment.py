"""What a recipe of any task is: a frozen description with a name and a seed, and the digests that name it."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from pydantic import Field

from fissura.core.spec import Spec, digest

KeptBy = Literal["val/loss", "val/f1", "val/dice", "val/iou", "val/precision", "val/recall"]
"""What the kept model of a segmentation can be chosen by."""


class Experiment(Spec):
    """Base of the recipes: everything that decides a training.

    The same recipe, data and seed give the same result on the same machine. `task` says what it does with an
    image; `metrics` are what its trials report, and so what a search can make best.
    """

    task: ClassVar[Literal["segmentation", "classification"]]
    metrics: ClassVar[frozenset[str]]

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = Field(0, ge=0, lt=2**32)

    @property
    @abstractmethod
    def length(self) -> int:
        """Epochs of a trial; 1 where a trial is a single step."""

    @abstractmethod
    def measured(self, metric: str, *, on: str) -> str:
        """Where and how a trial's `metric` is measured, as the end of a sentence; `on` names the data. Empty
        for what no image decides."""

    @property
    def last_phase(self) -> range:
        """The epochs, counted from 0, of its last phase."""
        return range(self.length)

    @property
    def configuration(self) -> str:
        """A digest of all but the seed: what a leaderboard row stands for."""
        return digest({**self.named_by(), "seed": None})

    def run_id(self, content: str) -> str:
        """The name of the run of this recipe on data of this content digest; equal runs have equal names."""
        return digest({"recipe": self.named_by(), "content": content})[:12]

    def named_by(self) -> dict[str, Any]:
        """The plain form, of which its digests are."""
        return self.plain()
