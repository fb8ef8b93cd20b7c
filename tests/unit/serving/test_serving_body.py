"""Bodies as they are sent: raw or multipart, in any pieces, honest or not, and never more than the limits."""

import asyncio
import tracemalloc
from collections.abc import Iterable, Sequence
from itertools import pairwise
from tempfile import SpooledTemporaryFile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from fissura.serving.body import RAW_TYPES, Upload, bounded, claimed_length, read_images
from fissura.serving.limits import Limits
from fissura.serving.problems import Problem, Refused

LIMITS = Limits(body_bytes=4096, images=3)
BOUNDARY = "b"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def request(chunks: Iterable[bytes], headers: dict[str, str], *, most: int = LIMITS.body_bytes) -> Request:
    """A request whose body comes in these pieces; after them the client is gone."""
    chunks = list(chunks)
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": place + 1 < len(chunks)}
        for place, chunk in enumerate(chunks)
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
    return Request(scope, bounded(receive, most=most, limits=LIMITS))


def read(chunks: Iterable[bytes], media: str | None, *, limits: Limits = LIMITS) -> tuple[list[Upload], bool]:
    headers = {} if media is None else {"Content-Type": media}
    return asyncio.run(read_images(request(chunks, headers, most=limits.body_bytes), limits))


def problem(chunks: Iterable[bytes], media: str | None, *, limits: Limits = LIMITS) -> Problem:
    with pytest.raises(Refused) as refused:
        read(chunks, media, limits=limits)
    return refused.value.problem


def part(
    data: bytes = b"data", *, field: str = "images", name: str | None = "a.jpg", more: bytes = b""
) -> bytes:
    """One part, with its boundary in front."""
    filename = "" if name is None else f'; filename="{name}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"{filename}\r\n'
    return head.encode() + more + b"\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


class TestTheBytesOfAnImage:
    @pytest.mark.parametrize(
        "media",
        [
            None, *RAW_TYPES, "IMAGE/PNG", " image/png ; charset=utf-8",
            "image/jpg", "image/pjpeg", "image/x-png", "binary/octet-stream", "image/heic", "image/x-ms-bmp",
        ],
    )  # fmt: skip
    def test_are_one_image_without_a_name(self, media: str | None) -> None:
        assert read([b"ab", b"", b"c"], media) == ([Upload(None, b"abc")], False)

    @pytest.mark.parametrize(
        "media",
        ["text/plain", "application/json", "image/svg+xml", "image/*", "", "multipart/mixed; b=b", "\xff"],
    )  # fmt: skip
    def test_of_another_type_are_refused_before_they_are_read(self, media: str) -> None:
        found = problem([b"x" * 10_000], media)
        assert (found.kind, found.status) == ("not-an-image-type", 415)
        assert repr(media.partition(";")[0]) in found.detail

    def test_may_be_none(self) -> None:
        assert read([b""], "image/png") == ([Upload(None, b"")], False)


class TestTheLengthOfABody:
    def test_is_what_its_header_says(self) -> None:
        assert claimed_length(Headers({"Content-Length": "17"}), most=4096) == 17

    @pytest.mark.parametrize(
        "headers",
        [
            {}, {"Content-Length": ""}, {"Content-Length": "-1"}, {"Content-Length": "1e3"},
            {"Content-Length": "\xb2"},
            {"Content-Length": "1, 1"}, {"Transfer-Encoding": "chunked"},
            {"Transfer-Encoding": "chunked", "Content-Length": "1"},
        ],
    )  # fmt: skip
    def test_is_none_where_nothing_says_it(self, headers: dict[str, str]) -> None:
        assert claimed_length(Headers(headers), most=4096) == 0

    @pytest.mark.parametrize("length", ["4097", "9" * 19, "9" * 5000])
    def test_that_is_too_much_is_refused_by_its_header_alone(self, length: str) -> None:
        with pytest.raises(Refused) as refused:
            claimed_length(Headers({"Content-Length": length}), most=4096)
        assert refused.value.problem.status == 413
        assert len(str(refused.value)) < 300

    @pytest.mark.parametrize("headers", [{}, {"Content-Length": "1"}, {"Content-Length": "4096"}])
    @pytest.mark.parametrize("media", ["image/png", MULTIPART])
    def test_is_bounded_whatever_its_header_says(self, headers: dict[str, str], media: str) -> None:
        pulled = 0

        def chunks() -> Iterable[bytes]:
            nonlocal pulled
            yield part()[:-6]
            for _ in range(10_000):
                pulled += 1
                yield b"x" * 1000

        async def receive() -> Message:
            return {"type": "http.request", "body": next(stream), "more_body": True}

        stream = iter(chunks())
        raw = [
            (name.lower().encode(), value.encode())
            for name, value in {**headers, "Content-Type": media}.items()
        ]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}
        asked = Request(scope, bounded(receive, most=LIMITS.body_bytes, limits=LIMITS))
        with pytest.raises(Refused) as refused:
            asyncio.run(read_images(asked, LIMITS))
        assert (refused.value.problem.kind, refused.value.problem.status) == ("too-large", 413)
        assert pulled <= 5

    def test_at_the_limit_is_read(self) -> None:
        [upload], _ = read([b"x" * 4095, b"x"], "image/png")
        assert len(upload.data) == 4096

    @pytest.mark.parametrize("media", ["image/png", MULTIPART])
    def test_that_ends_early_because_the_client_went_is_no_image(self, media: str) -> None:
        asked = request([], {"Content-Type": media, "Content-Length": "100"})
        with pytest.raises(ClientDisconnect):
            asyncio.run(read_images(asked, LIMITS))


