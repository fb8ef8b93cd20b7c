"""Runs the suites one after the other, whatever becomes of each, and ends with a table of what they came to.

    python tests/suites.py                  # the checks and every suite: `make test-all`
    python tests/suites.py quick cluster    # these alone

The table is also written to build/suites/ as suites.md and suites.json, beside each suite's own report.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from cluster.hosts import missing as lacks_for_hosts

ROOT = Path(__file__).parents[1]
INTEGRATION = "tests/integration"
DEBIAN = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "chromium": "chromium",
    "chromedriver": "chromium-driver",
}


def nothing() -> list[str]:
    """What a suite lacks that runs everywhere."""
    return []


def lacks_for_pages() -> list[str]:
    """What this machine lacks to draw dashboards and pages, a sentence each."""
    absent = sorted({package for program, package in DEBIAN.items() if shutil.which(program) is None})
    return [f"programs are not here: apt install {' '.join(absent)}"] if absent else []


def lacks_for_mounts() -> list[str]:
    """What this process lacks to mount file systems, a sentence each."""
    return [] if os.geteuid() == 0 else ["file systems are mounted by root: run this as root"]


def lacks_for_attacks() -> list[str]:
    """What this process lacks to attack as other users and with storage of its own, a sentence each."""
    return [] if os.geteuid() == 0 else ["other users are played by root: run this as root"]


@dataclass(frozen=True)
class Suite:
    """Tests that run together: a program of the environment with its words, and what this machine lacks."""

    name: str
    words: tuple[str, ...]
    lacks: Callable[[], list[str]] = nothing

    @property
    def counts(self) -> bool:
        """Whether it is pytest, which counts its tests; a check passes or fails as one."""
        return self.words[0] == "pytest"


def suites(jobs: int) -> dict[str, Suite]:
    """The checks and all suites, in their order; each test is in one of them."""
    parallel = ("-n", str(jobs), "--dist", "loadfile", "--no-loadscope-reorder") if jobs > 1 else ()
    faults = (
        f"{INTEGRATION}/test_drill.py",
        f"{INTEGRATION}/test_trial_faults.py",
        f"{INTEGRATION}/test_given_up.py",
    )
    fuzz = f"{INTEGRATION}/test_serving_fuzz.py"
    elsewhere = [f"--ignore={path}" for path in (*faults, fuzz)]
    quick = "not slow and not end_to_end and not cluster and not pages and not attacks"
    durations = ("--tb=short", "--durations=0", "--durations-min=10")
    listed = (
        Suite("lint", ("ruff", "check", ".")),
        Suite("format", ("ruff", "format", "--check", ".")),
        Suite("types", ("mypy",)),
        Suite("layers", ("lint-imports",)),
        Suite("quick", ("pytest", *parallel, "--durations=10", "-m", quick)),
        Suite("end-to-end", ("pytest", *parallel, *durations, "-m", "end_to_end and not slow", INTEGRATION)),
        Suite("slow", ("pytest", *elsewhere, "-m", "slow and not pages and not attacks")),
        Suite("faults", ("pytest", "-s", "-m", "not root", *faults)),
        Suite("storage", ("pytest", "-s", "-m", "root", *faults), lacks_for_mounts),
        Suite("cluster", ("pytest", "-m", "cluster", *durations, "tests/cluster"), lacks_for_hosts),
        Suite("fuzz", ("pytest", "-m", "slow", fuzz)),
        Suite("attacks", ("pytest", "-m", "attacks", *durations, "tests/attacks"), lacks_for_attacks),
        Suite("dashboards", ("pytest", "-m", "pages"), lacks_for_pages),
    )
    return {suite.name: suite for suite in listed}


@dataclass(frozen=True)
class Outcome:
    """What a suite came to. `note` says why it was not run, or ended before its report."""

    suite: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    note: str = ""


def run(suite: Suite, *, build: Path) -> Outcome:
    """Runs a suite, whose output goes on to this process's own."""
    if lacks := suite.lacks():
        return Outcome(suite.name, note=f"not run: {'; '.join(lacks)}")
    report = build / f"{suite.name}.xml"
    report.unlink(missing_ok=True)
    program, *words = suite.words
    command = [str(Path(sys.executable).with_name(program)), *words]
    if suite.counts:
        command = [sys.executable, "-m", program, "-q", f"--junitxml={report}", *words]
    begin = time.monotonic()
    # with it, hundreds of processes would each compile the package anew
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # which the tests were sent too: they end what they started
            process.wait()
            raise
    seconds = time.monotonic() - begin
    if not suite.counts:
        return Outcome(suite.name, passed=int(code == 0), failed=int(code != 0), seconds=seconds)
    passed, failed, skipped = counts(report)
    # pytest's own codes of a run that went to its end: all passed, and some failed
    broken = code not in (0, 1) or (code == 1 and not failed)
    note = f"pytest ended with {code}" if broken else ""
    return Outcome(suite.name, passed, failed + broken, skipped, seconds, note)


