"""The base of every network's spec; `core.pretrained` loads its starting weights."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import Field

from fissura.core.paper import Paper
from fissura.core.pretrained import Hub, HubFile, check_weights, fill, starting_tensors
from fissura.core.spec import Spec
from fissura.models.segmenter import Segmenter

__all__ = ["Hub", "HubFile", "ModelSpec", "check_weights", "fill", "starting_tensors"]


class ModelSpec(Spec, ABC):
    """Base of every model spec. `weights` is `imagenet`, `none` (random) or the path of a file."""

    paper: ClassVar[Paper | None] = None
    """Where the network was published; None where it has no single source."""
    variant: ClassVar[str | None] = None
    """The setting whose choices are separate networks, each with its own weights; None: no setting is."""

    learns: ClassVar[bool] = True
    """False for a filter, which has nothing to learn."""

    weights: str = Field("none", min_length=1, max_length=4096)

    def named_by(self) -> dict[str, Any]:
        """The plain form; the name of a run is a digest of it."""
        return self.plain()

    @abstractmethod
    def hub_file(self) -> HubFile:
        """What `imagenet` stands for. Raises WeightsError where the network has no such weights."""

    @abstractmethod
    def build(self) -> Segmenter:
        """The network, drawn from PyTorch's generator where `weights` does not say otherwise.

        Raises:
            WeightsError: the weights cannot be had or do not fit.
        """
