"""The interface of a scorer, and the outcomes of an image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fissura.batches.pictures import Kind
from fissura.core.errors import FissuraError, SpecError
from fissura.core.spec import describe
from fissura.core.tasks import task_named


class ScorerDocument(BaseModel):
    """A part of a model's result for an image."""

    # a later version of the service may have more fields
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ModelCard(BaseModel):
    """The facts of a model; `name` and `version` are None if no service hosts it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    name: str | None = None
    version: int | None = None
    run: str
    task: str
    threshold: float | None = None
    classes: tuple[str, ...] = ()


class ImageFacts(ScorerDocument):
    """The image as read by the scorer: upright, sizes in pixels; `remarks` name its oddities."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    remarks: tuple[str, ...] = ()


class Result(ScorerDocument):
    """A model's result for one image: the service's result object; each task has its own kind.

    `threshold` (0..1) belongs to a result with a map. `seconds` is its computing time.
    """

    run: str
    version: int | None = None
    task: str
    image: ImageFacts
    seconds: float = Field(ge=0)
    threshold: float | None = Field(None, ge=0, le=1)

    @staticmethod
    def of(plain: Any) -> "Result":
        """The result in JSON types.

        Raises:
            Disagreement: it is not a result object.
        """
        try:
            task = task_named(Result.model_validate(plain).task)
            return task.batch.result.model_validate(plain)
        except ValidationError as error:
            problem = describe(error)[0]
        except SpecError as error:
            problem = str(error)
        raise Disagreement(f"a result object breaks a rule: {problem}")


def threshold_of_map(threshold: float | None) -> float:
    """The threshold of a map, 0..1.

    Raises:
        Disagreement: the map has none.
    """
    if threshold is None:
        raise Disagreement("a map has a threshold, and this one comes without: ask a service of this version")
    return threshold


@dataclass(frozen=True)
class Scored:
    """The result for one image, and the files of its requested pictures."""

    result: Result
    pictures: Mapping[Kind, bytes] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores one image at a time, several at once."""

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result for the bytes of an image file.

        Raises:
            Unscorable: this image cannot have a result; a retry does not help.
            Busy: retry later.
            Unreachable: no scorer answered.
            FissuraError: any other error; it ends the batch.
        """
        ...


class Unscorable(FissuraError):
    """The image itself cannot be scored; the batch continues without it."""


class Busy(FissuraError):
    """The scorer's queue is full: send the image again after `seconds`."""

    def __init__(self, problem: str, *, seconds: float) -> None:
        super().__init__(problem)
        self.seconds = seconds


class Unreachable(FissuraError):
    """No scorer answered: the batch retries, then stops; the image has no row."""


class Failing(Unreachable):
    """The scorer failed: the batch retries, then records a failure of the image, so that one image cannot
    stop a batch."""


class Disagreement(FissuraError):
    """The scorer breaks the protocol."""
