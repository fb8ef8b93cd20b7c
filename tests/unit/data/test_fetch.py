"""Fetching, against a real server on the loopback that misbehaves in every way a network does."""

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fissura.core.errors import DataError
from fissura.data.fetch import KnownFile, download, fetch, known_files

CONTENT = {
    "README.md": b"about the set\n",
    "image/001.jpg": bytes(range(256)) * 900,
    "image/002 b.jpg": b"second" * 20_000,
    "groundTruth/001.mat": b"",
}
BIG = "image/001.jpg"


def table(content: dict[str, bytes]) -> tuple[KnownFile, ...]:
    return tuple(
        KnownFile(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in content.items()
    )


@dataclass
class Mirror:
    """What the server serves, the faults that it is to commit once each, and what it was asked."""

    address: str = ""
    content: dict[str, bytes] = field(default_factory=lambda: dict(CONTENT))
    faults: dict[str, list[str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)


def handler(mirror: Mirror) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix("/set/").replace("%20", " ")
            mirror.requests.append(path)
            faults = mirror.faults.get(path, [])
            fault = faults.pop(0) if faults else ""
            data = mirror.content.get(path)
            if data is None or fault.isdigit():
                self.send_error(int(fault or 404))
                return
            if fault.startswith("redirect "):
                self.send_response(302)
                self.send_header("Location", fault.split()[1])
                self.end_headers()
                return
            body = data
            if fault == "wrong byte":
                body = body[:-1] + bytes((body[-1] ^ 1,))
            if fault == "too long":
                body += b"more"
            self.send_response(200)
            if fault not in {"no length", "too long"}:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if fault == "break off":
                body = body[: len(body) // 2]
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr("fissura.data.fetch.DELAYS", (0.01, 0.01))


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    served = Mirror()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(served))
    served.address = f"http://127.0.0.1:{server.server_port}/set"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(mirror: Mirror, tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    def run() -> dict[str, bytes]:
        download(table(CONTENT), tmp_path / "set", mirror=mirror.address)
        return standing(tmp_path / "set")

    return run


def standing(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


Get = Callable[[], dict[str, bytes]]


def test_every_file_arrives(mirror: Mirror, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = lambda done, total: seen.append((done, total))  # noqa: E731
    download(table(CONTENT), tmp_path / "deep/set", mirror=mirror.address + "/", on_progress=report)
    assert standing(tmp_path / "deep/set") == CONTENT
    total = sum(map(len, CONTENT.values()))
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)


def test_files_that_are_right_are_not_asked_for_again(mirror: Mirror, get: Get, tmp_path: Path) -> None:
    get()
    mirror.requests.clear()
    (tmp_path / "set" / BIG).write_bytes(CONTENT[BIG][:-1] + b"x")
    assert get() == CONTENT
    assert mirror.requests == [BIG]


def test_nothing_missing_needs_no_network(get: Get, tmp_path: Path) -> None:
    get()
    download(table(CONTENT), tmp_path / "set", mirror="https://nowhere.invalid")


@pytest.mark.parametrize("fault", ["404", "500", "503", "429", "break off"])
def test_passing_fault_is_overcome(mirror: Mirror, get: Get, fault: str) -> None:
    mirror.faults[BIG] = [fault]
    assert get() == CONTENT
    assert mirror.requests.count(BIG) == 2


def test_a_broken_fetch_goes_on_with_the_files_that_are_missing(
    mirror: Mirror, get: Get, tmp_path: Path
) -> None:
    mirror.faults[BIG] = ["break off"] * 3
    with pytest.raises(DataError, match=r"image/001\.jpg: .*\(3 attempts\)"):
        get()
    assert standing(tmp_path / "set") == {path: data for path, data in CONTENT.items() if path != BIG}
    mirror.requests.clear()
    assert get() == CONTENT
    assert mirror.requests == [BIG]


def test_files_can_be_read_by_whoever_reads_what_is_made_beside_them(get: Get, tmp_path: Path) -> None:
    get()
    (tmp_path / "made").touch()
    usual = (tmp_path / "made").stat().st_mode
    assert {path.stat().st_mode for path in (tmp_path / "set").rglob("*") if path.is_file()} == {usual}


def test_server_without_a_length_is_understood(mirror: Mirror, get: Get) -> None:
    mirror.faults[BIG] = ["no length"]
    assert get() == CONTENT


@pytest.mark.parametrize("fault", ["wrong byte", "too long"])
def test_wrong_bytes_are_refused_and_the_next_fetch_is_clean(
    mirror: Mirror, get: Get, tmp_path: Path, fault: str
) -> None:
    mirror.faults[BIG] = [fault]
    with pytest.raises(DataError, match=r"image/001\.jpg: what came is refused"):
        get()
    others = {path: data for path, data in CONTENT.items() if path != BIG}
    assert standing(tmp_path / "set") == others
    assert get() == CONTENT


def test_all_refused_files_are_named_at_once(mirror: Mirror, get: Get) -> None:
    mirror.faults = {path: ["wrong byte"] for path in CONTENT if CONTENT[path]}
    with pytest.raises(DataError) as caught:
        get()
    assert len(caught.value.problems) == 3


def test_where_everything_is_refused_nothing_is_left_behind(mirror: Mirror, get: Get, tmp_path: Path) -> None:
    mirror.faults = {path: ["wrong byte"] for path in CONTENT if CONTENT[path]}
    known = tuple(each for each in table(CONTENT) if each.size)
    with pytest.raises(DataError, match="SHA-256"):
        download(known, tmp_path / "set", mirror=mirror.address)
    assert list(tmp_path.iterdir()) == []
    assert get() == CONTENT


def test_what_stood_there_before_outlasts_a_mirror_of_wrong_bytes(
    mirror: Mirror, get: Get, tmp_path: Path
) -> None:
    mine = tmp_path / "set" / "image" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    mirror.faults = {path: ["wrong byte"] for path in CONTENT if CONTENT[path]}
    with pytest.raises(DataError):
        get()
    assert standing(tmp_path / "set") == {"groundTruth/001.mat": b"", "image/mine.txt": b"mine"}


def test_lasting_fault_ends_after_three_attempts(mirror: Mirror, get: Get) -> None:
    del mirror.content[BIG]
    with pytest.raises(DataError, match=r"image/001\.jpg: the mirror answers 404 .*\(3 attempts\)"):
        get()
    assert mirror.requests.count(BIG) == 3


def test_hopeless_mirror_is_given_up_soon(mirror: Mirror, tmp_path: Path) -> None:
    many = table({f"{number:03d}": b"x" for number in range(200)})
    with pytest.raises(DataError) as caught:
        download(many, tmp_path / "set", mirror=mirror.address)
    assert 5 <= len(caught.value.problems) <= 8
    assert len(mirror.requests) < 50


def test_redirect_within_the_rules_is_followed(mirror: Mirror, get: Get) -> None:
    mirror.faults["README.md"] = [f"redirect {mirror.address}/README.md"]
    assert get() == CONTENT


@pytest.mark.parametrize("target", ["http://example.invalid/x", "file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_redirect_out_of_the_rules_is_not_followed(mirror: Mirror, get: Get, target: str) -> None:
    mirror.faults["README.md"] = [f"redirect {target}"] * 3
    with pytest.raises(DataError, match=r"not https|not allowed"):
        get()


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com/set",
        "ftp://example.com",
        "file:///etc",
        "example.com",
        "",
        "https://",
        "http://[bad",
    ],
)
def test_mirror_must_be_https_or_loopback(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a mirror is an https address"):
        download(table(CONTENT), tmp_path / "set", mirror=address)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address that answers no connection: its queue of one is full."""
    with socket.socket() as listening, socket.socket() as first, socket.socket() as second:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_no_network_is_said_within_five_seconds(deaf: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    for address in (deaf, closed):
        start = time.monotonic()
        with pytest.raises(DataError, match=r"cannot be reached .* needs a network"):
            fetch("cfd", tmp_path / "cfd", mirror=address)
        assert time.monotonic() - start < 5
        assert list(tmp_path.iterdir()) == []


def test_name_that_does_not_resolve_is_said_within_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"nowhere\.invalid:443 cannot be reached"):
        fetch("cfd", tmp_path / "cfd", mirror="https://nowhere.invalid/set")
    assert time.monotonic() - start < 5


def test_folder_that_cannot_be_made_is_named(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DataError, match="taken"):
        download(table(CONTENT), tmp_path / "taken", mirror=mirror.address)


def test_cfd_table_lists_the_published_files() -> None:
    known = known_files("cfd")
    folders = [each.path.partition("/")[0] for each in known]
    assert (folders.count("image"), folders.count("groundTruth"), folders.count("README.md")) == (155, 118, 1)
    assert all(
        re.fullmatch(r"(image/\d{3}\.jpg|groundTruth/\d{3}\.mat|README\.md)", each.path) for each in known
    )
    assert all(re.fullmatch("[0-9a-f]{64}", each.sha256) and 0 < each.size < 200_000 for each in known)
    assert len({each.sha256 for each in known}) > 250


def test_synthetic_set_is_drawn(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch("synthetic", tmp_path / "set", on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (72, 72)
    assert len(json.loads((tmp_path / "set/truth.json").read_text())["images"]) == 72
    with pytest.raises(DataError, match="has no mirror"):
        fetch("synthetic", tmp_path / "set", mirror="https://example.com")


@pytest.mark.parametrize(
    ("name", "said"),
    [("drive", "obtain it yourself: "), ("deepcrack", "obtain it"), ("cdf", "did you mean `cfd`")],
)
def test_other_sets_are_refused_with_the_remedy(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        fetch(name, tmp_path / "set")
    assert list(tmp_path.iterdir()) == []
