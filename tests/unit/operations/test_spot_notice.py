"""Where the notice comes from that a machine is taken away: a real HTTP server plays EC2's metadata."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fissura.core.errors import SpecError
from fissura.distributed.preemption import NodeNotice, Preempted
from fissura.operations.spot_notice import SpotNotice


class Metadata(BaseHTTPRequestHandler):
    """Gives a session token, and to whoever shows it the notice, if there is one."""

    notice: str | None = None

    def do_PUT(self) -> None:
        known = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self.answer(200 if known else 400, "token")

    def do_GET(self) -> None:
        if self.headers["X-aws-ec2-metadata-token"] != "token":
            self.answer(401, "")
        elif self.path == "/latest/meta-data/spot/instance-action" and self.notice is not None:
            self.answer(200, self.notice)
        else:
            self.answer(404, "")

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_there_is_none_until_the_endpoint_says_so(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SpotNotice(endpoint=endpoint)
    assert source.look() is None
    gone = datetime.now(UTC) + timedelta(seconds=90)
    notice = json.dumps({"action": "terminate", "time": gone.strftime("%Y-%m-%dT%H:%M:%SZ")})
    monkeypatch.setattr(Metadata, "notice", notice)
    assert source.look() == pytest.approx(90, abs=10)


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", '{"time": 3}', '{"time": "soon"}', '{"action": "stop"}']
)
def test_a_notice_without_a_time_leaves_the_usual_one(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(Metadata, "notice", text)
    assert SpotNotice(endpoint=endpoint).look() == 120


def test_a_time_that_has_passed_leaves_nothing(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Metadata, "notice", '{"time": "2020-01-01T00:00:00"}')
    assert SpotNotice(endpoint=endpoint).look() == 0


def test_a_file_is_a_notice_where_no_endpoint_answers(tmp_path: Path) -> None:
    source = SpotNotice(endpoint="http://127.0.0.1:9", notice=tmp_path / "gone", usual_seconds=30)
    assert source.look() is None
    (tmp_path / "gone").touch()
    assert source.look() == 30


@pytest.mark.parametrize("endpoint", ["https://169.254.169.254", "file:///etc/passwd", "http://host/path"])
def test_an_endpoint_is_an_http_address_alone(endpoint: str) -> None:
    with pytest.raises(SpecError, match="endpoint"):
        SpotNotice.load({"endpoint": endpoint}, source="spot-watch")


def test_without_a_cluster_no_node_is_taken_away() -> None:
    assert not NodeNotice().noticed()


def test_ray_tune_does_not_count_a_preempted_trial_as_failed() -> None:
    from ray.exceptions import RayTaskError

    error = RayTaskError("train", "traceback", Preempted("the node goes"))
    assert error.as_instanceof_cause().preempted
