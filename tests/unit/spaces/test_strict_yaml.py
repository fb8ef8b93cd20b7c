"""A YAML file reads one way only; each problem is one line that names the place, the value and the remedy."""

import contextlib
from pathlib import Path

import pytest
import yaml as pyyaml
from hypothesis import given
from hypothesis import strategies as st

from fissura.core.errors import SpaceError, SpecError
from fissura.spaces.strict_yaml import DEPTH_LIMIT, SIZE_LIMIT_BYTES, parse, parse_value, read

NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text("abcxyz_/. é", min_size=1).map(lambda text: f"w{text}w")
VALUES = st.recursive(
    NUMBERS | WORDS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("-1.5", -1.5),
        ("1.0e-5", 1e-5),
        ("1.5E+3", 1500.0),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("adam", "adam"),
        ("tolerant:2", "tolerant:2"),
        ("'off'", "off"),
        ('"1e-5"', "1e-5"),
        ("'2026-01-01'", "2026-01-01"),
        ("[1, 2.5, x]", [1, 2.5, "x"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("8-bit", "8-bit"),
        ("data/cfd", "data/cfd"),
    ],
)
def test_reads_plain_values(text: str, value: object) -> None:
    for found in (parse_value(text), parse(f"key: {text}", source="f").plain["key"]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("1e-5", "write 1.0e-5"),
        ("1e5", "write 1.0e+5"),
        ("-2.5E3", "write -2.5e+3"),
        ("off", "write false"),
        ("No", "write false"),
        ("on", "write true"),
        ("YES", "write true"),
        ("010", "write decimal digits"),
        ("089", "write decimal digits"),
        ("0o17", "write decimal digits"),
        ("0x1F", "write decimal digits"),
        ("0b11", "write decimal digits"),
        ("1_000", "write decimal digits"),
        ("1:30", "write decimal digits"),
        ("190:20:30.15", "write decimal digits"),
        (".inf", "write a finite number"),
        ("-.INF", "write a finite number"),
        (".nan", "write a finite number"),
        ("1.0e+999", "write a smaller number"),
        ("99999999999999999999", "write a smaller number"),
        ("9" * 5000, "write a smaller number"),
        ("2026-01-01", "quote it"),
        ("2026-01-01 10:00:00", "quote it"),
        ("", "write one, or null"),
        ("=", "write the values out"),
        ("!!int 3", "remove it"),
        ("!!python/name:os.system x", "remove it"),
        ('"\\uD800"', "write the character itself"),
    ],
)
def test_refuses_what_yaml_reads_oddly(text: str, remedy: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse(f"first: 1\nkey: {text}\n", source="space.yaml")
    (problem,) = caught.value.problems
    assert problem.startswith("space.yaml:2: ")
    assert remedy in problem
    with pytest.raises(SpecError) as refused:
        parse_value(text)
    assert remedy in str(refused.value)
    assert len(problem) < 300


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "`a` is given twice, first in line 1; remove one"),
        ("a: {b: 1,\n b: 2}\n", 2, "`b` is given twice, first in line 1"),
        ("a: &x 1\nb: *x\n", 2, "the alias `*x` is not read; write the value out"),
        ("a: &x [1]\nb:\n  <<: *x\n", 3, "`<<` is not read"),
        ("a:\n\tb: 1\n", 2, "a tab cannot indent; use spaces"),
        ("a: [1, 2\n", 2, "check indentation, brackets"),
        ("a: b: c\n", 1, "mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", 2, "expected a single document"),
        ("- a\n", 1, "must be a mapping"),
        ("text\n", 1, "must be a mapping"),
        ("", 1, "there is no value"),
        ("# only a comment\n", 1, "there is no value"),
        ("1: a\n", 1, "a key must be text; quote it"),
        ("[1]: a\n", 1, "a key must be text; quote it"),
        ("on: a\n", 1, "would be read as true"),
        ("a: 1\nb: \x07\n", 2, "the character U+0007 is not allowed"),
        ("a: " + "[" * 5000, 1, f"nested deeper than {DEPTH_LIMIT} levels"),
        ('a: "\\UFFFFFFFF"', 1, "is not YAML"),
        (f"%YAML {'9' * 5000}.1\n---\na: 1", 1, "is not YAML"),
    ],
)
def test_names_the_line_of_what_is_broken(text: str, line: int, words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse(text, source="space.yaml")
    assert caught.value.problems[0].startswith(f"space.yaml:{line}: ")
    assert words in caught.value.problems[0]


def test_tells_all_problems_at_once_in_the_order_of_the_lines() -> None:
    with pytest.raises(SpaceError) as caught:
        parse("a: 1e-5\nb: off\na: 010\nc: [1:30, ok, .nan]\n", source="f")
    assert [problem.split(":")[1] for problem in caught.value.problems] == ["1", "2", "3", "4", "4"]


def test_keeps_the_line_of_each_key_and_item() -> None:
    document = parse("a: 1\nb:\n  c: [1,\n    2]\n  d: {e: 3}\n", source="f")
    assert document.line(("a",)) == 1
    assert document.line(("b", "c", 1)) == 4
    assert document.line(("b", "d", "e")) == 5
    assert document.line(("b", "tag", "d", "absent")) == 5, "what the file lacks is skipped"


def test_reads_a_file_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes("\ufeffa: é\n".encode())
    assert read(path).plain == {"a": "é"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: 1\nb: \xff\xfe\n", ":2: is not UTF-8; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), ":1: is not UTF-8"),
        (b"a: 1 # " + b"x" * SIZE_LIMIT_BYTES, ": is larger than 100 kB"),
    ],
)
def test_refuses_a_file_that_is_no_yaml_text(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_bytes(content)
    with pytest.raises(SpaceError, match=r"^\S+$|.") as caught:
        read(path)
    assert caught.value.problems[0].startswith(f"{path}{words}")


def test_a_missing_file_brings_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "bridges.yaml").touch()
    with pytest.raises(SpaceError) as caught:
        read(tmp_path / "brigdes.yaml")
    assert f"did you mean `{tmp_path / 'bridges.yaml'}`?" in str(caught.value)
    with pytest.raises(SpaceError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(SpaceError, match="there is no such file"):
        read(tmp_path / "absent" / "space.yaml")
    with pytest.raises(SpaceError, match="cannot be read"):
        read(tmp_path / ("x" * 5000))


@given(st.dictionaries(WORDS, VALUES, min_size=1, max_size=5))
def test_reads_back_what_yaml_wrote(plain: dict[str, object]) -> None:
    assert parse(pyyaml.safe_dump(plain, allow_unicode=True), source="f").plain == plain


def problems_of(text: str) -> tuple[str, ...]:
    """What is wrong with a text; any other exception than the promised one fails the test."""
    try:
        parse(text, source="f")
    except SpaceError as error:
        return error.problems
    return ()


@given(st.text() | st.text("{}[]:,-&*!|>'\"%@#? \n\tab01.e"))
def test_any_text_is_read_or_refused_line_by_line(text: str) -> None:
    for problem in problems_of(text):
        assert problem.startswith("f:")
        assert problem.isprintable(), "one line, and no control characters for the terminal"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "space.yaml"
    path.write_bytes(content)
    with contextlib.suppress(SpaceError):
        assert isinstance(read(path).plain, dict)
