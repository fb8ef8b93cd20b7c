"""platform/locked.txt: every package by version and hash, as in constraints.txt; and their licences."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "platform" / "locked.txt").read_text()
LOCKED = [
    (Requirement(entry.partition("--hash")[0].strip()), re.findall(r"--hash=(\S+)", entry))
    for entry in LOCK.replace("\\\n", " ").splitlines()
    if not entry.startswith("#")
]
PINNED = {
    canonicalize_name(line.partition("==")[0]): line.partition("==")[2]
    for line in (ROOT / "platform" / "constraints.txt").read_text().splitlines()
    if not line.startswith("#")
}


def test_every_package_has_a_version_and_hashes() -> None:
    assert len(LOCKED) >= len(PINNED)
    for requirement, hashes in LOCKED:
        assert re.fullmatch(r"==[\w.!]+", str(requirement.specifier))
        assert hashes
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", digest) for digest in hashes)


def test_the_versions_are_those_of_the_constraints() -> None:
    locked = {canonicalize_name(one.name): str(one.specifier)[2:] for one, _ in LOCKED}
    assert {name: locked[name] for name in PINNED} == PINNED
    others = [one for one, _ in LOCKED if canonicalize_name(one.name) not in PINNED]
    assert all("linux" not in str(one.marker) and one.marker is not None for one in others)


def test_an_environment_by_the_lock_takes_nothing_without_its_hash() -> None:
    """pip looks at the hash of each package, and fetches none of them while it builds fissura."""
    done = subprocess.run(
        ["make", "-n", "env", "LOCKED=1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    by_lock = done.stdout.partition('if [ "$LOCKED" ]; then\n')[2].partition("else")[0].split("\n")
    assert [line.strip() for line in by_lock if line.strip()] == [
        "install --require-hashes -r platform/locked.txt",
        "install --no-deps --no-build-isolation -e .",
    ]
    assert "cat pyproject.toml platform/constraints.txt platform/locked.txt" in done.stdout
    [build] = re.findall(r'^requires = \["(.+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    needed = Requirement(build)
    assert any(one.name == needed.name and str(one.specifier)[2:] in needed.specifier for one, _ in LOCKED)


@pytest.mark.parametrize("lost", ["", " ray,"])
def test_the_licence_of_every_package_is_told(lost: str, tmp_path: Path) -> None:
    for folder in ("docs", "platform"):
        (tmp_path / folder).mkdir()
    for file in ("docs/licences.py", "docs/licences.md", "platform/locked.txt"):
        shutil.copy(ROOT / file, tmp_path / file)
    page = tmp_path / "docs" / "licences.md"
    page.write_text(page.read_text().replace(lost, ""))
    done = subprocess.run(
        [sys.executable, "docs/licences.py", "--check"], cwd=tmp_path, capture_output=True, text=True
    )
    told = "docs/licences.md: ray: not as in platform/locked.txt; run `make licences`\n"
    assert (done.returncode, done.stderr) == ((1, told) if lost else (0, ""))
