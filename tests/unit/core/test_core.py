"""What all layers stand on: closed specs, digests, files that are whole or absent, seeds, one error tree."""

import hashlib
import inspect
import json
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from fissura.core import errors
from fissura.core.errors import DataError, FissuraError, SpecError, UserError
from fissura.core.files import read_regular, remove_abandoned, replacing, sha256, write_json, write_text
from fissura.core.seeding import derive
from fissura.core.spec import Spec, digest
from fissura.core.text import nearest


class Inner(Spec):
    share: float = Field(0.5, ge=0, le=1)
    kind: Literal["inner"] = "inner"


class Outer(Spec):
    name: str
    count: int = 1
    inner: Inner = Inner()
    places: tuple[Path, ...] = ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def shuffled(plain: object) -> object:
    """The same plain value, its dictionaries filled in the opposite order."""
    if isinstance(plain, dict):
        return {key: shuffled(plain[key]) for key in reversed(plain)}
    return [shuffled(each) for each in plain] if isinstance(plain, list) else plain


class TestSpec:
    def test_is_immutable(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            Outer(name="a").count = 2

    def test_comes_back_from_its_plain_form(self) -> None:
        spec = Outer(name="a", count=3, inner=Inner(share=0.1), places=(Path("b"),))
        assert Outer.load(json.loads(json.dumps(spec.plain())), source="here") == spec

    def test_names_every_field_that_breaks_a_rule_with_its_source(self) -> None:
        wrong = {"name": "a", "count": "2", "inner": {"share": 1.5}, "colour": "red"}
        with pytest.raises(SpecError) as caught:
            Outer.load(wrong, source="mine.json")
        problems = caught.value.problems
        assert len(problems) == 3
        assert all(problem.startswith("mine.json: `") and "\n" not in problem for problem in problems)
        text = "\n".join(problems)
        assert "`count` is a whole number (got '2')" in text
        assert "got '2'" in text
        assert "`inner.share`: must be at most 1 (got 1.5)" in text
        assert "`colour` is not a field (got 'red')" in text

    @pytest.mark.parametrize("share", [float("nan"), float("inf")])
    def test_holds_no_number_that_is_none(self, share: float) -> None:
        with pytest.raises(SpecError, match="finite"):
            Inner.load({"share": share}, source="here")

    @pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00\xff", "null", '{"name": NaN}'])
    def test_refuses_a_file_that_does_not_hold_it(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        path.write_text(text)
        with pytest.raises(SpecError, match=r"spec\.json: "):
            Outer.load_file(path)

    def test_refuses_a_file_that_is_missing_or_too_large(self, tmp_path: Path) -> None:
        path = tmp_path / "spec.json"
        with pytest.raises(SpecError, match="cannot be read"):
            Outer.load_file(path)
        with path.open("wb") as file:
            file.truncate(16 * 2**20 + 1)
        with pytest.raises(SpecError, match="at most 16 MiB"):
            Outer.load_file(path)


class TestDigest:
    @given(JSON)
    def test_does_not_depend_on_the_order_of_keys(self, plain: object) -> None:
        assert digest(plain) == digest(shuffled(plain))

    @given(JSON, JSON)
    def test_tells_values_apart(self, one: object, other: object) -> None:
        assert (digest(one) == digest(other)) == (
            json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        )

    def test_is_the_same_in_every_process_and_version(self) -> None:
        text = '{"a":[1,2.5,null],"b":"x"}'
        assert digest({"b": "x", "a": [1, 2.5, None]}) == hashlib.sha256(text.encode()).hexdigest()[:16]

    def test_has_no_name_for_what_is_no_number(self) -> None:
        with pytest.raises(ValueError, match="JSON"):
            digest({"lr": float("nan")})


@pytest.mark.parametrize(
    ("name", "hint"),
    [("gama", "; did you mean `gamma`?"), ("zzz", ""), ("", ""), ("beta", "; did you mean `beta`?")],
)
def test_a_name_that_is_not_known_is_answered_with_the_nearest(name: str, hint: str) -> None:
    assert nearest(name, ["alpha", "beta", "gamma"]) == hint


class TestFiles:
    def test_a_small_one_is_read_in_little_memory_whatever_it_might_hold(self, tmp_path: Path) -> None:
        (path := tmp_path / "a.json").write_bytes(b"{}")
        tracemalloc.start()
        try:
            assert read_regular(path, most=2**28) == b"{}"
            assert tracemalloc.get_traced_memory()[1] < 2**20
        finally:
            tracemalloc.stop()

    def test_replaces_a_file_at_once_and_leaves_no_other(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "file.txt"
        write_text(path, "one")
        with replacing(path) as scratch:
            scratch.write_text("two")
            assert path.read_text() == "one"
        assert path.read_text() == "two"
        assert list(path.parent.iterdir()) == [path]

    def test_keeps_what_stood_there_when_the_writing_fails(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text("before")
        with pytest.raises(UnicodeEncodeError), replacing(path) as scratch:
            scratch.write_text("half \ud800", encoding="utf-8")
        with pytest.raises(TypeError):
            write_json(path, {"not": object()})
        assert path.read_text() == "before"
        assert list(tmp_path.iterdir()) == [path]

    def test_keeps_what_stood_there_when_the_writer_is_killed(self, tmp_path: Path) -> None:
        path = tmp_path / "file.txt"
        path.write_text("before")
        code = (
            "import os, signal, sys; from pathlib import Path; from fissura.core.files import replacing\n"
            "with replacing(Path(sys.argv[1])) as scratch:\n"
            "    scratch.write_text('half')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, path], check=False)
        assert done.returncode == -signal.SIGKILL
        assert path.read_text() == "before"

    def test_clears_what_killed_writers_left_and_nothing_else(self, tmp_path: Path) -> None:
        kept = {tmp_path / name for name in ("file.txt", ".hidden", ".notes.tmp", "a.0123abcd.tmp")}
        for path in (*kept, tmp_path / ".file.txt.0123abcd.tmp"):
            path.write_text("")
        remove_abandoned(tmp_path)
        remove_abandoned(tmp_path / "missing")
        assert set(tmp_path.iterdir()) == kept

    def test_writes_json_that_reads_back(self, tmp_path: Path) -> None:
        plain = {"b": [1, 2.5], "a": "ö"}
        write_json(tmp_path / "file.json", plain)
        assert json.loads((tmp_path / "file.json").read_text(encoding="utf-8")) == plain

    def test_hashes_the_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"abc")
        # FIPS 180-2, appendix B.1
        assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


class TestSeeds:
    def test_are_the_same_in_every_process_and_version(self) -> None:
        hashed = hashlib.sha256(b"7/augment/3/12").digest()[:8]
        assert derive(7, "augment", 3, 12) == int.from_bytes(hashed, "big") // 2

    @given(st.integers(0, 2**32 - 1), st.integers(0, 100_000), st.integers(0, 100_000))
    def test_suit_every_generator(self, seed: int, epoch: int, place: int) -> None:
        derived = derive(seed, "sample", epoch, place)
        assert 0 <= derived < 2**63
        np.random.default_rng(derived)

    def test_differ_between_places(self) -> None:
        places = [(seed, use, i) for seed in range(10) for use in ("order", "sample") for i in range(500)]
        assert len({derive(seed, use, i) for seed, use, i in places}) == len(places)


class TestErrors:
    def test_are_one_tree_and_the_docstring_draws_it(self) -> None:
        own = {name: each for name, each in vars(errors).items() if inspect.isclass(each)}
        assert all(issubclass(each, FissuraError) for each in own.values())
        tree = (errors.__doc__ or "").splitlines()
        drawn = {line.split("── ")[-1].split()[0] for line in tree if "──" in line}
        assert drawn == set(own) - {"FissuraError"}

    def test_of_users_hold_one_line_a_problem(self) -> None:
        error = DataError("a.png: is empty", "b.png: is missing")
        assert isinstance(error, UserError)
        assert error.problems == ("a.png: is empty", "b.png: is missing")
        assert str(error) == "a.png: is empty\nb.png: is missing"
