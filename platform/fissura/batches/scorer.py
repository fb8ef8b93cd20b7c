"""What scores images, as a batch sees it, and what may come of one image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fissura.batches.pictures import Kind
from fissura.core.errors import FissuraError
from fissura.core.spec import describe

Task = Literal["segmentation", "classification"]


class _Document(BaseModel):
    # a service of a later version may say more
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ModelCard(BaseModel):
    """What is known of a model; `name` and `version` are None where nobody serves it."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())

    name: str | None = None
    version: int | None = None
    run: str
    task: Task
    threshold: float | None = None
    classes: tuple[str, ...] = ()


class ImageFacts(_Document):
    """The image as the scorer read it: upright, sizes in pixels; `remarks` say what was odd about it."""

    height: int = Field(ge=1)
    width: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    remarks: tuple[str, ...] = ()


class CrackRow(_Document):
    """One crack of the table of an image, see `fissura.segmentation.crack_measures.MeasuredCrack`."""

    box: tuple[int, int, int, int]
    area_px: int
    length_px: float | None
    mean_width_px: float | None
    width_95_px: float | None
    largest_width_px: float | None
    orientation_degrees: float | None
    length_mm: float | None
    mean_width_mm: float | None
    width_95_mm: float | None
    largest_width_mm: float | None


class Result(_Document):
    """What a model says of one image: the service's result object.

    Of a segmentation: the `threshold` (0..1), the measures of its `cracks` and the longest of them one by one
    (none where a service of an earlier version does not tell). Of a classification: the name
    of the class, and the decision value of each pair of classes. `seconds` is the time that it took.
    """

    run: str
    version: int | None = None
    task: Task
    image: ImageFacts
    seconds: float = Field(ge=0)
    threshold: float | None = Field(None, ge=0, le=1)
    cracks: dict[str, int | float | None] | None = None
    crack_table: tuple[CrackRow, ...] = ()
    label: str | None = None
    decisions: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _belongs_to_its_task(self) -> Self:
        needed = (
            (self.threshold, self.cracks) if self.task == "segmentation" else (self.label, self.decisions)
        )
        if None in needed:
            raise ValueError(f"a result of a {self.task} holds what its task gives")
        return self

    @classmethod
    def of(cls, plain: Any) -> Self:
        """The result in JSON types.

        Raises:
            Disagreement: it is none.
        """
        try:
            return cls.model_validate(plain)
        except ValidationError as error:
            raise Disagreement(f"a result object breaks a rule: {describe(error)[0]}") from None


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
