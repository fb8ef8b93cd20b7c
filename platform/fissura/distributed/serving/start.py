"""Starts the service on a local Ray or on a cluster, or writes its configuration for `serve deploy`."""

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from ray import serve
from ray.serve.handle import DeploymentHandle

from fissura.core.errors import DataError, FissuraError, ResourceError, UserError
from fissura.core.files import write_text
from fissura.core.progress import Say
from fissura.core.signals import interrupted, terminable
from fissura.deploy.model import open_model
from fissura.distributed.cluster import connected, this_machine
from fissura.distributed.environment import temporary_folder
from fissura.distributed.serving.host import Front
from fissura.distributed.serving.ingress import front_application
from fissura.distributed.serving.listener import Address, listener_application, listening
from fissura.distributed.serving.proxy import controller_options, is_unbounded
from fissura.distributed.serving.replica import APPLICATION, QUIET, Hosting, Version, model_application
from fissura.distributed.serving.watch import ends_with_ray
from fissura.serving.tokens import without_token_variable
from fissura.training.runtime import pick_device


def check_versions(versions: Sequence[Version]) -> None:
    """Opens each run once, to refuse invalid runs before anything starts.

    Raises:
        UserError: one line for each run that cannot be served.
    """
    problems: list[str] = []
    for version in versions:
        try:
            open_model(version.run, device=pick_device("cpu"), threshold=version.threshold)
        except UserError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)


def run_service(
    front: Front,
    versions: Sequence[Version],
    *,
    at: Address,
    address: str | None,
    say: Say,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves the versions: on a local Ray until it is interrupted; on a cluster it returns when all answer.
    Calls `ready` with the service's address when it answers.

    Raises:
        ResourceError: the port is taken, or a replica does not fit.
        FissuraError: it did not start, or its Ray died.
    """
    check_versions(versions)
    if address is None:
        _check_port(at)
        most = this_machine().node_cpus
        if front.replicas.cpus > most:
            raise ResourceError(
                f"--cpus-per-replica {front.replicas.cpus}: a replica fits this machine of {most} CPUs"
                "; give it fewer"
            )
    # a new version loads beside the one that it replaces, while an older one is still being removed; waiting
    # threads cost nothing
    cpus = 3 * len(versions) * front.replicas.most * front.replicas.cpus
    ending = terminable() if address is None else contextlib.nullcontext()
    if address is None:
        # Ray would give its workers, including the HTTP process, a low priority
        os.environ.setdefault("RAY_worker_niceness", "0")
    with (
        ending,
        without_token_variable(),
        contextlib.ExitStack() as quiet,
        connected(address, cpus=cpus, say=say),
    ):
        if address is None:
            folder = quiet.enter_context(
                tempfile.TemporaryDirectory(
                    prefix="fissura-", dir=temporary_folder()[1], ignore_cleanup_errors=True
                )
            )
            front = front.model_copy(update={"lines": Path(folder)})
        with ends_with_ray(say) if address is None else contextlib.nullcontext():
            http = _start(front, versions, at=at, address=address, say=say)
            ready(str(at))
            if address is None:
                with interrupted() as event:
                    event.wait()
        if address is None:
            say("stopping: what was accepted is being answered")
            # until Ray has ended, since it reports its controller's end as a failure
            quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
            with contextlib.suppress(Exception):
                http.close.remote().result(timeout_s=front.limits.seconds)
            with contextlib.suppress(Exception):
                serve.shutdown()


def _start(
    front: Front, versions: Sequence[Version], *, at: Address, address: str | None, say: Say
) -> DeploymentHandle:
    """Starts Ray Serve with the versions, and what answers over HTTP."""
    try:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(
            proxy_location="Disabled" if address is None else "EveryNode",
            http_options={"host": at.host, "port": at.port},
            logging_config=QUIET,
            controller_options=controller_options(front.limits),
        )
        targets: list[serve.RunTarget] = []
        for version in versions:
            say(f"loading {version.name}: {version.run}")
            hosting = Hosting(
                version=version, limits=front.limits, replicas=front.replicas, lines=front.lines
            )
            model = model_application(hosting.plain())
            targets.append(serve.RunTarget(model, name=version.application, route_prefix=None))
        serve.run_many(targets)
        if address is None:
            return serve.run(listener_application(front, at), name=APPLICATION, route_prefix=None)
        http = serve.run(front_application(front.plain()), name=APPLICATION, route_prefix="/")
        if is_unbounded(at.host, at.port):
            say(_UNBOUNDED)
        return http
    except RuntimeError as error:
        raise FissuraError(f"the service did not start: {' '.join(str(error).split())[:500]}") from None


def write_config(path: Path, front: Front, versions: Sequence[Version], *, at: Address) -> None:
    """Writes the service as a Ray Serve configuration: `serve deploy FILE` starts it on a running cluster."""
    check_versions(versions)
    applications: list[dict[str, Any]] = [
        {
            "name": version.application,
            "route_prefix": None,
            "import_path": f"{model_application.__module__}:{model_application.__name__}",
            "args": Hosting(version=version, limits=front.limits, replicas=front.replicas).plain(),
        }
        for version in versions
    ]
    applications.append(
        {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": f"{front_application.__module__}:{front_application.__name__}",
            "args": front.plain(),
        }
    )
    config = {
        "proxy_location": "EveryNode",
        "http_options": {"host": at.host, "port": at.port},
        "controller_options": controller_options(front.limits),
        "applications": applications,
    }
    write_text(path, f"{_HEAD}{yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}")


_HEAD = """\
# The service for `serve deploy` on a running Ray cluster (docs/serving.md).
# The next version of a model: `fissura rollout RUN --endpoint URL`; it is loaded beside the old one.
"""


_UNBOUNDED = (
    "Ray Serve ran already on this cluster, and its proxies read requests without a bound: end it with"
    " `serve shutdown` and serve again, or start the nodes as docs/serving.md says"
)


def _check_port(at: Address) -> None:
    try:
        listening(at).close()
    except OSError as error:
        raise ResourceError(
            f"--host {at.host} --port {at.port}: the service cannot listen there ({error.strerror}); name"
            " another port"
        ) from None
