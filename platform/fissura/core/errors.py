"""The exceptions of the project, in one tree.

FissuraError                  exit code 1: a failure
├── Diverged                  a loss or a gradient stopped being a number
├── Interrupted               a stop was asked for; the state is on disk
└── UserError                 exit code 2: the user's mistake; `problems` holds one line a mistake
    ├── SpecError             a configuration breaks a rule
    ├── SpaceError            a search space breaks a rule
    ├── DataError             a data set, an image or a mask breaks a rule
    │   └── DataChanged       its files are no longer what they were when the work began
    ├── ModelError            a model gives values that are no numbers
    ├── WeightsError          pretrained weights cannot be had
    └── ResourceError         the work does not fit the machine or the cluster
"""

from fissura.core.problems import summed_up


class FissuraError(Exception):
    """Base of all that the project raises."""


class Diverged(FissuraError):
    """Training produced a value that is not a number."""


class Interrupted(FissuraError):
    """Training stopped on request, after it saved its state."""


class UserError(FissuraError):
    """A mistake that the reader can mend. Each problem states the rule, the value and the remedy in one
    line; its text has equal ones in one line, with their count."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(summed_up(self.problems))


class SpecError(UserError):
    """A configuration breaks a rule."""


class SpaceError(UserError):
    """A search space breaks a rule."""


class DataError(UserError):
    """A data set, an image or a mask breaks a rule."""


class DataChanged(DataError):
    """The files of a data set are no longer what they were when the work on them began."""


class ModelError(UserError):
    """A model gives values that are no numbers."""


class WeightsError(UserError):
    """Pretrained weights cannot be had."""


class ResourceError(UserError):
    """The work does not fit the machine or the cluster."""


def named(error: BaseException) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {str(error).strip().split(chr(10), 1)[0][:300]}"
