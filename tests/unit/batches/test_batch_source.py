"""What a batch scores: the images of a folder or an object store, each once, and nothing outside of it."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fissura.batches import source as module
from fissura.batches.source import ImageSource
from fissura.core.errors import DataError, FissuraError, SpecError, UserError


def plant(root: Path, *names: str) -> Path:
    """Files that hold their own names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def refusal(source: ImageSource, name: str) -> str:
    with pytest.raises(DataError) as caught:
        source.read(name)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem


@pytest.fixture(autouse=True)
def without_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without pillow-heif, whatever is installed here."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


class TestAFolder:
    def test_is_its_images_however_deep_sorted_by_their_relative_names(self, tmp_path: Path) -> None:
        source = ImageSource.open(str(plant(tmp_path, "b.png", "a.JPG", "deep/er/c.tiff", "deep/a.webp")))
        assert source.names() == ["a.JPG", "b.png", "deep/a.webp", "deep/er/c.tiff"]
        assert all(source.read(name) == name.encode() for name in source.names())
        assert source.label == str(tmp_path)

    def test_leaves_out_what_is_hidden_or_no_image(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.png", ".b.png", ".thumbs/c.png", "notes.txt", "d.png.part")
        assert ImageSource.open(str(tmp_path)).names() == ["a.png"]

    def test_names_what_it_leaves_out_but_for_what_is_hidden_or_a_system_s(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.png", "b/IMG_0002.HEIC", "DJI_0003.DNG", "notes.txt", ".b.png", "._a.png")
        plant(tmp_path, "__MACOSX/a.png", "__MACOSX/._a.png", "Thumbs.db", "b/desktop.ini", "b/.DS_Store")
        source = ImageSource.open(str(tmp_path))
        assert source.names() == ["a.png"]
        assert source.left_out == ("b/IMG_0002.HEIC", "DJI_0003.DNG", "notes.txt")

    def test_reads_heic_where_pillow_heif_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pillow_heif", ModuleType("pillow_heif"))
        source = ImageSource.open(str(plant(tmp_path, "a.png", "IMG_0002.HEIC", "DJI_0003.DNG")))
        assert (source.names(), source.left_out) == (["IMG_0002.HEIC", "a.png"], ("DJI_0003.DNG",))

    def test_of_heic_alone_is_refused_with_its_name(self, tmp_path: Path) -> None:
        plant(tmp_path, "IMG_0002.HEIC")
        with pytest.raises(DataError, match=r"1 file left out by its suffix: IMG_0002\.HEIC; HEIC is read"):
            ImageSource.open(str(tmp_path))

    def test_without_an_image_is_refused(self, tmp_path: Path) -> None:
        plant(tmp_path, "notes.txt")
        for place in (tmp_path, tmp_path / "missing"):
            with pytest.raises(DataError, match=str(place)):
                ImageSource.open(str(place))

    def test_may_be_one_file(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.png", "b.png")
        source = ImageSource.open(str(tmp_path / "b.png"))
        assert source.names() == ["b.png"]
        assert source.read("b.png") == b"b.png"

    def test_a_link_inside_is_followed_and_one_that_leads_outside_is_named(self, tmp_path: Path) -> None:
        plant(tmp_path, "in/a.png", "out/secret.png")
        root = tmp_path / "in"
        (root / "b.png").symlink_to("a.png")
        (root / "c.png").symlink_to(tmp_path / "out" / "secret.png")
        (root / "d").symlink_to(tmp_path / "out")
        source = ImageSource.open(str(root))
        assert source.names() == ["a.png", "b.png", "c.png", "d"]
        assert source.read("b.png") == b"in/a.png"
        assert "leads to" in refusal(source, "c.png")
        assert "leads to" in refusal(source, "d")

    def test_a_file_that_becomes_a_link_outside_after_the_listing_is_refused(self, tmp_path: Path) -> None:
        plant(tmp_path, "in/a.png", "secret.png")
        source = ImageSource.open(str(tmp_path / "in"))
        (tmp_path / "in" / "a.png").unlink()
        (tmp_path / "in" / "a.png").symlink_to(tmp_path / "secret.png")
        assert "leads to" in refusal(source, "a.png")

    def test_links_in_a_circle_end(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.png")
        (tmp_path / "again").symlink_to(tmp_path)
        (tmp_path / "b.png").symlink_to("b.png")
        source = ImageSource.open(str(tmp_path))
        assert source.names() == ["a.png", "b.png"]
        assert "cannot be read" in refusal(source, "b.png")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "a.png")
        assert "regular file" in refusal(ImageSource.open(str(tmp_path)), "a.png")

    def test_an_empty_missing_or_too_large_file_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(tmp_path, "a.png", "b.png", "c.png", "d.png")
        source = ImageSource.open(str(tmp_path))
        (tmp_path / "a.png").write_bytes(b"")
        (tmp_path / "b.png").unlink()
        monkeypatch.setattr(module, "MAX_BYTES", 2**20)
        (tmp_path / "c.png").write_bytes(bytes(2**20 + 1))
        (tmp_path / "d.png").write_bytes(bytes(2**20))
        assert "empty" in refusal(source, "a.png")
        assert "cannot be read" in refusal(source, "b.png")
        assert "at most 1 MiB" in refusal(source, "c.png")
        assert len(source.read("d.png")) == 2**20

    def test_a_name_that_is_no_utf_8_is_a_failure_with_a_name_that_is(self, tmp_path: Path) -> None:
        plant(tmp_path, "a.png")
        (tmp_path / os.fsdecode(b"b\xff.png")).write_bytes(b"b")
        source = ImageSource.open(str(tmp_path))
        assert source.names() == ["a.png", "b\\xff.png"]
        assert "UTF-8" in refusal(source, "b\\xff.png")

    def test_a_folder_that_cannot_be_listed_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plant(tmp_path, "a.png", "shut/b.png")
        real = os.scandir

        def scandir(place: str) -> object:
            if Path(place).name == "shut":
                raise PermissionError(13, "Permission denied", place)
            return real(place)

        monkeypatch.setattr(os, "scandir", scandir)
        source = ImageSource.open(str(tmp_path))
        assert source.names() == ["a.png", "shut"]
        assert "Permission denied" in refusal(source, "shut")

    @given(
        st.lists(st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1))
    )
    def test_any_name_that_a_file_may_have_is_listed_once(self, stems: list[str]) -> None:
        stems = [stem for stem in stems if not stem.startswith(".") and len(stem.encode()) < 200]
        with tempfile.TemporaryDirectory() as folder:
            plant(Path(folder), "always.png", *(f"{stem}.png" for stem in stems))
            source = ImageSource.open(folder)
            assert source.names() == sorted({"always.png", *(f"{stem}.png" for stem in stems)})
            assert all(source.read(name) == name.encode() for name in source.names())


class Store(BaseHTTPRequestHandler):
    """As much of S3 as a listing and a read need: the objects of one bucket, path-style addresses."""

    objects: dict[str, bytes]
    broken = False

    def do_HEAD(self) -> None:
        self._object(with_body=False)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if "list-type" in (asked := parse_qs(address.query)):
            prefix = asked.get("prefix", [""])[0]
            found = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(data)}</Size>"
                "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
                for key, data in self.objects.items()
                if key.startswith(prefix)
            )
            self._answer(
                200, f"<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>".encode()
            )
        else:
            self._object(with_body=True)

    def _object(self, *, with_body: bool) -> None:
        key = urlsplit(self.path).path.removeprefix("/bucket").removeprefix("/")
        data = self.objects.get(key)
        if self.broken and with_body:
            self._answer(400, b"")  # the client asks again and again after a 500
        elif data is None:
            self._answer(404, b"")
        else:
            first, last = 0, len(data) - 1
            if asked := self.headers.get("Range"):
                first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
            self._answer(206 if asked else 200, data[first : last + 1], with_body=with_body)

    def _answer(self, status: int, data: bytes, *, with_body: bool = True) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store's bucket, up to its query: `s3://bucket{}?...`."""
    names = ("walls/a.jpg", "walls/deep/b.png", "walls/.hidden/c.png", "walls/notes.txt", "wallsx/d.png")
    Store.objects = {name: name.encode() for name in names}
    Store.broken = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    query = f"scheme=http&region=local&endpoint_override=127.0.0.1%3A{server.server_port}"
    yield f"s3://bucket{{}}?{query}&allow_bucket_creation=false"
    server.shutdown()
    server.server_close()


