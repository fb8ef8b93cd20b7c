"""What a client may name: paths and prefixes below an allowed root, whatever way they are written."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fissura.core.errors import SpecError
from fissura.serving.allowed_roots import Roots
from fissura.serving.problems import Refused

PREFIX = "s3://bucket/insp"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """house/open (a root) beside house/opening and house/secret; links lead out of the root and back."""
    house = tmp_path_factory.mktemp("house").resolve()
    for name in ("open/inner", "opening", "secret"):
        (house / name).mkdir(parents=True)
    (house / "secret" / "file").write_text("secret")
    (house / "open" / "out").symlink_to(house / "secret")
    (house / "open" / "file").symlink_to("../secret/file")
    (house / "open" / "circle").symlink_to("circle")
    (house / "open" / "inwards").symlink_to("inner")
    (house / "door").symlink_to("open")
    return house


@pytest.fixture(scope="module")
def roots(house: Path) -> Roots:
    return Roots([str(house / "open"), f"{PREFIX}/"])


def refused(roots: Roots, text: str) -> None:
    for ask in (roots.folder, roots.source):
        with pytest.raises(Refused) as error:
            ask(text, what="images")
        problem = error.value.problem
        assert (problem.kind, problem.status) == ("outside-the-roots", 403)
        assert "`images`" in problem.title


class TestAFolder:
    @pytest.mark.parametrize("path", ["open", "open/inner", "open/none/yet", "open/inner/../inner", "open/."])
    def test_below_a_root_is_given_resolved(self, roots: Roots, house: Path, path: str) -> None:
        found = roots.folder(f"{house}/{path}", what="out")
        assert found == Path(os.path.normpath(house / path))
        assert roots.source(f"{house}/{path}", what="images") == str(found)

    @pytest.mark.parametrize(("path", "real"), [("open/inwards/a", "open/inner/a"), ("door/a", "open/a")])
    def test_is_where_its_links_lead(self, roots: Roots, house: Path, path: str, real: str) -> None:
        assert roots.folder(f"{house}/{path}", what="out") == house / real

    @pytest.mark.parametrize(
        "path",
        [
            "secret", "opening", "open/../secret", "open/inner/../../secret/file", "open/out",
            "open/out/file",
            "open/file", "open/circle", "open/circle/a", "", ".", "open/inwards/../../secret",
        ],
    )  # fmt: skip
    def test_outside_is_refused(self, roots: Roots, house: Path, path: str) -> None:
        refused(roots, f"{house}/{path}")

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            ".",
            "open",
            "../open",
            "~",
            "~root",
            "/",
            "//",
            "/etc/passwd",
            "/proc/self/root",
            "\\",
            "C:\\",
        ],
    )
    def test_that_is_not_absolute_or_the_machine_s_own_is_refused(self, roots: Roots, text: str) -> None:
        refused(roots, text)

    def test_with_characters_that_no_path_has_is_refused(self, roots: Roots, house: Path) -> None:
        for tail in ("\0", "inner\0/../../secret", "\ud800", "a" * 5000, "a/" * 5000):
            text = f"{house}/open/{tail}"
            try:
                found = roots.folder(text, what="out")
            except Refused:
                continue
            assert found.is_relative_to(house / "open")
        refused(roots, f"{house}/open\0")
        refused(roots, f"{house}/open/\ud800")

    def test_that_is_encoded_is_no_other_path(self, roots: Roots, house: Path) -> None:
        found = roots.folder(f"{house}/open/%2e%2e/secret", what="out")
        assert found == house / "open" / "%2e%2e" / "secret"
        refused(roots, f"{house}/%6fpen")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        parts=st.lists(
            st.sampled_from(
                [
                    "..",
                    ".",
                    "",
                    "open",
                    "secret",
                    "opening",
                    "inner",
                    "out",
                    "file",
                    "door",
                    "inwards",
                    "circle",
                ]
            )
            | st.text(max_size=5),
            max_size=8,
        ),
        begin=st.sampled_from(["", "open/", "open/inner/"]),
    )
    def test_that_is_let_in_is_really_below_the_root(
        self, roots: Roots, house: Path, parts: list[str], begin: str
    ) -> None:
        text = f"{house}/{begin}{'/'.join(parts)}"
        try:
            found = roots.folder(text, what="out")
        except Refused:
            return
        # the oracle: what the operating system makes of the path
        assert os.path.realpath(text) == str(found)
        assert str(found) == str(house / "open") or str(found).startswith(f"{house}/open/")


class TestAPrefix:
    @pytest.mark.parametrize(
        "text", [PREFIX, f"{PREFIX}/", f"{PREFIX}/2026", f"{PREFIX}/a b/c.d/", f"{PREFIX}/ü"]
    )
    def test_below_a_root_is_given_as_it_is(self, roots: Roots, text: str) -> None:
        assert roots.source(text, what="images") == text

    @pytest.mark.parametrize(
        "text",
        [
            "s3://bucket/inspections-secret", "s3://bucket/ins", "s3://bucket", "s3://bucket/", "s3://",
            "s3://other/insp",
            "S3://bucket/insp", "s3a://bucket/insp", "gs://bucket/insp", "http://bucket/insp",
            "https://bucket/insp/a",
            "file:///etc", "file://localhost/etc", "file:///", "FILE:///etc", "file:/etc", "://", "data:,a",
            "s3://user@bucket/insp/a", "s3://key:secret@bucket/insp", "s3://bucket@evil/insp",
            "s3://bucket:80/insp/a",
            f"{PREFIX}/..", f"{PREFIX}/../secret", f"{PREFIX}/a/../../secret", f"{PREFIX}/%2e%2e/secret",
            f"{PREFIX}/%2E%2E%2Fsecret", f"{PREFIX}/..%2fsecret", f"{PREFIX}/%252e%252e/secret",
            f"{PREFIX}/%00",
            f"{PREFIX}/\0", f"{PREFIX}/\n", f"{PREFIX}/a?endpoint_override=evil:80", f"{PREFIX}?region=x",
            f"{PREFIX}#a",
            f" {PREFIX}/a", f"\t{PREFIX}", f"x{PREFIX}", f"file://{PREFIX}", f"{PREFIX}\u202e/a",
            f"{PREFIX}/\ud800",
        ],
    )  # fmt: skip
    def test_outside_is_refused(self, roots: Roots, text: str) -> None:
        refused(roots, text)

    def test_is_no_folder_to_write_to(self, roots: Roots) -> None:
        with pytest.raises(Refused):
            roots.folder(f"{PREFIX}/a", what="out")

    @given(st.text(alphabet="s3:/buckeinp.%2f?#@\\ \0", max_size=12))
    @example("/../x")
    def test_that_is_let_in_begins_with_a_root_and_goes_nowhere_else(self, tail: str) -> None:
        text = PREFIX + tail
        try:
            found = Roots([PREFIX]).source(text, what="images")
        except Refused:
            return
        assert found == text
        assert text == PREFIX or text.startswith(f"{PREFIX}/")
        assert not {"?", "#", "%", "\0"} & set(text)
        assert ".." not in text.split("/")


class TestARoot:
    def test_of_the_whole_machine_holds_everything(self) -> None:
        assert Roots(["/"]).folder("/etc", what="out") == Path("/etc").resolve()

    @pytest.mark.parametrize(
        "root", ["", " ", "s3://", "://", "file:///srv", "S3://b", "s3://b/a?x=1", "s3://k@b/a"]
    )
    def test_that_is_neither_folder_nor_prefix_is_refused_at_the_start(self, root: str) -> None:
        with pytest.raises(SpecError, match="a root is a folder"):
            Roots([root])

    def test_that_was_not_given_lets_nothing_in(self) -> None:
        refused(Roots(), "/tmp")  # noqa: S108
        refused(Roots(), PREFIX)

    def test_may_itself_be_a_link(self, house: Path) -> None:
        roots = Roots([str(house / "door")])
        assert roots.folder(f"{house}/open/inner", what="out") == house / "open" / "inner"
        refused(roots, f"{house}/secret")


def test_a_refusal_shows_no_more_of_a_name_than_it_needs(roots: Roots) -> None:
    with pytest.raises(Refused) as error:
        roots.folder("/x" * 10_000, what="out")
    assert len(error.value.problem.detail) < 300
