"""The HTTP application on Ray Serve, and the models that it finds there.

Each version of a model is an application of its own. The highest running version of a name answers; lower
versions are removed after their last response. So a new version loads beside the old one and replaces it
between two requests, and Ray Serve's own state is the only state.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from fissura.core.errors import FissuraError, UserError
from fissura.core.spec import Spec
from fissura.deploy.model import open_model
from fissura.distributed.serving.replica import (
    PREFIX,
    Hosting,
    Replicas,
    Version,
    answer_by_handle,
    model_application,
)
from fissura.distributed.serving.replica_counts import count_replicas
from fissura.distributed.serving.sockets import Lines
from fissura.serving.hosting import Hosted, Models, ReplicaCount
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused, failed
from fissura.serving.query import ImageQuery
from fissura.serving.worker import Reply
from fissura.training.runtime import pick_device

LOOK_EVERY_SECONDS = 2.0
DESCRIBED_WITHIN_SECONDS = 10.0
ATTEMPTS = 3
UP = {"RUNNING", "UNHEALTHY"}
"""A model is unhealthy until a dead replica is replaced; its other replicas answer meanwhile."""


class Front(Spec):
    """Everything that the HTTP application is built from. `default` is the name of the default model; clients
    may name what lies below `roots`, and as a run to serve also what lies below `runs`; `jobs` is the folder
    in which jobs are kept, None where there are none; `lines` the one in which replicas of this machine
    listen, None where Ray Serve leads to them.
    """

    default: str
    limits: Limits = Limits()
    replicas: Replicas = Replicas()
    roots: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    jobs: Path | None = None
    lines: Path | None = None
    token_digest: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class RayHost:
    """The models that run on this cluster's Ray Serve."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._versions: dict[str, tuple[Version, Hosted, DeploymentHandle]] = {}
        self._lines = Lines(front.lines)
        self._answering: Counter[str] = Counter()
        self._changing, self._looking = asyncio.Lock(), asyncio.Lock()
        # Ray Serve's configurations enter a module into a registry of cloudpickle while they are built, by
        # `run_many` and by `status`, and two threads at once get in each other's way
        self._configuring = asyncio.Lock()
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._replicas: Mapping[str, ReplicaCount] = {}
        self._failed: Mapping[str, str] = {}

    def models(self) -> Models:
        """The hosted models."""
        chosen = max(self._versions.values(), key=lambda entry: entry[0].chosen, default=None)
        default = chosen[0].name if chosen and chosen[0].chosen else self._front.default
        return Models(default, {name: hosted for name, (_, hosted, _) in self._versions.items()})

    def replicas(self) -> Mapping[str, ReplicaCount]:
        """The replicas of each application, by the last look."""
        return self._replicas

    async def answer(self, model: Hosted, photograph: bytes, query: ImageQuery, *, seconds: float) -> Reply:
        """The reply of the model's current version; retries on another replica if one dies."""
        end = asyncio.get_running_loop().time() + seconds
        for attempt in range(ATTEMPTS):
            found = self._versions.get(model.name)
            if found is None:
                break
            version, _, handle = found
            self._answering[version.application] += 1
            try:
                left = end - asyncio.get_running_loop().time()
                if line := self._lines.free(version.application):
                    return await line.answer(photograph, query, seconds=left)
                return await answer_by_handle(handle, photograph, query, seconds=left)
            except RayTaskError:
                raise Refused(failed("its model failed on it")) from None
            except (RayError, RayServeException, ConnectionError):
                if attempt + 1 < ATTEMPTS:
                    await self._look_safely()
            finally:
                self._answering[version.application] -= 1
        raise Refused(
            Problem(
                "not-ready",
                "an image is answered by a replica of its model",
                f"none of `{model.name}` could",
                "send it again after the seconds of Retry-After",
                retry_after=5,
            )
        )

    async def put(self, name: str, run: Path, *, threshold: float | None, default: bool) -> Hosted:
        """Loads a run as the next version of a name."""
        async with self._changing:
            found = self._versions.get(name)
            before = found[0].model_copy(update={"previous": None}) if found else None
            chosen = before.chosen if before else 0
            if default:
                chosen = 1 + max((version.chosen for version, _, _ in self._versions.values()), default=0)
            return await self._load(
                Version(
                    name=name,
                    version=before.version + 1 if before else 1,
                    run=run,
                    threshold=threshold,
                    chosen=chosen,
                    previous=before,
                )
            )

    async def roll_back(self, name: str) -> Hosted:
        """Loads the run before as the next version of a name."""
        async with self._changing:
            found = self._versions.get(name)
            if found is None or found[0].previous is None:
                raise Refused(
                    Problem(
                        "conflict",
                        "a model with an earlier version can be rolled back",
                        f"`{name}` has none",
                        "put another run under this name",
                    )
                )
            now, before = found[0], found[0].previous
            changes = {
                "version": now.version + 1,
                "chosen": now.chosen,
                "previous": now.model_copy(update={"previous": None}),
            }
            return await self._load(before.model_copy(update=changes))

    async def _load(self, version: Version) -> Hosted:
        front = self._front
        hosting = Hosting(version=version, limits=front.limits, replicas=front.replicas, lines=front.lines)
        try:
            # refuses a run that cannot be opened, before a replica retries it
            await asyncio.to_thread(
                open_model, version.run, device=pick_device("cpu"), threshold=version.threshold
            )
        except UserError as error:
            raise Refused(_no_model(error.problems[0])) from None
        try:
            async with asyncio.timeout(self._front.limits.seconds):
                async with self._configuring:
                    model = model_application(hosting.plain())
                    target = serve.RunTarget(model, name=version.application, route_prefix=None)
                    await asyncio.to_thread(serve.run_many, [target], wait_for_applications_running=False)
                return await self._seen(version)
        except TimeoutError:
            raise await self._unloaded(version, "no CPUs are free for it, or it is slow to load") from None
        except Exception as error:  # Ray Serve's errors have no common base
            logging.getLogger(__name__).exception("%s could not be loaded", version.application)
            raise await self._unloaded(version, " ".join(str(error).split())[:300]) from None

    async def _seen(self, version: Version) -> Hosted:
        """The model of a version that Ray Serve starts, once a look has found it.

        Raises:
            FissuraError: it does not start.
        """
        while True:
            await self._look_safely()
            found = self._versions.get(version.name)
            if found and found[0].version >= version.version:
                return found[1]
            if version.application in self._failed:
                raise FissuraError(self._failed[version.application])
            await asyncio.sleep(LOOK_EVERY_SECONDS / 4)

    async def _unloaded(self, version: Version, reason: str) -> Refused:
        with contextlib.suppress(RayError, RayServeException):
            await asyncio.to_thread(serve.delete, version.application, _blocking=False)
        return Refused(
            Problem(
                "not-ready",
                f"a new version answers within {self._front.limits.seconds:g} s",
                reason,
                "see to free CPUs and try again; what was served before still is",
            )
        )

    async def look(self) -> None:
        """Updates the models from Ray Serve's state."""
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        await self._lines.look()
        self._failed = {}
        async with self._configuring:
            status = await asyncio.to_thread(serve.status)
        self._replicas = count_replicas(status, least=self._front.replicas.least)
        running = {
            name
            for name, each in status.applications.items()
            if name.startswith(PREFIX) and each.status in UP
        }
        self._failed = {
            name: each.message for name, each in status.applications.items() if each.status == "DEPLOY_FAILED"
        }
        known = {version.application for version, _, _ in self._versions.values()}
        for application in sorted(running - known - self._removals.keys()):
            try:
                handle = serve.get_app_handle(application)
                async with asyncio.timeout(DESCRIBED_WITHIN_SECONDS):
                    described = await handle.describe.remote()
            except (RayError, RayServeException, TimeoutError):
                continue
            self._take(described, handle)
        for name, (version, _, _) in list(self._versions.items()):
            if version.application not in status.applications:
                del self._versions[name]

    def _take(self, described: dict[str, Any], handle: DeploymentHandle) -> None:
        version = Version.load(described["version"], source="hosted model")
        found = self._versions.get(version.name)
        if found and found[0].version > version.version:
            self._remove(version.application)
            return
        before = version.previous.version if version.previous else None
        hosted = Hosted(name=version.name, version=version.version, previous=before, card=described["card"])
        self._versions[version.name] = (version, hosted, handle)
        if found:
            self._remove(found[0].application)

    def _remove(self, application: str) -> None:
        self._removals[application] = asyncio.get_running_loop().create_task(self._drained(application))

    async def _drained(self, application: str) -> None:
        """Removes an application after its last response; other HTTP processes update within a few seconds,
        and stop using it too."""
        await asyncio.sleep(3 * LOOK_EVERY_SECONDS)
        while self._answering[application] > 0:
            await asyncio.sleep(LOOK_EVERY_SECONDS / 4)
        try:
            await asyncio.to_thread(serve.delete, application)
        except (RayError, RayServeException, TimeoutError):
            pass  # a look finds it again, and removes it
        finally:
            del self._removals[application]

    async def watch(self) -> None:
        """Updates the models periodically."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            await self._look_safely()

    async def _look_safely(self) -> None:
        """Updates the models; the log has why it fails, if it does."""
        try:
            await self.look()
        except Exception:
            # Ray Serve's controller may be restarting; without updates the old version would stay
            logging.getLogger(__name__).exception("what Ray Serve runs could not be seen")


def _no_model(reason: str) -> Problem:
    return Problem(
        "invalid-value",
        "a run that is served is finished and whole",
        reason,
        "name another run; what was served before still is",
    )