class TestAnObjectStore:
    @pytest.mark.parametrize("prefix", ["/walls", "/walls/"])
    def test_is_the_images_below_a_prefix(self, store: str, prefix: str) -> None:
        source = ImageSource.open(store.format(prefix))
        assert source.names() == ["a.jpg", "deep/b.png"]
        assert source.left_out == ("notes.txt",)
        assert source.read("deep/b.png") == b"walls/deep/b.png"

    def test_may_be_one_object(self, store: str) -> None:
        source = ImageSource.open(store.format("/walls/a.jpg"))
        assert source.names() == ["a.jpg"]
        assert source.read("a.jpg") == b"walls/a.jpg"

    def test_a_name_that_would_leave_the_results_folder_is_a_failure(self, store: str) -> None:
        Store.objects["walls/../../evil.png"] = b"evil"
        source = ImageSource.open(store.format("/walls"))
        assert "../../evil.png" in source.names()
        assert "plain relative path" in refusal(source, "../../evil.png")

    def test_an_object_that_is_gone_is_a_failure(self, store: str) -> None:
        source = ImageSource.open(store.format("/walls"))
        del Store.objects["walls/a.jpg"]
        assert "cannot be read" in refusal(source, "a.jpg")

    def test_a_store_that_fails_is_no_fault_of_an_image(self, store: str) -> None:
        source = ImageSource.open(store.format("/walls"))
        Store.broken = True
        with pytest.raises(OSError, match="status 400"):
            source.read("a.jpg")

    def test_a_prefix_without_images_is_refused(self, store: str) -> None:
        with pytest.raises(DataError, match=r"mend the URL|name another folder"):
            ImageSource.open(store.format("/roofs"))

    @pytest.mark.parametrize(
        "url", ["s4://bucket/x", "s3:///", "://x", "s3://[x", "s3://bucket/x?colour=red"]
    )
    def test_a_url_of_no_store_is_refused(self, url: str) -> None:
        with pytest.raises(SpecError, match="s3://BUCKET/PREFIX"):
            ImageSource.open(url)

    def test_a_password_in_a_url_is_refused_and_not_repeated(self) -> None:
        with pytest.raises(SpecError) as caught:
            ImageSource.open("s3://AKIA:hunter2@bucket/walls")
        assert "hunter2" not in str(caught.value)
        assert "AKIA" not in str(caught.value)

    def test_a_store_that_cannot_be_reached_is_no_mistake_of_the_user(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Nobody:
            type_name = "s3"

            def get_file_info(self, _: object) -> object:
                raise OSError("When listing: curlCode 7, Couldn't connect to server\nmore")

        class Systems:
            @staticmethod
            def from_uri(_: str) -> tuple[Nobody, str]:
                return Nobody(), "bucket/walls"

        monkeypatch.setattr("pyarrow.fs.FileSystem", Systems)
        with pytest.raises(FissuraError, match=r"cannot be listed .*connect to server\)") as caught:
            ImageSource.open("s3://bucket/walls")
        assert not isinstance(caught.value, UserError)


def test_a_local_url_is_its_folder(tmp_path: Path) -> None:
    plant(tmp_path, "a.png")
    assert ImageSource.open(tmp_path.as_uri()).label == str(tmp_path)


def test_listed_files_have_the_names_that_they_are_given(tmp_path: Path) -> None:
    plant(tmp_path, "x/001.png", "y/001.png")
    source = ImageSource.of_files("two", [("b", tmp_path / "x/001.png"), ("a", tmp_path / "y/001.png")])
    assert source.names() == ["a", "b"]
    assert source.read("a") == b"y/001.png"
