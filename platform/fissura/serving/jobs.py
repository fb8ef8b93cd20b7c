"""Batch jobs inside the service: folders that the cluster can read, scored one job after the other.

STATE/<id>.json   the work and its state; unfinished jobs resume when the service restarts
Damaged files are kept, logged, and listed beside the jobs.
"""

import asyncio
import logging
import secrets
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fissura.batches.run import BatchResult, score_all
from fissura.batches.sink import Question, open_sink
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError, FissuraError
from fissura.core.tasks import task_named
from fissura.serving.allowed_roots import Roots
from fissura.serving.answering import Answering
from fissura.serving.hosting import Host
from fissura.serving.job_files import MOST_JOBS, Job, State, Work, read_jobs, write_job
from fissura.serving.job_scorer import HostScorer
from fissura.serving.problems import Problem, Refused

MOST_LEFT_OUT = 100
CONCURRENCY = 4
WRITE_EVERY_SECONDS = 5.0
RETRY_SECONDS = 30


class Jobs:
    """The jobs of a service, kept in a folder; one runs at a time, in the order of submission.

    What they read and write must lie below `roots`, on submission and again when they start.
    """

    def __init__(self, folder: Path, host: Host, answering: Answering, roots: Roots) -> None:
        self._folder, self._host, self._answering, self._roots = folder, host, answering, roots
        self._jobs: dict[str, Job] = {}
        self.damaged: tuple[str, ...] = ()  # a line for each unreadable file: its path and problem
        self._stops: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()

    async def start(self) -> None:
        """Loads the jobs of the folder, and resumes those that had not ended."""
        jobs, self.damaged = await asyncio.to_thread(read_jobs, self._folder)
        for line in self.damaged:
            logging.getLogger(__name__).warning("a job was lost: %s", line)
        for job in jobs:
            self._jobs[job.id] = job
            if job.state in ("waiting", "running"):
                self._begin(job)

    async def close(self) -> None:
        """Stops the running job; it resumes when the service restarts."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def all(self) -> list[Job]:
        """All jobs, the newest first."""
        return sorted(self._jobs.values(), key=lambda job: (-job.created, job.id))

    def get(self, job_id: str) -> Job:
        """One job.

        Raises:
            Refused: no job has this id.
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
            Refused: the model is unknown, another job has the same `out`, or there are too many jobs.
        """
        self._host.models().named(work.model)
        conflicting = next(
            (job for job in self._jobs.values() if job.work.out == work.out and self._may_write(job)), None
        )
        if conflicting is not None or len(self._jobs) >= MOST_JOBS:
            raise Refused(
                Problem(
                    "conflict",
                    f"each job has an `out` of its own, and a service keeps at most {MOST_JOBS} jobs",
                    f"job {conflicting.id} writes there" if conflicting else "there are that many",
                    "name another `out`" if conflicting else "delete files of old jobs, and start it again",
                )
            )
        job = Job(id=secrets.token_hex(8), work=work, created=time.time())
        self._set(job)
        try:
            await self._write(job)
        except Refused:
            del self._jobs[job.id]
            raise
        self._begin(job)
        return job

    async def cancel(self, job_id: str) -> Job:
        """Cancels a job; its rows stay, and it can be resumed."""
        job = self.get(job_id)
        if not self._may_write(job):
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
        await self._write(job)
        return job

    async def resume(self, job_id: str) -> Job:
        """Resumes a job that was cancelled or failed."""
        job = self.get(job_id)
        if job.state not in ("cancelled", "failed") or self._may_write(job):
            raise Refused(
                Problem(
                    "conflict",
                    "a job that was cancelled or failed, and has ended, can be resumed",
                    f"this one is {job.state}",
                    "wait for it",
                )
            )
        resumed = job.model_copy(update={"state": "waiting", "reason": None})
        self._set(resumed)
        try:
            await self._write(resumed)
        except Refused:
            self._set(job)
            raise
        self._begin(resumed)
        return resumed

    def _may_write(self, job: Job) -> bool:
        """Whether a job may still write: it waits, runs, or is being cancelled."""
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
                    await self._run_alone(job_id, stop)
        finally:
            if self._stops.get(job_id) is stop:  # it may have been resumed already
                del self._stops[job_id]

    async def _run_alone(self, job_id: str, stop: asyncio.Event) -> None:
        try:
            result = await self._score(job_id, stop)
        except Refused as refused:
            await self._end(job_id, state="failed", reason=str(refused))
        except (FissuraError, OSError) as error:
            await self._end(job_id, state="failed", reason=" ".join(str(error).split())[:1000])
        except Exception as error:
            logging.getLogger(__name__).exception("job %s failed", job_id)
            await self._end(job_id, state="failed", reason=f"{type(error).__name__}, see the service's log")
        else:
            if result.results is not None:
                await self._end(job_id, state="done", result=result)
            else:
                state: State = "cancelled" if stop.is_set() else "failed"
                await self._end(job_id, state=state, result=result, reason=result.stopped)

    async def _score(self, job_id: str, stop: asyncio.Event) -> BatchResult:
        work = self._jobs[job_id].work
        await asyncio.to_thread(self._check_paths, work)
        self._update(job_id, state="running", reason=None)
        model = self._host.models().named(work.model)
        source = await asyncio.to_thread(ImageSource.open, work.images)
        if source.root is not None and work.out.is_relative_to(source.root):
            raise DataError(f"{work.out}: results lie outside of the images' folder; name another `out`")
        has_maps = task_named(model.task).batch.has_maps
        if not has_maps and (work.pictures or work.mm_per_pixel):
            raise DataError(
                f"`{model.name}`: of a model for {model.task} no picture and no scale can be asked; leave"
                " `pictures` and `mm_per_pixel` out"
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
        last_write = time.monotonic()

        def on_image(done: int, _: int) -> None:
            nonlocal last_write
            self._update(job_id, done=done, failed=len(sink.failed))
            if time.monotonic() - last_write > WRITE_EVERY_SECONDS:
                last_write = time.monotonic()
                write_job(self._folder, self._jobs[job_id])

        with ExitStack() as stack:
            sink = await asyncio.to_thread(stack.enter_context, open_sink(work.out, question, names))
            return await score_all(
                source,
                HostScorer(self._answering, model, work),
                sink,
                concurrency=CONCURRENCY,
                on_image=on_image,
                stop=stop,
            )

    def _check_paths(self, work: Work) -> None:
        """Checks again where a job reads and writes: since its submission a folder may have become a link or
        part of a run, and its file may be another user's.

        Raises:
            Refused: a path is outside of the roots, or must not hold results.
            DataError: a link leads elsewhere.
        """
        self._roots.source(work.images, what="images")
        entries = work.out.iterdir() if work.out.is_dir() else ()
        links = [entry.name for entry in entries if entry.is_symlink()]
        if links or self._roots.target(str(work.out), what="out") != work.out:
            raise DataError(
                f"{work.out}: results go into a folder that is there itself: links lead elsewhere from"
                f" {', '.join(links[:3]) or 'above it'}; name another `out`"
            )

    async def _end(
        self, job_id: str, *, state: State, result: BatchResult | None = None, reason: str | None = None
    ) -> None:
        if result is not None:
            self._update(job_id, done=result.done, failed=result.failed)
            if result.results is not None:
                self._update(job_id, results=str(result.results))
        self._update(job_id, state=state, reason=reason)
        try:
            await self._write(self._jobs[job_id])
        except Refused as refused:  # when the service restarts, the job resumes and ends at once
            logging.getLogger(__name__).error("the end of job %s is not kept: %s", job_id, refused)

    def _update(self, job_id: str, **changes: Any) -> None:
        self._set(self._jobs[job_id].model_copy(update=changes))

    def _set(self, job: Job) -> None:
        self._jobs[job.id] = job

    async def _write(self, job: Job) -> None:
        try:
            await asyncio.to_thread(write_job, self._folder, job)
        except (OSError, DataError) as error:
            raise Refused(
                Problem(
                    "not-ready",
                    "a job is kept in a file of the service",
                    f"it cannot be written ({getattr(error, 'strerror', None) or error})",
                    "make room on the disk of the service's first --root, and ask again",
                    retry_after=RETRY_SECONDS,
                )
            ) from None