class TestABatch:
    def test_is_its_files_in_order_with_their_names(self) -> None:
        sent = body(part(b"1", name="a.jpg"), part(b"\r\n--c\r\n", name="ü 2.png"), part(b"", name="a.jpg"))
        assert read([sent], MULTIPART) == (
            [Upload("a.jpg", b"1"), Upload("ü 2.png", b"\r\n--c\r\n"), Upload("a.jpg", b"")],
            True,
        )

    @given(cuts=st.lists(st.integers(1, 300), max_size=20))
    def test_may_come_in_any_pieces(self, cuts: list[int]) -> None:
        sent = body(part(b"1" * 50, name="a"), part(b"\r\n-", name="b"))
        places = sorted({0, len(sent), *(cut for cut in cuts if cut < len(sent))})
        pieces = [sent[begin:end] for begin, end in pairwise(places)]
        assert read(pieces, MULTIPART) == ([Upload("a", b"1" * 50), Upload("b", b"\r\n-")], True)

    def test_of_one_file_is_a_batch(self) -> None:
        assert read([body(part())], MULTIPART) == ([Upload("a.jpg", b"data")], True)

    def test_file_without_a_name_has_none(self) -> None:
        assert read([body(part(name=""))], MULTIPART)[0] == [Upload(None, b"data")]

    def test_name_is_cut_and_can_be_written_anywhere(self) -> None:
        [upload], _ = read([body(part(name="x" * 1000 + "/../../a.jpg"))], MULTIPART)
        assert upload.name == ("x" * 1000 + "/../../a.jpg")[-255:]

    @pytest.mark.parametrize(
        ("charset", "name"),
        [
            ("unicode_escape", b"\\ud800.png"), ("raw_unicode_escape", b"\\udfff.png"),
            ("utf-7", b"+2AA-.png"), ("utf-8", b"\xff.png"),
            ("none", b"\xff.png"), ("rot13", b"a.png"), ("idna", b"\xff.png"),
            ("hex", b"61"),
            ("", b"a"), ("'", b"a"), ("../../os", b"a"), ("x" * 1000, b"a"),
        ],
    )  # fmt: skip
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_name_in_any_charset_can_be_sent_back(self, charset: str, name: bytes) -> None:
        sent = part().replace(b"a.jpg", name) + f"--{BOUNDARY}--\r\n".encode()
        [upload], _ = read([sent], f"{MULTIPART}; charset={charset}")
        (upload.name or "").encode()
        assert upload.data == b"data"

    @pytest.mark.parametrize(
        ("sent", "reason"),
        [
            (body(), "holds none"),
            (b"", "last boundary is missing"),
            (body(*[part(field="note", name=None)] * 33), "Too many fields"),
            (part(), "last boundary is missing"),
            (part() + part()[:-3], "last boundary is missing"),
            (body(part())[:-5], "last boundary is missing"),
            (b"no multipart at all", "Invalid multipart"),
            (b"--other\r\n\r\n", "Invalid multipart"),
            (body(f"--{BOUNDARY}\r\n\r\ndata\r\n".encode()), '"name" must be provided'),
            (body(part().replace(b'form-data; name="images"; ', b"attachment; ")), "must be provided"),
            (body(part(more=b"X-Long: " + b"x" * 4000 * 2 + b"\r\n")), "Invalid multipart"),
            (body(part(more=b"".join(b"X-%d: y\r\n" % each for each in range(100)))), "Invalid multipart"),
            (body(part(more=b"bad header\r\n")), "Invalid multipart"),
        ],
    )  # fmt: skip
    def test_that_is_none_is_refused_with_the_reason(self, sent: bytes, reason: str) -> None:
        found = problem([sent], MULTIPART, limits=Limits(body_bytes=2**16, images=3))
        assert (found.kind, found.status) == ("malformed", 400)
        assert reason in found.detail
        assert len(found.detail) < 250

    @pytest.mark.parametrize(
        ("parts", "told"),
        [
            ([part(field="image")], "`image` is not known; did you mean `images`?"),
            ([part(), part(field="x" * 3000)], f"`{'x' * 60}` is not known"),
            ([part(name=None)], "`images` is text, not a file"),
            ([part(), part(b"y" * 10**6, field="note", name=None)], "`note` is not known"),
            (
                [part(), part(field="a", name=None), part(field="b", name=None)],
                "`a` is not known; `b` is not",
            ),
        ],
    )
    def test_of_other_parts_than_files_called_images_names_them(self, parts: list[bytes], told: str) -> None:
        found = problem([body(*parts)], MULTIPART, limits=Limits(body_bytes=2**21, images=3))
        assert (found.kind, found.status) == ("invalid-value", 422)
        assert told in found.detail
        assert len(found.detail) < 250

    @pytest.mark.parametrize("tail", ["", "; boundary", "; boundary=", "; x=y", "; boundary=other"])
    def test_without_its_boundary_is_refused(self, tail: str) -> None:
        found = problem([body(part())], f"multipart/form-data{tail}")
        assert found.kind == "malformed"
        assert "multipart" in found.detail

    def test_of_too_many_files_is_refused(self) -> None:
        assert len(read([body(*[part()] * 3)], MULTIPART)[0]) == 3
        found = problem([body(*[part()] * 4)], MULTIPART)
        assert (found.kind, found.status) == ("too-large", 413)
        assert "1 to 3 files" in found.title

    @given(
        st.binary(max_size=300),
        st.sampled_from([MULTIPART, MULTIPART + "; charset=utf-16", "multipart/form-data; boundary="]),
    )
    def test_of_any_bytes_is_read_or_refused(self, noise: bytes, media: str) -> None:
        for sent in (
            noise,
            body(part(noise)),
            part() + noise,
            part(more=noise) + body(),
            body(part())[: len(noise)],
        ):
            try:
                uploads, is_batch = read([sent], media)
                status = 200 if uploads and is_batch else 0
            except Refused as refused:
                status = refused.problem.status
            assert status in (200, 400, 413, 422)

    def test_of_long_headers_takes_no_more_memory_than_the_limits(self) -> None:
        limits = Limits(body_bytes=2**24)
        chunk = b"x" * 2**16
        tracemalloc.start()
        found = problem([part()[:20], *[chunk] * 200], MULTIPART, limits=limits)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.status == 400
        assert peak < 2**20

    def test_leaves_no_file_open_when_it_is_refused_in_the_middle(self, opened: Sequence[str]) -> None:
        large = part(b"x" * 3 * 2**20)
        limits = Limits(body_bytes=2**23, images=3)
        for sent, most in (
            (large + large, 2**22),
            (large + large, 2**23),
            (body(large, large.replace(b"images", b"ima")), 2**23),
        ):
            asked = request([sent[: 2**21], sent[2**21 :]], {"Content-Type": MULTIPART}, most=most)
            with pytest.raises(Refused):
                asyncio.run(read_images(asked, limits))
        assert len(opened) >= 3
        assert not [name for name in opened if name == "open"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Sequence[str]:
    """Of each temporary file of a batch whether it is "open" or "closed", when it is looked at."""
    import starlette.formparsers as parsers

    files: list[object] = []

    def noted(*, max_size: int) -> object:
        files.append(SpooledTemporaryFile(max_size=max_size))  # noqa: SIM115
        return files[-1]

    monkeypatch.setattr(parsers, "SpooledTemporaryFile", noted)

    class Seen(Sequence[str]):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, place: int) -> str:  # type: ignore[override]
            return "closed" if files[place].closed else "open"  # type: ignore[attr-defined]

    return Seen()