def counts(report: Path) -> tuple[int, int, int]:
    """The tests that passed, failed and were skipped, by pytest's JUnit report; zeros where it wrote none.

    A test that fails itself and again when its fixtures end is one that failed.
    """
    if not report.exists():
        return 0, 0, 0
    worst: dict[tuple[str | None, str | None], int] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314  pytest wrote it just now
        found = {part.tag for part in case}
        level = 2 if found & {"failure", "error"} else 1 if "skipped" in found else 0
        name = case.get("classname"), case.get("name")
        worst[name] = max(level, worst.get(name, 0))
    passed, skipped, failed = (list(worst.values()).count(level) for level in range(3))
    return passed, failed, skipped


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table of Markdown."""
    rows: list[tuple[str, ...]] = [
        ("suite", "passed", "failed", "skipped", "seconds", ""),
        ("---", "--:", "--:", "--:", "--:", "---"),
    ]
    for outcome in outcomes:
        ran = not outcome.note.startswith("not run")
        numbers = (outcome.passed, outcome.failed, outcome.skipped, f"{outcome.seconds:.0f}")
        rows.append((outcome.suite, *(str(number) if ran else "" for number in numbers), outcome.note))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        f"| {' | '.join(text.ljust(width) for text, width in zip(row, widths, strict=True))} |"
        for row in rows
    )


def closing(outcomes: Sequence[Outcome]) -> str:
    """All of them in one line, as pytest ends with."""
    passed, failed, skipped, seconds = (
        sum(numbers)
        for numbers in zip(*((o.passed, o.failed, o.skipped, o.seconds) for o in outcomes), strict=True)
    )
    absent = [outcome.suite for outcome in outcomes if outcome.note.startswith("not run")]
    also = f"; not run: {', '.join(absent)}" if absent else ""
    return f"{passed} passed, {failed} failed, {skipped} skipped in {seconds:.0f}s{also}"


def run_all(
    chosen: Sequence[Suite], *, build: Path, after_failure: Literal["go on", "stop"] = "go on"
) -> int:
    """Runs the suites and writes the table; 1 where any failed, 130 where Ctrl-C ended them."""
    build.mkdir(parents=True, exist_ok=True)
    outcomes, code, why = list[Outcome](), 0, "one before it failed"
    try:
        for suite in chosen:
            if after_failure == "stop" and any(outcome.failed for outcome in outcomes):
                break
            print(f"== {suite.name} ==", flush=True)  # noqa: T201
            outcomes.append(run(suite, build=build))
    except KeyboardInterrupt:
        code, why = 130, "interrupted"
    outcomes += [Outcome(suite.name, note=f"not run: {why}") for suite in chosen[len(outcomes) :]]
    shown = table(outcomes)
    (build / "suites.md").write_text(f"{shown}\n")
    (build / "suites.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    print(f"\n{shown}\n\n{closing(outcomes)}", flush=True)  # noqa: T201
    return code or int(any(outcome.failed for outcome in outcomes))


def main(words: Sequence[str] | None = None) -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Runs suites of tests and ends with a table of them.")
    known = suites(1)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(known)}; by default all")
    parser.add_argument("--stop", action="store_true", help="end with the first suite that fails")
    parser.add_argument("--jobs", type=int, default=2, help="files of the quick suite at a time (default 2)")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "suites", help="where reports go")
    asked = parser.parse_args(words)
    if unknown := [name for name in asked.suites if name not in known]:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(known)}")
    every = suites(asked.jobs)
    chosen = [every[name] for name in asked.suites or every]
    return run_all(chosen, build=asked.build, after_failure="stop" if asked.stop else "go on")


if __name__ == "__main__":
    sys.exit(main())
