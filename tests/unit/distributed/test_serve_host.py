"""The models of the HTTP process, with Ray Serve's part played by this process."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fissura.distributed.serving import host as serve_host
from fissura.distributed.serving.host import Front, RayHost
from fissura.distributed.serving.replica import Version
from fissura.serving.hosting import Hosted
from fissura.serving.limits import Limits
from fissura.serving.problems import Refused


class RayServe:
    """Ray Serve that runs what it is given; `failures` are raised by its next calls of that name."""

    def __init__(self, **failures: list[Exception]) -> None:
        self._failures = failures
        self._run: dict[str, Path] = {}

    def status(self) -> Any:
        """Of the applications."""
        self._fail("status")
        running = SimpleNamespace(status="RUNNING", deployments={})
        return SimpleNamespace(applications=dict.fromkeys(self._run, running))

    def run(self, application: Path, *, name: str, route_prefix: None) -> None:
        """Runs one more."""
        self._fail("run")
        self._run[name] = application

    def delete(self, name: str, *, _blocking: bool = True) -> None:
        """Ends one."""
        self._fail("delete")
        self._run.pop(name, None)

    def get_app_handle(self, name: str) -> Any:
        """The handle of one."""

        async def describe() -> dict[str, Any]:
            word, _, version = name.removeprefix("fissura-model-").rpartition("-v")
            plain = Version(name=word, version=int(version), run=self._run[name]).plain()
            return {"version": plain, "card": {}}

        def remote() -> Awaitable[dict[str, Any]]:
            return describe()

        return SimpleNamespace(describe=SimpleNamespace(remote=remote))

    def _fail(self, call: str) -> None:
        if self._failures.get(call):
            raise self._failures[call].pop()


@pytest.fixture(autouse=True)
def _models_are_their_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_host, "LOOK_EVERY_SECONDS", 0.04)
    monkeypatch.setattr(serve_host, "model_application", lambda plain: Path(plain["version"]["run"]))


def put(run: Path, *, seconds: float) -> tuple[RayHost, Hosted]:
    """A host with a model, which is loaded within `seconds`."""
    host = RayHost(Front(default="walls", limits=Limits(seconds=seconds)))
    return host, asyncio.run(host.put("walls", run, threshold=None, default=False))


class TestANextVersion:
    def test_is_looked_for_again_where_ray_serve_cannot_say_what_it_runs(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_host, "serve", RayServe(status=[KeyError("walls"), ValueError("half")]))
        host, hosted = put(segmenter_run, seconds=60)
        assert (hosted.name, hosted.version) == ("walls", 1)
        assert host.models().hosted == {"walls": hosted}

    def test_that_ray_serve_cannot_run_is_refused_with_its_reason(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_host, "serve", RayServe(run=[KeyError("no deployment `model`")]))
        with pytest.raises(Refused, match="no deployment `model`") as caught:
            put(segmenter_run, seconds=60)
        assert caught.value.problem.kind == "not-ready"

    def test_that_never_answers_is_given_up_in_time(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_host, "serve", RayServe(status=[KeyError("walls")] * 1000))
        with pytest.raises(Refused, match=r"a new version answers within 0\.5 s"):
            put(segmenter_run, seconds=0.5)


def test_a_version_that_ray_serve_cannot_end_at_once_is_ended_later(
    segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_serve = RayServe(delete=[TimeoutError("still there"), TimeoutError("still there")])
    monkeypatch.setattr(serve_host, "serve", ray_serve)

    async def main() -> set[str]:
        host = RayHost(Front(default="walls", limits=Limits(seconds=60)))
        for _ in range(2):
            await host.put("walls", segmenter_run, threshold=None, default=False)
        async with asyncio.timeout(60):
            while len(ray_serve.status().applications) > 1:
                await asyncio.sleep(0.02)
                await host.look()
        return set(ray_serve.status().applications)

    assert asyncio.run(main()) == {"fissura-model-walls-v2"}
