"""Routes for models: list them, deploy a next version, roll back."""

from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from fissura.serving import schema
from fissura.serving.allowed_roots import Roots
from fissura.serving.hosting import NAME, Host, Hosted

Name = Annotated[str, Path(pattern=NAME)]


class NextVersion(BaseModel):
    """The run that a model is to be of; `default` also makes it the one that answers where none is named."""

    model_config = ConfigDict(extra="forbid", strict=True)

    run: str = Field(min_length=1, max_length=4096)
    threshold: float | None = Field(None, ge=0, le=1)
    default: bool = False


def model_routes(host: Host, roots: Roots) -> APIRouter:
    """The routes below /v1/models."""
    router = APIRouter(prefix="/v1", tags=["models"])

    @router.get("/models", response_model=schema.ModelsDocument, responses=schema.problems("no-token"))
    async def models() -> Response:
        """All models that are hosted, and which one is the default."""
        hosted = host.models()
        return JSONResponse(
            {"default": hosted.default, "models": [plain(model) for model in hosted.hosted.values()]}
        )

    @router.put(
        "/models/{name}",
        response_model=schema.ModelDocument,
        responses=schema.problems(
            "no-token", "malformed", "too-large", "outside-the-roots", "conflict", "failed", "not-ready"
        ),
    )
    async def put(name: Name, next_version: NextVersion) -> Response:
        """Loads a run beside the model of this name, and lets it take its place when it answers."""
        run = roots.folder(next_version.run, what="run")
        hosted = await host.put(
            name, FilePath(run), threshold=next_version.threshold, default=next_version.default
        )
        return JSONResponse(plain(hosted))

    @router.post(
        "/models/{name}/rollback",
        response_model=schema.ModelDocument,
        responses=schema.problems("no-token", "conflict", "failed", "not-ready"),
    )
    async def roll_back(name: Name) -> Response:
        """Brings the run before back, as the next version."""
        return JSONResponse(plain(await host.roll_back(name)))

    return router


def plain(model: Hosted) -> dict[str, Any]:
    """A hosted model as JSON types."""
    head = {"name": model.name, "version": model.version, "previous": model.previous}
    return {**head, **model.card}
