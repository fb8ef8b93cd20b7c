"""`make test-all`, on toy suites: it goes on after a failure, and its table and exit code tell the truth."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import suites
from suites import Outcome, Suite, counts, run_all

GREEN = """
import pytest
def test_one(): pass
@pytest.mark.parametrize("n", [1, 2])
def test_some(n): pass
@pytest.mark.skip(reason="elsewhere")
def test_other(): pass
"""
RED = """
import pytest
@pytest.fixture
def torn():
    yield
    raise ValueError
def test_right(): pass
def test_wrong(): assert False
def test_that_ends_badly(torn): pass
def test_wrong_that_ends_badly(torn): assert False
def test_of_nothing(absent): pass
"""
DIES = """
import os
def test_right(): pass
def test_end(): os._exit(9)
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of toy suites, each a file."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second each
    for name, text in (
        ("green", GREEN),
        ("red", RED),
        ("dies", DIES),
        ("torn", "import nothing_of_the_kind"),
    ):
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return tmp_path


def suite(toy: Path, name: str, *words: str) -> Suite:
    return Suite(name, ("pytest", "-c", str(toy / "pytest.ini"), str(toy / f"test_{name}.py"), *words))


def written(build: Path) -> list[Outcome]:
    """The outcomes of the file, without their seconds."""
    found = [Outcome(**outcome) for outcome in json.loads((build / "suites.json").read_text())]
    return [Outcome(o.suite, o.passed, o.failed, o.skipped, note=o.note) for o in found]


def test_a_suite_keeps_what_python_compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    check = Suite("check", ("python", "-c", "import sys; raise SystemExit(sys.dont_write_bytecode)"))
    assert suites.run(check, build=tmp_path).passed == 1


def test_each_suite_is_run_whatever_became_of_those_before_it(
    toy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build = toy / "build"
    chosen = [
        Suite("check", ("python", "-c", "raise SystemExit(3)")),
        suite(toy, "red"),
        suite(toy, "dies"),
        suite(toy, "torn"),
        Suite("hosts", ("pytest",), lambda: ["made by root: run this as root", "apt install rsync"]),
        Suite("none", (*suite(toy, "green").words, "-k", "of_no_name")),
        suite(toy, "green"),
    ]
    assert run_all(chosen, build=build) == 1
    assert written(build) == [
        Outcome("check", failed=1),
        Outcome("red", passed=1, failed=4),
        Outcome("dies", failed=1, note="pytest ended with 9"),
        Outcome("torn", failed=2, note="pytest ended with 2"),
        Outcome("hosts", note="not run: made by root: run this as root; apt install rsync"),
        Outcome("none", failed=1, note="pytest ended with 5"),
        Outcome("green", passed=3, skipped=1),
    ]
    said = capfd.readouterr().out.splitlines()
    assert said[-1].startswith("4 passed, 9 failed, 1 skipped in ")
    assert said[-1].endswith("s; not run: hosts")
    table = (build / "suites.md").read_text().splitlines()
    assert said[-2 - len(table) : -2] == table
    assert [cell.strip() for cell in table[3].split("|")[1:5]] == ["red", "1", "4", "0"]
    assert [cell.strip() for cell in table[6].split("|")[1:6]] == ["hosts", "", "", "", ""]


def test_suites_that_all_pass_end_with_zero(toy: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_all([suite(toy, "green")], build=toy / "build") == 0
    assert capfd.readouterr().out.splitlines()[-1].startswith("3 passed, 0 failed, 1 skipped in ")


def test_where_one_is_to_end_it_those_behind_it_are_named(toy: Path) -> None:
    chosen = [suite(toy, "green"), Suite("check", ("python", "-c", "raise SystemExit(1)")), suite(toy, "red")]
    assert run_all(chosen, build=toy / "build", after_failure="stop") == 1
    assert written(toy / "build") == [
        Outcome("green", passed=3, skipped=1),
        Outcome("check", failed=1),
        Outcome("red", note="not run: one before it failed"),
    ]


def test_ctrl_c_ends_it_with_the_table(
    toy: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(chosen: Suite, *, build: Path) -> Outcome:
        if chosen.name == "red":
            raise KeyboardInterrupt
        return Outcome(chosen.name, passed=3)

    monkeypatch.setattr(suites, "run", run)
    assert run_all([suite(toy, name) for name in ("green", "red", "dies")], build=toy / "build") == 130
    assert [outcome.note for outcome in written(toy / "build")] == ["", *["not run: interrupted"] * 2]
    assert (
        capfd.readouterr().out.splitlines()[-1] == "3 passed, 0 failed, 0 skipped in 0s; not run: red, dies"
    )


def test_an_old_report_is_not_taken_for_a_new_one(toy: Path) -> None:
    build = toy / "build"
    run_all([suite(toy, "green")], build=build)
    (toy / "test_green.py").write_text(DIES)
    assert run_all([suite(toy, "green")], build=build) == 1
    assert written(build) == [Outcome("green", failed=1, note="pytest ended with 9")]


def test_no_report_counts_nothing(tmp_path: Path) -> None:
    assert counts(tmp_path / "none.xml") == (0, 0, 0)


def test_what_the_dashboards_need_is_named_as_apt_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        suites.shutil, "which", lambda name: None if name.startswith("chrom") else f"/bin/{name}"
    )
    assert suites.lacks_for_pages() == ["programs are not here: apt install chromium chromium-driver"]
    monkeypatch.setattr(suites.shutil, "which", lambda name: f"/bin/{name}")
    assert suites.lacks_for_pages() == []


def test_who_is_not_root_is_told_what_the_attacks_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suites.os, "geteuid", lambda: 1000)
    assert suites.lacks_for_attacks() == ["other users are played by root: run this as root"]
    monkeypatch.setattr(suites.os, "geteuid", lambda: 0)
    assert suites.lacks_for_attacks() == []


def test_an_unknown_suite_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        suites.main(["quick", "slwo"])
    assert (
        "no suite slwo; there are lint, format, types, layers, quick, end-to-end, slow,"
        in capsys.readouterr().err
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)  # it collects as often as there are suites
def test_each_test_is_in_one_suite() -> None:
    def collected(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:xdist", *words],
            cwd=suites.ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return [line for line in done.stdout.splitlines() if "::" in line]

    of_pytest = [each for each in suites.suites(1).values() if each.counts]
    found = [test for each in of_pytest for test in collected(*each.words[1:])]
    assert sorted(found) == sorted(collected())
