"""The jobs of a service as files: the work of each, and its state."""

import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

from pydantic import Field

from fissura.batches.pictures import Kind
from fissura.core.errors import DataError, SpecError
from fissura.core.files import write_json
from fissura.core.spec import Spec

State = Literal["waiting", "running", "done", "cancelled", "failed"]


ID = r"^[0-9a-f]{16}$"


MOST_JOBS = 10_000


class Work(Spec):
    """The work of a job: images, results folder, model and pictures."""

    images: str
    out: Path
    model: str | None = None
    mm_per_pixel: float | None = Field(None, gt=0, lt=1e6)
    pictures: tuple[Kind, ...] = ()


class Job(Spec):
    """A job and its state; `images` is None until they are listed, `created` is in seconds since 1970.
    `left_out` are the first MOST_LEFT_OUT files that are not read because of their suffix."""

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


def own_folder(folder: Path) -> None:
    """Makes the folder of jobs, if it does not exist, for this user only: who writes there controls the
    service.

    Raises:
        DataError: the folder, or a link to it, belongs to another user.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for owner in {folder.lstat().st_uid, folder.stat().st_uid} - {0, os.geteuid()}:
        with TemporaryFile(dir=folder) as probe:  # storage may map user ids
            if os.fstat(probe.fileno()).st_uid != owner:
                raise DataError(
                    f"{folder}: jobs are kept in a folder of the user who serves: this one belongs to another"
                    f" (uid {owner}); remove it, or name another --root first"
                )
    with suppress(OSError):  # of storage without modes, or a folder of root's
        if folder.stat().st_mode & 0o077:
            folder.chmod(0o700)


def write_job(folder: Path, job: Job) -> None:
    """Writes a job's file.

    Raises:
        OSError: the file cannot be written.
        DataError: as `own_folder`.
    """
    own_folder(folder)
    write_json(folder / f"{job.id}.json", job.plain())


def read_jobs(folder: Path) -> tuple[list[Job], tuple[str, ...]]:
    """The jobs of the folder, and a line for each unreadable file.

    Raises:
        DataError: as `own_folder`.
    """
    if folder.exists():
        own_folder(folder)
    jobs, damaged = [], list[str]()
    for path in sorted(folder.glob("*.json"))[:MOST_JOBS]:
        try:
            jobs.append(Job.load_file(path, remedy=_REMEDY))
        except SpecError as error:
            damaged.append(error.problems[0])
    return jobs, tuple(damaged)


_REMEDY = "remove it, and ask for the job again"
