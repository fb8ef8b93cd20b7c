"""One version of a model on Ray Serve: an application of its own, reached by handle alone."""

import asyncio
import os
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from ray import serve
from ray.serve.handle import DeploymentHandle

from fissura.batches.pictures import png
from fissura.core.garbage import freeze_living_objects
from fissura.core.spec import Spec
from fissura.deploy.model import open_model
from fissura.distributed.serving.sockets import line_path
from fissura.serving.hosting import NAME
from fissura.serving.limits import Limits
from fissura.serving.query import ImageQuery
from fissura.serving.socket_rpc import listen
from fissura.serving.worker import Reply, Worker
from fissura.training.runtime import LocalRuntime

APPLICATION = "fissura"
"""The name of the Ray Serve application that answers HTTP."""
PREFIX = "fissura-model-"
NICENESS = 3
QUIET = {"log_level": "WARNING", "enable_access_log": False}
"""The service counts its requests itself; a log line for each costs as much as a small image."""


class Replicas(Spec):
    """The replicas of a model: `least` to `most`, each with `cpus` threads and a share of a GPU.

    Ray Serve adds replicas while each has more than `ongoing` images in flight.
    """

    least: int = Field(1, ge=0, le=10_000)
    most: int = Field(1, ge=1, le=10_000)
    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0, ge=0, le=16)
    ongoing: int = Field(4, ge=1, le=1000)


class Version(Spec):
    """One version of a hosted model: its run, and the previous version.

    The model with the highest `chosen` is the default; 0: it was never chosen.
    """

    name: str = Field(pattern=NAME)
    version: int = Field(1, ge=1)
    run: Path
    threshold: float | None = Field(None, ge=0, le=1)
    chosen: int = Field(0, ge=0)
    previous: "Version | None" = None

    @property
    def application(self) -> str:
        """The name of its Ray Serve application."""
        return f"{PREFIX}{self.name}-v{self.version}"


class Hosting(Spec):
    """Everything that a model's application is built from. `lines` is the folder in which its replicas listen
    for the HTTP process of their machine; None: they are reached through Ray Serve.
    """

    version: Version
    limits: Limits = Limits()
    replicas: Replicas = Replicas()
    lines: Path | None = None


class ModelReplica:
    """A replica: the model of a run in this process."""

    async def __init__(self, plain: dict[str, Any]) -> None:  # type: ignore[misc]
        hosting = Hosting.load(plain, source="hosted model")
        version = hosting.version
        if hosting.lines is not None:
            os.nice(NICENESS)  # what answers HTTP on this machine goes first
        runtime = LocalRuntime(device="auto" if hosting.replicas.gpus else "cpu", cpus=hosting.replicas.cpus)
        model = open_model(version.run, device=runtime.device, threshold=version.threshold)
        self._version = version
        self._worker = Worker(model, hosting.limits, name=version.name, version=version.version)
        # the first image waits for libraries: it must not set the speed that the gate learns
        await self._worker.answer(png(np.zeros((256, 256), np.uint8)), ImageQuery())
        freeze_living_objects()
        self._line: asyncio.Server | None = None
        if hosting.lines is not None and hosting.replicas.least == hosting.replicas.most:
            self._line = await listen(line_path(hosting.lines, version.application), self._worker.answer)

    async def answer(self, photograph: bytes, asked: dict[str, Any], seconds: float) -> Reply:
        """The reply for one image, which is given up after `seconds`."""
        return await self._worker.answer(
            photograph, ImageQuery.load(asked, source="question"), seconds=seconds
        )

    async def describe(self) -> dict[str, Any]:
        """The version, and the card of its model, in JSON types."""
        return {"version": self._version.plain(), "card": self._worker.model.card}

    async def process(self) -> int:
        """The replica's process."""
        return os.getpid()

    def __del__(self) -> None:
        if hasattr(self, "_worker"):
            self._worker.close()


async def answer_by_handle(
    handle: DeploymentHandle, photograph: bytes, query: ImageQuery, *, seconds: float
) -> Reply:
    """The reply of a replica that Ray Serve chooses. Ray Serve does not report the end of a cancelled call:
    the replica ends it after the current tile."""
    response = handle.answer.remote(photograph, query.plain(), seconds)
    try:
        reply: Reply = await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    return reply


def model_application(plain: dict[str, Any]) -> serve.Application:
    """The application of a `Hosting` in JSON types; also what `serve.yaml` names."""
    hosting = Hosting.load(plain, source="hosted model")
    replicas = hosting.replicas
    scaling: dict[str, Any] = {"num_replicas": replicas.most}
    if replicas.least < replicas.most:
        scaling = {
            "autoscaling_config": {
                "min_replicas": replicas.least,
                "max_replicas": replicas.most,
                "initial_replicas": max(1, replicas.least),
                "target_ongoing_requests": replicas.ongoing,
            }
        }
    deployment = serve.deployment(
        ModelReplica,
        name="model",
        # the gate bounds what waits; at a bound of its own Ray Serve's router sleeps between looks for a free
        # replica, and keeps the images from one another that a batch would hold
        max_ongoing_requests=hosting.limits.waiting_images,
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=hosting.limits.seconds,
        health_check_period_s=2,
        health_check_timeout_s=30,
        logging_config=QUIET,
        **scaling,
    )
    return deployment.bind(hosting.plain())
