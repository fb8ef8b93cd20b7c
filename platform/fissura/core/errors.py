"""The exceptions of the project, in one tree.

FissuraError                  exit code 1: a failure
├── Diverged                  a loss or a gradient stopped being a number
├── Interrupted               a stop was asked for; the state is on disk
└── UserError                 exit code 2: the user's mistake; `problems` holds one line a mistake
    ├── SpecError             a configuration breaks a rule
    ├── SpaceError            a search space breaks a rule
    ├── DataError             a data set, an image or a mask breaks a rule
    ├── WeightsError          pretrained weights cannot be had
    └── ResourceError         the work does not fit the machine or the cluster
"""

import re
from collections import defaultdict
from collections.abc import Iterable

ALIKE = 3  # equal problems that are still a line each
EXAMPLES = 3
_PARTICULARS = re.compile(r"[^\s`]*[/\\][^\s`]*|[^\s`]+\.\w{2,4}\b|\d+(?:\.\d+)?%?")


class FissuraError(Exception):
    """Base of all that the project raises."""


class Diverged(FissuraError):
    """Training produced a value that is not a number."""


class Interrupted(FissuraError):
    """Training stopped on request, after it saved its state."""


class UserError(FissuraError):
    """A mistake that the reader can mend. Each problem states the rule, the value and the remedy in one
    line."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class SpecError(UserError):
    """A configuration breaks a rule."""


class SpaceError(UserError):
    """A search space breaks a rule."""


class DataError(UserError):
    """A data set, an image or a mask breaks a rule."""


class WeightsError(UserError):
    """Pretrained weights cannot be had."""


class ResourceError(UserError):
    """The work does not fit the machine or the cluster."""


def named(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0][:300]}"


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
        names = [re.split(r"[/\\]", problem.partition(": ")[0])[-1] for problem in alike[1:]]
        more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
        lines.append(f"{alike[0]} ({len(alike)} alike: {', '.join(names[:EXAMPLES])}{more})")
    return lines
