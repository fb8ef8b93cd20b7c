"""The manifest of a run: its recipe, data, code, machine and cost."""

import functools
import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, JsonValue

from fissura.core.spec import Spec
from fissura.data.dataset_names import name_of, unique_names

LIBRARIES = (
    "torch",
    "torchvision",
    "segmentation-models-pytorch",
    "timm",
    "albumentations",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "pillow",
    "optuna",
    "ray",
)


class DataFacts(Spec):
    """The data of a run: the digest of its content, and the specs of its data sets."""

    digest: str
    datasets: tuple[dict[str, JsonValue], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its data sets."""
        return tuple(unique_names(map(name_of, self.datasets)))

    def name(self, label: str, *, digest: str) -> str:
        """The name of the data set that scores go by as `label` (its kind, or `KIND-2`); the label itself
        where this content is another."""
        labels = unique_names(str(plain.get("kind")) for plain in self.datasets)
        known = dict(zip(labels, self.names, strict=True)) if digest == self.digest else {}
        return known.get(label, label)


def trained_on(data: DataFacts | None) -> dict[str, JsonValue]:
    """The entries of a model's card about its training data; empty if unknown."""
    return {} if data is None else {"trained_on": list(data.names), "data_digest": data.digest}


class FileFacts(Spec):
    """Size and digest of a file as written."""

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Spec):
    """What produced a run. `recipe` is in plain form; `energy_joules` is None where nothing measures it;
    `host` is the machine's name (rank 0's of several), and empty in runs from before it was kept.
    `accumulation` parts were computed of each step's batch, since the memory did not hold it whole.

    `files` are the run's other files, by their paths below it; none in runs from before they were kept.
    `before` is the file in whose place the last one was put: a process may have died in between."""

    run_id: str
    recipe: dict[str, JsonValue]
    seed: int
    data: DataFacts
    code_version: str
    libraries: dict[str, str]
    host: str = ""
    device: str
    cpus: int = Field(ge=1)
    seconds: float = Field(ge=0)
    energy_joules: float | None = Field(None, ge=0)
    started: AwareDatetime
    finished: AwareDatetime
    parameters: int = Field(ge=0)
    best_epoch: int = Field(ge=0)
    epochs: int = Field(ge=0)
    accumulation: int = Field(1, ge=1)
    files: dict[str, FileFacts] = Field({})
    before: dict[str, FileFacts] = Field({})

    @property
    def origin(self) -> dict[str, JsonValue]:
        """All but the files, in JSON types: what stands in the run's tables too."""
        return {name: value for name, value in self.plain().items() if name not in ("files", "before")}

    @classmethod
    def collect(
        cls,
        *,
        run_id: str,
        recipe: dict[str, JsonValue],
        seed: int,
        data: DataFacts,
        accelerator: Literal["cpu", "cuda"],
        cpus: int | None,
        started: datetime,
        finished: datetime,
        parameters: int,
        best_epoch: int,
        epochs: int,
        energy_joules: float | None,
        accumulation: int = 1,
        files: dict[str, FileFacts] | None = None,
    ) -> "Manifest":
        """The manifest of a run that just ended; `started` and `finished` carry a time zone.

        Code, libraries, host and device are read from this process; `cpus` None means all that it may use.
        """
        code, libraries = _this_process()
        return cls(
            run_id=run_id,
            recipe=recipe,
            seed=seed,
            data=data,
            code_version=code,
            libraries=libraries,
            host=platform.node(),
            device=device_name(accelerator),
            cpus=cpus or available_cpus(),
            seconds=(finished - started).total_seconds(),
            energy_joules=energy_joules,
            accumulation=accumulation,
            started=started,
            finished=finished,
            parameters=parameters,
            best_epoch=best_epoch,
            epochs=epochs,
            files=files or {},
        )


@functools.cache
def _this_process() -> tuple[str, dict[str, str]]:
    """Code and library versions, as imported: the files may change later."""
    return code_version(), library_versions()


def code_version(package: Path | None = None) -> str:
    """The package's version; of a checkout also its commit: "0.1.0+g1a2b3c4d5e6f", ".dirty" if edited."""
    folder = package or Path(__file__).parents[1]
    try:
        release = version("fissura")
    except PackageNotFoundError:
        release = "0+unknown"
    commit = _git(folder, "rev-parse", "--short=12", "HEAD")
    # An installed package may lie inside another checkout: git must track the folder.
    if commit is None or not _git(folder, "ls-files", "--", "__init__.py"):
        return release
    edited = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return f"{release}+g{commit}{'.dirty' if edited else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def library_versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """The versions of those of `names` that are installed, and Python's own."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def available_cpus() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(accelerator: Literal["cpu", "cuda"]) -> str:
    """The marketing name of the processor that computes, such as "NVIDIA A100-SXM4-40GB"."""
    if accelerator == "cuda":
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()
