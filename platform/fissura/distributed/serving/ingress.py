"""The HTTP application over the models that Ray Serve runs, and the deployment of it on a cluster."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve

from fissura.core.garbage import freeze_living_objects
from fissura.distributed.serving.host import Front, RayHost
from fissura.distributed.serving.replica import QUIET
from fissura.serving.allowed_roots import Roots
from fissura.serving.app import build_app
from fissura.serving.job_routes import job_routes
from fissura.serving.jobs import Jobs
from fissura.serving.service import Service


def http_application(front: Front, refused: Mapping[str, int] | None = None) -> FastAPI:
    """The HTTP application over the models of this cluster's Ray Serve; `refused` as for `Service`."""
    host = RayHost(front)
    run_roots = Roots((*front.roots, *front.runs))
    service = Service(
        host, limits=front.limits, roots=run_roots, token_digest=front.token_digest, refused=refused
    )
    job_roots = Roots(front.roots, closed=[Path(folder) for folder in front.runs])
    jobs = Jobs(front.jobs, host, service.answering, job_roots) if front.jobs else None

    @asynccontextmanager
    async def looking(_: FastAPI) -> AsyncIterator[None]:
        await host.look()
        if jobs is not None:
            await jobs.start()
        freeze_living_objects()
        watching = asyncio.get_running_loop().create_task(host.watch())
        yield
        watching.cancel()
        if jobs is not None:
            await jobs.close()

    app = build_app(service, job_routes(jobs, job_roots))
    app.router.lifespan_context = looking
    return app


@serve.ingress()
class Ingress:
    """The process that answers HTTP behind the proxies of a cluster."""

    def __init__(self, plain: dict[str, Any]) -> None:
        self._front = Front.load(plain, source="service")

    def __serve_build_asgi_app__(self) -> FastAPI:
        return http_application(self._front)


def front_application(plain: dict[str, Any]) -> serve.Application:
    """The HTTP application of a `Front` in JSON types; also what `serve.yaml` names."""
    front = Front.load(plain, source="service")
    deployment = serve.deployment(
        Ingress,
        name="http",
        num_replicas=1,
        max_ongoing_requests=4096,
        ray_actor_options={"num_cpus": 0},
        logging_config=QUIET,
    )
    return deployment.bind(front.plain())
