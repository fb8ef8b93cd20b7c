"""Routes for jobs: batch work on folders and prefixes that the cluster can read."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from fissura.batches.pictures import Kind
from fissura.serving import schema
from fissura.serving.allowed_roots import Roots
from fissura.serving.job_files import ID, State, Work
from fissura.serving.jobs import Jobs
from fissura.serving.problems import Problem, Refused

JobId = Annotated[str, Path(pattern=ID)]


class JobRequest(BaseModel):
    """Images to be scored: a folder or an object-store prefix, and the folder for the results."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: str = Field(min_length=1, max_length=4096)
    out: str = Field(min_length=1, max_length=4096)
    model: str | None = Field(None, min_length=1, max_length=63)
    mm_per_pixel: float | None = Field(None, gt=0, lt=1e6, allow_inf_nan=False)
    pictures: list[Literal["masks", "probabilities", "overlays"]] = Field(default_factory=list, max_length=3)


class JobDocument(BaseModel):
    """A job and its state. `images` is null until they are listed; `results` is set when it is done."""

    model_config = ConfigDict(extra="forbid")

    id: str
    state: State
    created: float
    images: int | None
    source: str
    out: str
    model: str | None
    mm_per_pixel: float | None
    pictures: list[Kind]
    done: int
    failed: int
    left_out: list[str]
    results: str | None
    reason: str | None


class JobsDocument(BaseModel):
    """All jobs, the newest first, and a line for each damaged file of one: which, what is wrong, and the
    remedy."""

    model_config = ConfigDict(extra="forbid")

    jobs: list[JobDocument]
    damaged: list[str]


def job_routes(jobs: Jobs | None, roots: Roots) -> APIRouter:
    """The routes below /v1/jobs; `jobs` is None if the service has no root for them. Jobs read and write
    below `roots`."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    common = schema.problems("no-token", "conflict")

    def enabled_jobs() -> Jobs:
        if jobs is None:
            raise Refused(
                Problem(
                    "conflict",
                    "jobs read and write below a root that the service was started with",
                    "this one has none",
                    "start it with --root FOLDER",
                )
            )
        return jobs

    @router.post(
        "",
        status_code=202,
        response_model=JobDocument,
        responses={**common, **schema.problems("malformed", "outside-the-roots", "not-found")},
    )
    async def submit(asked: JobRequest) -> Response:
        """Begins to score the images below a folder or prefix; one row an image goes to `out`."""
        service_jobs = enabled_jobs()
        work = Work(
            images=roots.source(asked.images, what="images"),
            out=roots.target(asked.out, what="out"),
            model=asked.model,
            mm_per_pixel=asked.mm_per_pixel,
            pictures=tuple(dict.fromkeys(asked.pictures)),
        )
        return JSONResponse((await service_jobs.submit(work)).shown(), status_code=202)

    @router.get("", response_model=JobsDocument, responses=common)
    async def every() -> Response:
        """All jobs, the newest first; `damaged` names the files that tell of none."""
        service_jobs = enabled_jobs()
        return JSONResponse(
            {"jobs": [job.shown() for job in service_jobs.all()], "damaged": list(service_jobs.damaged)}
        )

    @router.get("/{job_id}", response_model=JobDocument, responses={**common, **schema.problems("not-found")})
    async def one(job_id: JobId) -> Response:
        """How a job stands."""
        return JSONResponse(enabled_jobs().get(job_id).shown())

    @router.delete(
        "/{job_id}", response_model=JobDocument, responses={**common, **schema.problems("not-found")}
    )
    async def cancel(job_id: JobId) -> Response:
        """Ends a job; the rows that it has stay."""
        return JSONResponse((await enabled_jobs().cancel(job_id)).shown())

    @router.post(
        "/{job_id}/resume", response_model=JobDocument, responses={**common, **schema.problems("not-found")}
    )
    async def resume(job_id: JobId) -> Response:
        """Goes on with a job that was cancelled or failed."""
        roots.target(str(enabled_jobs().get(job_id).work.out), what="out")
        return JSONResponse((await enabled_jobs().resume(job_id)).shown())

    return router
