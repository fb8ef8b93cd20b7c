"""The documents of the service, as OpenAPI describes them."""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from fissura.core.tasks import all_tasks
from fissura.serving.body import FIELD, RAW_TYPES
from fissura.serving.problems import MEDIA_TYPE, STATUS, Kind


class StrictDocument(BaseModel):
    """A document without other fields than its own."""

    model_config = ConfigDict(extra="forbid")


class ProblemDocument(StrictDocument):
    """What is wrong: `title` is the rule, `detail` what the request has, `remedy` what to do."""

    type: str = Field(pattern="^urn:fissura:problem:")
    title: str
    status: int
    detail: str
    remedy: str
    retry_after: int | None = None


class ImageDocument(StrictDocument):
    """One image; sizes in pixels, upright as its EXIF tag says."""

    name: str | None
    height: int
    width: int
    sha256: str
    remarks: list[str]


class ResultHead(StrictDocument):
    """What the result of one image says, whatever the task."""

    model: str
    version: int
    run: str
    image: ImageDocument
    seconds: float


class NamedImage(StrictDocument):
    """The name that the client gave to an image."""

    name: str | None


class ImageProblem(StrictDocument):
    """An image of a batch that has no result."""

    image: NamedImage
    problem: ProblemDocument


def batch_document(results: Sequence[type[BaseModel]]) -> type[BaseModel]:
    """The document of a batch: for each image one of these results, or a problem."""
    result: Any = reduce(or_, (*results, ImageProblem))
    return create_model(
        "BatchDocument",
        __base__=StrictDocument,
        __doc__="The results of a batch, in the order in which its images were sent.",
        results=(list[result], ...),
    )


def _name_tasks(plain: dict[str, Any]) -> None:
    plain["enum"] = [task.name for task in all_tasks()]


class ModelDocument(StrictDocument):
    """One hosted model."""

    name: str
    version: int
    previous: int | None
    task: Annotated[str, Field(json_schema_extra=_name_tasks)]
    run: str
    recipe: str | None
    parameters: int
    threshold: float | None = None
    classes: list[str]
    trained_on: list[str]
    data_digest: str
    finished: str
    code_version: str


class ModelsDocument(StrictDocument):
    """All hosted models."""

    default: str
    models: list[ModelDocument]


class HealthDocument(StrictDocument):
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
