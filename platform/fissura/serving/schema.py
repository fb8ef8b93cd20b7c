"""The documents of the service, as OpenAPI describes them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fissura.serving.body import FIELD, RAW_TYPES
from fissura.serving.problems import MEDIA_TYPE, STATUS, Kind


class _StrictDocument(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ProblemDocument(_StrictDocument):
    """What is wrong: `title` is the rule, `detail` what the request has, `remedy` what to do."""

    type: str = Field(pattern="^urn:fissura:problem:")
    title: str
    status: int
    detail: str
    remedy: str
    retry_after: int | None = None


class ImageDocument(_StrictDocument):
    """One image; sizes in pixels, upright as its EXIF tag says."""

    name: str | None
    height: int
    width: int
    sha256: str
    remarks: list[str]


class _Head(_StrictDocument):
    model: str
    version: int
    run: str
    image: ImageDocument
    seconds: float


class CrackDocument(_StrictDocument):
    """One crack: `box` is left, top, width and height in pixels; 95 % of its length is at most `width_95`
    wide; `orientation_degrees` is counter-clockwise from the image's rows, 0 to below 180."""

    box: list[int] = Field(min_length=4, max_length=4)
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


class SegmentationResult(_Head):
    """What was found in one image. `cracks` measures all of them and says in `cracks` how many there are;
    `crack_table` has the 100 longest, the longest first (10 in the header of a picture)."""

    task: Literal["segmentation"]
    threshold: float
    cracks: dict[str, float | int | None]
    crack_table: list[CrackDocument]


class ClassificationResult(_Head):
    """The class of one image."""

    task: Literal["classification"]
    label: str
    decisions: list[float]


class NamedImage(_StrictDocument):
    """The name that the client gave to an image."""

    name: str | None


class ImageProblem(_StrictDocument):
    """An image of a batch that has no result."""

    image: NamedImage
    problem: ProblemDocument


class BatchDocument(_StrictDocument):
    """The results of a batch, in the order in which its images were sent."""

    results: list[SegmentationResult | ClassificationResult | ImageProblem]


class ModelDocument(_StrictDocument):
    """One hosted model."""

    name: str
    version: int
    previous: int | None
    task: Literal["segmentation", "classification"]
    run: str
    recipe: str | None
    parameters: int
    threshold: float | None = None
    classes: list[str]
    trained_on: list[str]
    data_digest: str
    finished: str
    code_version: str


class ModelsDocument(_StrictDocument):
    """All hosted models."""

    default: str
    models: list[ModelDocument]


class HealthDocument(_StrictDocument):
    """The service is up."""

    status: Literal["up", "ready"]


def problems(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, for FastAPI's `responses`."""
    schema = {"$ref": "#/components/schemas/ProblemDocument"}
    return {
        int(STATUS[kind]): {
            "description": STATUS[kind].phrase,
            "content": {MEDIA_TYPE: {"schema": schema}},
            **(_RETRY if kind == "too-many-waiting" else {}),
        }
        for kind in kinds
    }


_RETRY: dict[str, Any] = {
    "headers": {
        "Retry-After": {
            "description": "seconds",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    }
}
IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            **{media: {"schema": {"type": "string", "format": "binary"}} for media in RAW_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "additionalProperties": False,
                    "properties": {
                        FIELD: {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
        },
    }
}
