"""The verbs for an existing study, as functions: verify, repair and report."""

from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.arguments import AnyPath, path_of
from fissura.core.files import check_writable
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.studies.repair import Repaired
    from fissura.studies.verification import Verified


def verify(path: AnyPath) -> "Verified":
    """Checks the files of the run or study at `path`; `faults` names each file that differs from what was
    written."""
    from fissura.studies.verification import verify as verify_files

    return verify_files(path_of(path))


def repair(study: AnyPath, *, say: Say = silent) -> "Repaired":
    """Rebuilds a study's lost or damaged plan, space and database from the folders of its runs; keeps damaged
    files aside. Reports through `say` what cannot be recovered."""
    from fissura.studies.repair import repair as repair_study
    from fissura.studies.study import find_study

    return repair_study(find_study(path_of(study)), say=say)


def report(study: AnyPath, *, say: Say = silent) -> Path:
    """Writes the report of a study as one HTML file and returns its path."""
    from fissura.studies.results import REPORT, write_results
    from fissura.studies.study import find_study

    opened = find_study(path_of(study))
    check_writable(opened.path)
    write_results(opened, opened.load(), say=say)
    return opened.path / REPORT
