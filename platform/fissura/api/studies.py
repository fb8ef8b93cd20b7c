"""The verbs about a study that is there: its report, its repair, whether its files are as written."""

from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.given import AnyPath, path_of
from fissura.core.files import check_writable
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.studies.repair import Repaired
    from fissura.studies.verification import Verified


def verify(path: AnyPath) -> "Verified":
    """Whether the run or the study at `path` is what was written: its `faults` name each file that is not."""
    from fissura.studies.verification import verify as verify_files

    return verify_files(path_of(path))


def repair(study: AnyPath, *, say: Say = silent) -> "Repaired":
    """Writes plan, space and database of a study anew from the folders of its runs, where they are lost or
    damaged; what is damaged is kept aside. `say` is told of what cannot be taken over."""
    from fissura.studies.repair import repair as repair_study
    from fissura.studies.study import find_study

    return repair_study(find_study(path_of(study)), say=say)


def report(study: AnyPath, *, say: Say = silent) -> Path:
    """Writes the report of a study as one HTML file, and gives its path."""
    from fissura.studies.results import REPORT, write_results
    from fissura.studies.study import find_study

    found = find_study(path_of(study))
    check_writable(found.path)
    write_results(found, found.load(), say=say)
    return found.path / REPORT
