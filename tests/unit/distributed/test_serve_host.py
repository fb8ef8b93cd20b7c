"""The models of the HTTP process, with Ray Serve's part played by this process."""

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from ray.serve import RunTarget

from fissura.distributed.serving import host as serve_host
from fissura.distributed.serving.host import Front, RayHost
from fissura.distributed.serving.ingress import http_application
from fissura.distributed.serving.replica import Version
from fissura.serving.hosting import Hosted
from fissura.serving.limits import Limits
from fissura.serving.problems import Refused


class RayServe:
    """Ray Serve that runs what it is given; `failures` are raised by its next calls of that name. As in the
    real one, calls that build configurations in two threads at once fail."""

    def __init__(self, *, state: str = "RUNNING", **failures: list[Exception]) -> None:
        self._failures, self._state = failures, state
        self._run: dict[str, Path] = {}
        self._configuring = threading.Lock()

    def status(self) -> Any:
        """Of the applications."""
        self._fail("status")
        self._configure()
        running = SimpleNamespace(status=self._state, deployments={}, message="no such file")
        return SimpleNamespace(applications=dict.fromkeys(self._run, running))

    def run_many(self, targets: list[RunTarget], *, wait_for_applications_running: bool) -> None:
        """Runs more."""
        assert not wait_for_applications_running
        self._fail("run_many")
        self._configure()
        self._run |= {target.name: target.target for target in targets}

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

    RunTarget = RunTarget

    def _configure(self) -> None:
        if not self._configuring.acquire(blocking=False):
            raise ValueError("it is not registered for pickle by value")
        time.sleep(0.01)
        self._configuring.release()

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


def test_the_http_process_exempts_what_lives_from_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_host, "serve", RayServe())
    before = gc.get_freeze_count()
    try:
        with TestClient(http_application(Front(default="walls")), "http://127.0.0.1") as client:
            assert client.get("/healthz").status_code == 200
            assert gc.get_freeze_count() > before + 10_000
    finally:
        gc.unfreeze()


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
        monkeypatch.setattr(serve_host, "serve", RayServe(run_many=[KeyError("no deployment `model`")]))
        with pytest.raises(Refused, match="no deployment `model`") as caught:
            put(segmenter_run, seconds=60)
        assert caught.value.problem.kind == "not-ready"

    def test_whose_application_fails_is_refused_with_its_reason(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serve_host, "serve", RayServe(state="DEPLOY_FAILED"))
        with pytest.raises(Refused, match="no such file"):
            put(segmenter_run, seconds=60)

    def test_is_not_refused_for_what_failed_before_it(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host = RayHost(Front(default="walls", limits=Limits(seconds=60)))
        monkeypatch.setattr(serve_host, "serve", RayServe(state="DEPLOY_FAILED"))
        with pytest.raises(Refused, match="no such file"):
            asyncio.run(host.put("walls", segmenter_run, threshold=None, default=False))
        monkeypatch.setattr(serve_host, "serve", RayServe(status=[KeyError("walls")]))
        hosted = asyncio.run(host.put("walls", segmenter_run, threshold=None, default=False))
        assert hosted.version == 1

    def test_is_loaded_while_others_look_what_ray_serve_runs(
        self, segmenter_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(serve_host, "serve", RayServe())

        async def main() -> list[int]:
            host = RayHost(Front(default="walls", limits=Limits(seconds=60)))
            looking = asyncio.create_task(host.watch())
            hosted = [await host.put("walls", segmenter_run, threshold=None, default=False) for _ in range(5)]
            looking.cancel()
            return [model.version for model in hosted]

        monkeypatch.setattr(serve_host, "LOOK_EVERY_SECONDS", 0.001)
        assert asyncio.run(main()) == [1, 2, 3, 4, 5]
        assert not [record for record in caplog.records if record.name == serve_host.__name__]

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
