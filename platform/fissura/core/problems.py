"""Many problems in few lines."""

import re
from collections import defaultdict
from collections.abc import Iterable

from fissura.core.text import count

ALIKE = 3  # equal problems that are still a line each
EXAMPLES = 3
MOST_SHOWN = 5  # lines, where there is room for a few
_PARTICULARS = re.compile(r"[^\s`]*[/\\][^\s`]*|[^\s`]+\.\w{2,4}\b|\d+(?:\.\d+)?%?")


def summed_up(problems: Iterable[str]) -> list[str]:
    """The problems with those of one kind in one line, where they are more than `ALIKE`: the first, how many
    they are, some of the others' names. Of one kind are lines `NAME: TEXT` whose texts differ in numbers and
    file names alone.
    """
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for problem in problems:
        _, colon, text = problem.partition(": ")
        kinds[re.sub(r"#(?:, #)+", "#", _PARTICULARS.sub("#", text)) if colon else problem].append(problem)
    lines = []
    for alike in kinds.values():
        if len(alike) <= ALIKE:
            lines += alike
            continue
        names = _told_apart([problem.partition(": ")[0] for problem in alike])[1:]
        more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
        lines.append(f"{alike[0]} ({len(alike)} alike: {', '.join(names[:EXAMPLES])}{more})")
    return lines


def first(problems: Iterable[str], *, noun: str) -> list[str]:
    """The first lines of `summed_up`, each said to be a `noun`, and how many more there are: "problem: ...",
    "and 4 more problems"."""
    lines = summed_up(problems)
    more = len(lines) - MOST_SHOWN
    shown = [f"{noun}: {line}" for line in lines[:MOST_SHOWN]]
    return [*shown, *([f"and {count(more, f'more {noun}')}"] if more > 0 else [])]


def _told_apart(paths: list[str]) -> list[str]:
    """The paths' shortest ends that differ: their names, or as many of their folders more as it takes."""
    parts = [re.split(r"[/\\]", path) for path in paths]
    for depth in range(1, max(map(len, parts))):
        ends = ["/".join(path[-depth:]) for path in parts]
        if len({*ends}) == len({*paths}):
            return ends
    return paths
