"""The HTTP application: routes, error handlers and headers. A `Host` holds the models."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Union

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

from fissura.core.tasks import Task, all_tasks
from fissura.serving import schema
from fissura.serving.middleware import OPEN, Guard
from fissura.serving.model_routes import model_routes
from fissura.serving.page import page
from fissura.serving.parameters import MOST_SHOWN, check_query, rule, shown
from fissura.serving.problems import Kind, Problem, Refused, problem_response
from fissura.serving.query import Form, Parameter
from fissura.serving.service import Service

API_VERSION = "1"
ModelName = Annotated[
    str | None, Query(description="By default the default model.", max_length=63, min_length=1)
]
_PARAMETERS: dict[Parameter, Any] = {
    "answer": Annotated[Form | None, Query(description="By default what `Accept` asks for.")],
    "mm_per_pixel": Annotated[float | None, Query(gt=0, lt=1e6, allow_inf_nan=False)],
    "threshold": Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)],
}
_ANSWER = schema.problems(
    "no-token", "malformed", "not-found", "not-acceptable", "too-large", "not-an-image-type",
    "unreadable-image", "too-many-waiting", "failed", "not-ready", "too-slow",
)  # fmt: skip
_PICTURE = {"schema": {"type": "string", "format": "binary"}}


def build_app(service: Service, *more: APIRouter) -> FastAPI:
    """The application of a service; `more` are further routers that require the token."""
    app = FastAPI(
        title="fissura", version=API_VERSION, docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False, description="Finds the cracks in photographs.",
    )  # fmt: skip
    for router in (
        _open_routes(service),
        _scoring_routes(service),
        model_routes(service.host, service.roots),
        _inner_routes(service, app),
        *more,
    ):
        app.include_router(router, dependencies=[Depends(check_query)])
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_middleware(Guard, service=service)
    return app


def _scoring_routes(service: Service) -> APIRouter:
    """One route per task."""
    router = APIRouter(prefix="/v1", tags=["images"])
    batch = schema.batch_document([task.service.document for task in all_tasks()])
    for task in all_tasks():
        own = task.service
        pictures = dict.fromkeys(own.media, _PICTURE)
        success = {
            "model": Union[own.document, batch],  # noqa: UP007  of values
            **({"content": {**pictures, "application/zip": _PICTURE}} if pictures else {}),
            "description": own.answers,
        }
        router.add_api_route(
            f"/{task.address}",
            _scoring_route(service, task),
            methods=["POST"],
            openapi_extra=schema.IMAGES_BODY,
            response_class=JSONResponse,
            responses={200: success, **_ANSWER},
        )
    return router


def _scoring_route(service: Service, task: Task) -> Callable[..., Awaitable[Response]]:
    """The handler of a task's route; its signature lists the parameters of the task."""

    async def scored(request: Request, model: ModelName = None, **query: Any) -> Response:
        return await service.scored(request, model=model, task=task.name, query=query)

    own = {name: _PARAMETERS[name] for name in task.service.parameters}
    kind = inspect.Parameter.KEYWORD_ONLY
    scored.__name__, scored.__doc__ = task.address, task.service.asks
    scored.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("request", kind, annotation=Request),
            inspect.Parameter("model", kind, annotation=ModelName, default=None),
            *(
                inspect.Parameter(name, kind, annotation=annotation, default=None)
                for name, annotation in own.items()
            ),
        ],
        return_annotation=Response,
    )
    return scored


def _open_routes(service: Service) -> APIRouter:
    """Routes without a token: they reveal nothing about models or images."""
    router = APIRouter()
    html, policy = page()

    @router.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def front() -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @router.get("/healthz", response_model=schema.HealthDocument, tags=["health"])
    async def health() -> Response:
        """The process answers."""
        return JSONResponse({"status": "up"})

    @router.get(
        "/readyz",
        response_model=schema.HealthDocument,
        responses=schema.problems("not-ready"),
        tags=["health"],
    )
    async def ready() -> Response:
        """A model is hosted."""
        if not service.host.models().hosted:
            raise Refused(
                Problem("not-ready", "a model is hosted", "none is yet", "wait, or look at the log")
            )
        return JSONResponse({"status": "ready"})

    return router


def _inner_routes(service: Service, app: FastAPI) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus"},
            **schema.problems("no-token"),
        },
    )
    async def metrics() -> Response:
        """Counters of this service in Prometheus's text format."""
        return Response(service.telemetry.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return JSONResponse(openapi_document(app, token_digest=service.token_digest))

    return router


def openapi_document(app: FastAPI, *, token_digest: str | None = None) -> dict[str, Any]:
    """The full OpenAPI document; with a token, all routes but `OPEN` require it."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["ProblemDocument"] = schema.ProblemDocument.model_json_schema()
    invalid = schema.problems("invalid-value", "unreadable-image")[422]
    guarded = schema.problems("cross-site", "too-large", "stood-still", "too-slow")
    for method, operation in (pair for path in document["paths"].values() for pair in path.items()):
        operation["responses"]["422"] = invalid
        # a GET has no body; only its Host header can be refused
        for status in guarded if method != "get" else (403,):
            operation["responses"].setdefault(str(status), guarded[status])
    # this service never sends FastAPI's own 422 document
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if token_digest is not None:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        for path in OPEN & document["paths"].keys():
            document["paths"][path]["get"]["security"] = []
    return document


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101  registered for this class only
    return problem_response(error.problem)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    rules, values = [], []
    for problem in error.errors()[: 2 * MOST_SHOWN]:  # bounded: each is compared with all known names
        rules.append(rule(problem, request))
        values.append(f"{repr(problem.get('input'))[:80]} was sent")
    return problem_response(
        Problem("invalid-value", shown(rules), shown(values), "mend it; see /openapi.json")
    )


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if isinstance(error.__cause__, Refused):  # FastAPI read the body, and the guard refused it
        return problem_response(error.__cause__.problem)
    kinds: dict[int, Kind] = {404: "not-found", 405: "wrong-method"}
    kind = kinds.get(error.status_code, "malformed")
    response = problem_response(
        Problem(
            kind,
            "a request goes to one of the service's addresses",
            f"{request.method} {request.scope['path'][:200]!r} is none"
            if kind != "malformed"
            else str(error.detail)[:200],
            "see /openapi.json",
        )
    )
    response.headers.update(error.headers or {})
    return response
