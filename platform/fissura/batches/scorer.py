"""What scores images, as a batch sees it, and what may come of one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fissura.batches.pictures import Kind
from fissura.core.errors import FissuraError, SpecError
from fissura.core.spec import describe
from fissura.core.tasks import task_named


class ToldDocument(BaseModel):
    """A part of what a model says of an image."""

    # a service of a later version may say more
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ModelCard(BaseModel):
    """What is known of a model; `name` and `version` are None where nobody serves it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    name: str | None = None
    version: int | None = None
    run: str
    task: str
    threshold: float | None = None
    classes: tuple[str, ...] = ()


class ImageFacts(ToldDocument):
    """The image as the scorer read it: upright, sizes in pixels; `remarks` say what was odd about it."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    remarks: tuple[str, ...] = ()


class Result(ToldDocument):
    """What a model says of one image: the service's result object, of whose kinds each task has one.

    `threshold` (0..1) is that of an answer with a map. `seconds` is the time that it took.
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
            Disagreement: it is none.
        """
        try:
            task = task_named(Result.model_validate(plain).task)
            return task.batch.result.model_validate(plain)
        except ValidationError as error:
            problem = describe(error)[0]
        except SpecError as error:
            problem = str(error)
        raise Disagreement(f"a result object breaks a rule: {problem}")


@dataclass(frozen=True)
class Scored:
    """The result for one image, and the files of the pictures that were asked for."""

    result: Result
    pictures: Mapping[Kind, bytes] = field(default_factory=dict)


class Scorer(Protocol):
    """Scores one image at a time, several at once."""

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result for the bytes of an image file.

        Raises:
            Unscorable: this image has no result, today or tomorrow.
            Busy: later.
            Unreachable: nobody could answer.
            FissuraError: anything else ends the batch.
        """
        ...


class Unscorable(FissuraError):
    """The image itself cannot be scored; the batch goes on without it."""


class Busy(FissuraError):
    """Too much is waiting: the image is to be sent again after `seconds`."""

    def __init__(self, problem: str, *, seconds: float) -> None:
        super().__init__(problem)
        self.seconds = seconds


class Unreachable(FissuraError):
    """Nobody could answer: tried again some times, then the batch stops, and the image has no row."""


class Failing(Unreachable):
    """The scorer answered that it failed: tried again some times, then it is told of as the image's failure,
    so that one image cannot stop a batch."""


class Disagreement(FissuraError):
    """The scorer does not speak the language that was agreed on."""
