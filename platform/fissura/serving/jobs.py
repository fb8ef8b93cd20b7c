"""Batch work inside the service: folders that the cluster can read, scored one job after the other.

STATE/<id>.json   what was asked, and how it stands; what was running goes on when the service starts again
One that is damaged stays, and is told of in the log and beside the jobs.
"""

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fissura.batches.pictures import Kind, draw_from
from fissura.batches.run import BatchResult, score_all
from fissura.batches.scorer import Busy, Failing, Result, Scored, Unreachable, Unscorable
from fissura.batches.sink import Question, open_sink
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError, FissuraError, SpecError
from fissura.core.files import write_json
from fissura.core.spec import Spec
from fissura.serving.allowed_roots import check_target
from fissura.serving.answering import Answering
from fissura.serving.body import Upload
from fissura.serving.hosting import Host, Hosted
from fissura.serving.problems import Problem, Refused
from fissura.serving.query import Asked

State = Literal["waiting", "running", "done", "cancelled", "failed"]
ID = r"^[0-9a-f]{16}$"
MOST_JOBS = 10_000
MOST_LEFT_OUT = 100
CONCURRENCY = 4
WRITE_EVERY_SECONDS = 5.0


class Work(Spec):
    """What a job is to do: where its images are, where its results go, which model, and which pictures."""

    images: str
    out: Path
    model: str | None = None
    mm_per_pixel: float | None = Field(None, gt=0, lt=1e6)
    pictures: tuple[Kind, ...] = ()


class Job(Spec):
    """A job and how it stands; `images` is None until they are listed, `created` in seconds since 1970.
    `left_out` are files beside the images that are not read, for their suffix; the first MOST_LEFT_OUT."""

    id: str = Field(pattern=ID)
    work: Work
    state: State = "waiting"
    created: float
    images: int | None = None
    done: int = 0
    failed: int = 0
    left_out: tuple[str, ...] = ()
    results: str | None = None
    reason: str | None = None

    def shown(self) -> dict[str, Any]:
        """The job as a client sees it, in JSON types."""
        plain = self.plain()
        work = plain.pop("work")
        return {**work, **plain, "source": work["images"]}


@dataclass(frozen=True)
class _HostScorer:
    """Scores by a model of this service, among the requests that come in."""

    answering: Answering
    model: Hosted
    work: Work

    async def score(self, name: str, photograph: bytes) -> Scored:
        """The result for the bytes of an image file, and its pictures."""
        segments = self.model.task == "segmentation"
        form: Literal["probability", "json"] = "probability" if segments and self.work.pictures else "json"
        asked = Asked(form=form, mm_per_pixel=self.work.mm_per_pixel) if segments else Asked()
        try:
            [reply] = await self.answering.replies(self.model, [Upload(name, photograph)], asked)
        except Refused as refused:
            raise _as_outcome(refused.problem) from None
        if reply.problem is not None:
            raise _as_outcome(reply.problem)
        result = Result.of(reply.result)
        if result.run != self.model.card["run"]:
            raise FissuraError(
                "one model answers a whole job: another version took its place; bring the former back and"
                " resume, or begin another job"
            )
        if reply.picture is None:
            return Scored(result)
        try:
            pictures = await asyncio.to_thread(
                draw_from,
                photograph,
                reply.picture,
                threshold=result.threshold or 0.0,
                kinds=self.work.pictures,
            )
        except DataError as error:
            raise Unscorable(str(error)) from None
        return Scored(result, pictures)


def _as_outcome(problem: Problem) -> FissuraError:
    text = f"{problem.title}: {problem.detail}; {problem.remedy}"
    if problem.kind == "too-many-waiting":
        return Busy(text, seconds=float(problem.retry_after or 1))
    if problem.kind == "not-ready":
        return Unreachable(text)
    if problem.kind in ("failed", "too-slow"):
        return Failing(text)
    return Unscorable(text)


