"""The verbs about files: whether they are what was written, and how a study is made whole again."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fissura.api.given import AnyPath, path_of

if TYPE_CHECKING:
    from fissura.studies.repair import Repaired
    from fissura.studies.verification import Verified


def verify(path: AnyPath) -> "Verified":
    """Whether the run or the study at `path` is what was written: its `faults` name each file that is not."""
    from fissura.studies.verification import verify as verify_files

    return verify_files(path_of(path))


def repair(study: AnyPath, *, say: Callable[[str], None] = lambda _: None) -> "Repaired":
    """Writes plan, space and database of a study anew from the folders of its runs, where they are lost or
    damaged; what is damaged is kept aside. `say` is told of what cannot be taken over."""
    from fissura.studies.repair import repair as repair_study
    from fissura.studies.study import find_study

    return repair_study(find_study(path_of(study)), say=say)
