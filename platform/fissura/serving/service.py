"""The state that the routes share."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response

from fissura.core.tasks import task_named
from fissura.serving.allowed_roots import Roots
from fissura.serving.answering import Answering, batch, in_time, single, unless_gone
from fissura.serving.body import claimed_length, counted, read_images
from fissura.serving.gate import Gate
from fissura.serving.hosting import Host
from fissura.serving.limits import Limits
from fissura.serving.query import parse_query
from fissura.serving.telemetry import Telemetry


class Service:
    """The state that the routes share. `refused` counts the listener's refused connections by reason, if it
    runs in this process."""

    def __init__(
        self,
        host: Host,
        *,
        limits: Limits,
        roots: Roots,
        token_digest: str | None = None,
        refused: Mapping[str, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host, self.limits, self.roots, self.token_digest = host, limits, roots, token_digest
        self.gate = Gate(limits, clock=clock)
        self.telemetry = Telemetry(self.gate, host.replicas, refused)
        self.answering = Answering(host, limits=limits, gate=self.gate, telemetry=self.telemetry)

    async def scored(
        self, request: Request, *, model: str | None, task: str, query: dict[str, Any]
    ) -> Response:
        """The response to a request with images."""
        chosen = self.host.models().named(model, task=task)
        pictures = "answer" in task_named(task).service.parameters
        image_query = parse_query(
            query if pictures else {**query, "answer": "json"}, request.headers.get("accept")
        )
        with self.gate.held(claimed=claimed_length(request.headers, most=self.limits.body_bytes)) as arrived:
            async with in_time(self.limits):
                body = Request(request.scope, counted(request.receive, arrived))
                uploads, is_batch = await read_images(body, self.limits)
                work = self.answering.replies(chosen, uploads, image_query)
                replies = await unless_gone(request.receive, work)
            if is_batch:
                return await asyncio.to_thread(batch, uploads, replies, image_query)
            return single(uploads[0], replies[0])