class Jobs:
    """The jobs of a service, kept in a folder; one runs at a time, in the order in which they were asked."""

    def __init__(self, folder: Path, host: Host, answering: Answering) -> None:
        self._folder, self._host, self._answering = folder, host, answering
        self._jobs: dict[str, Job] = {}
        self.damaged: tuple[str, ...] = ()  # of files that tell of no job: each one's path, what is wrong
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Takes in the jobs of the folder; those that had not ended go on."""
        jobs, self.damaged = await asyncio.to_thread(_read_jobs, self._folder)
        for line in self.damaged:
            logging.getLogger(__name__).warning("a job was lost: %s", line)
        for job in jobs:
            self._jobs[job.id] = job
            if job.state in ("waiting", "running"):
                self._begin(job)

    async def close(self) -> None:
        """Ends what runs; it goes on when the service starts again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: (-job.created, job.id))

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            Refused: there is none of this id.
        """
        if job_id not in self._jobs:
            raise Refused(
                Problem(
                    "not-found", "a job is named by its id", f"there is no {job_id!r}", "see GET /v1/jobs"
                )
            )
        return self._jobs[job_id]

    async def submit(self, work: Work) -> Job:
        """A new job, waiting for its turn.

        Raises:
            Refused: no model can do it, another job writes there, or there are too many jobs.
        """
        self._host.models().named(work.model)
        rival = next(
            (one for one in self._jobs.values() if one.work.out == work.out and self._holds(one)), None
        )
        if rival is not None or len(self._jobs) >= MOST_JOBS:
            raise Refused(
                Problem(
                    "conflict",
                    f"each job has an `out` of its own, and a service keeps at most {MOST_JOBS} jobs",
                    f"job {rival.id} writes there" if rival else "there are that many",
                    "name another `out`" if rival else "delete files of old jobs, and start it again",
                )
            )
        job = Job(id=secrets.token_hex(8), work=work, created=time.time())
        self._set(job)
        await self._keep(job)
        self._begin(job)
        return job

    async def cancel(self, job_id: str) -> Job:
        """Ends a job; the rows that it has stay, and it can be resumed."""
        job = self.get(job_id)
        if not self._holds(job):
            raise Refused(
                Problem(
                    "conflict",
                    "a job that waits or runs can be cancelled",
                    f"this one is {job.state}",
                    "leave it",
                )
            )
        self._stops[job_id].set()
        job = job.model_copy(update={"state": "cancelled", "reason": "cancelled by a client"})
        self._set(job)
        await self._keep(job)
        return job

    async def resume(self, job_id: str) -> Job:
        """Goes on with a job that was cancelled or failed."""
        job = self.get(job_id)
        if job.state not in ("cancelled", "failed") or self._holds(job):
            raise Refused(
                Problem(
                    "conflict",
                    "a job that was cancelled or failed, and has ended, can be resumed",
                    f"this one is {job.state}",
                    "wait for it",
                )
            )
        job = job.model_copy(update={"state": "waiting", "reason": None})
        self._set(job)
        await self._keep(job)
        self._begin(job)
        return job

    def _holds(self, job: Job) -> bool:
        """Whether a job may still write: it waits, runs, or was cancelled and has not ended yet."""
        return job.id in self._stops and job.state not in ("done", "failed")

    def _begin(self, job: Job) -> None:
        self._stops[job.id] = asyncio.Event()
        task = asyncio.get_running_loop().create_task(self._run(job.id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job_id: str) -> None:
        stop = self._stops[job_id]
        try:
            async with self._turn:
                if not stop.is_set():
                    await self._in_turn(job_id, stop)
        finally:
            if self._stops.get(job_id) is stop:  # it may have been resumed already
                del self._stops[job_id]

    async def _in_turn(self, job_id: str, stop: asyncio.Event) -> None:
        try:
            result = await self._score(job_id, stop)
        except Refused as refused:
            await self._end(job_id, state="failed", reason=str(refused))
        except (FissuraError, OSError) as error:
            await self._end(job_id, state="failed", reason=" ".join(str(error).split())[:1000])
        else:
            if result.results is not None:
                await self._end(job_id, state="done", result=result)
            else:
                state: State = "cancelled" if stop.is_set() else "failed"
                await self._end(job_id, state=state, result=result, reason=result.stopped)

    async def _score(self, job_id: str, stop: asyncio.Event) -> BatchResult:
        work = self._jobs[job_id].work
        check_target(work.out.resolve(), what="out")  # it may have become a run's since it was asked for
        self._update(job_id, state="running", reason=None)
        model = self._host.models().named(work.model)
        source = await asyncio.to_thread(ImageSource.open, work.images)
        if source.root is not None and work.out.is_relative_to(source.root):
            raise DataError(f"{work.out}: results lie outside of the images' folder; name another `out`")
        if model.task == "classification" and (work.pictures or work.mm_per_pixel):
            raise DataError(
                f"`{model.name}`: of a classifier no picture and no scale can be asked; leave `pictures` and"
                " `mm_per_pixel` out"
            )
        question = Question.load(
            {
                "source": source.label,
                "model": model.name,
                "run": model.card["run"],
                "version": model.version,
                "task": model.task,
                "threshold": model.card.get("threshold"),
                "mm_per_pixel": work.mm_per_pixel,
                "pictures": list(work.pictures),
            },
            source="job",
        )
        names = source.names()
        self._update(job_id, images=len(names), left_out=source.left_out[:MOST_LEFT_OUT])
        written = time.monotonic()

        def on_image(done: int, _: int) -> None:
            nonlocal written
            self._update(job_id, done=done, failed=len(sink.failed))
            if time.monotonic() - written > WRITE_EVERY_SECONDS:
                written = time.monotonic()
                _write(self._folder, self._jobs[job_id])

        with open_sink(work.out, question, names) as sink:
            return await score_all(
                source,
                _HostScorer(self._answering, model, work),
                sink,
                concurrency=CONCURRENCY,
                on_image=on_image,
                stop=stop,
            )

    async def _end(
        self, job_id: str, *, state: State, result: BatchResult | None = None, reason: str | None = None
    ) -> None:
        if result is not None:
            self._update(job_id, done=result.done, failed=result.failed)
            if result.results is not None:
                self._update(job_id, results=str(result.results))
        self._update(job_id, state=state, reason=reason)
        await self._keep(self._jobs[job_id])

    def _update(self, job_id: str, **changes: Any) -> None:
        self._set(self._jobs[job_id].model_copy(update=changes))

    def _set(self, job: Job) -> None:
        self._jobs[job.id] = job

    async def _keep(self, job: Job) -> None:
        await asyncio.to_thread(_write, self._folder, job)


def _write(folder: Path, job: Job) -> None:
    write_json(folder / f"{job.id}.json", job.plain())


def _read_jobs(folder: Path) -> tuple[list[Job], tuple[str, ...]]:
    """The jobs of the folder, and a line for each file of which none can be read."""
    jobs, damaged = [], list[str]()
    for path in sorted(folder.glob("*.json"))[:MOST_JOBS]:
        try:
            jobs.append(Job.load_file(path, remedy=_REMEDY))
        except SpecError as error:
            damaged.append(error.problems[0])
    return jobs, tuple(damaged)


_REMEDY = "remove it, and ask for the job again"
