"""The HTTP process leaves to Ray Serve what is Ray Serve's."""

import asyncio
import logging
from collections.abc import Iterator
from logging.handlers import MemoryHandler

import pytest
from fastapi import FastAPI

from fissura.distributed.serving import listener as serve_listener
from fissura.distributed.serving.host import Front
from fissura.distributed.serving.listener import Address, Listener
from serve_process import free_port


@pytest.fixture
def handler() -> Iterator[MemoryHandler]:
    """As Ray Serve has one: a controller that is started anew asks a replica for the file of its target."""
    handler = MemoryHandler(10, target=logging.StreamHandler())
    logger = logging.getLogger("of ray serve")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


def test_the_handlers_of_its_log_are_left_open(
    handler: MemoryHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_listener, "http_application", lambda front, refused: FastAPI())

    async def main() -> None:
        listener = object.__new__(Listener)
        at = Address(port=free_port())
        await Listener.__init__(listener, Front(default="cracks").plain(), at.plain())  # type: ignore[func-returns-value]
        await listener.close()

    asyncio.run(asyncio.wait_for(main(), 60))
    assert handler.target is not None
