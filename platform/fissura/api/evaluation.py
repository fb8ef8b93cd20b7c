"""The verbs about evaluated runs, as functions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fissura.api.arguments import (
    AnyPath,
    Data,
    Paths,
    Words,
    maybe_path,
    named_in,
    parse_protocols,
    path_of,
    paths_of,
    words_of,
)
from fissura.core.brief import Rows
from fissura.core.errors import DataError
from fissura.core.files import near
from fissura.core.progress import Say, silent
from fissura.data.sample import Split

if TYPE_CHECKING:
    from fissura.reports.task_leaderboard import TaskLeaderboard


def evaluate(
    run: AnyPath,
    *,
    data: Data,
    protocols: Words = (),
    split: Split = "test",
    threshold: float | None = None,
    conditions: Words = (),
    cache: AnyPath | None = None,
    say: Say = silent,
    on_image: Callable[[int, int], None] | None = None,
) -> "Rows[Any]":
    """Scores a run on a split; the rows of these scores.

    A segmentation is scored under `protocols`, by default its recipe's own, with one row for each image and
    protocol. A classifier is scored under `conditions`, by default `clean`, with one row for each.
    """
    from fissura.data.cache import default_cache
    from fissura.studies.task_results import EvaluationTerms
    from fissura.training.checkpoint import RECIPE
    from fissura.training.experiment import task_of_file

    folder = path_of(run).resolve()
    terms = EvaluationTerms(
        data=named_in(data),
        split=split,
        protocols=tuple(parse_protocols(protocols)),
        threshold=threshold,
        conditions=tuple(words_of(conditions)),
        cache=maybe_path(cache) or default_cache(),
        say=say,
        on_image=on_image,
    )
    return task_of_file(folder / RECIPE).results.evaluate(folder, terms)


def leaderboard(paths: Paths, *, say: Say = silent) -> "TaskLeaderboard":
    """The ranking of all evaluated runs below `paths`, of every task; names skipped files through `say`."""
    from fissura.core.tasks import all_tasks
    from fissura.reports.task_leaderboard import Leaderboards

    folders = paths_of(paths)
    missing = [path for path in folders if not path.exists()]
    if missing:
        raise DataError(
            *(
                f"{path}: there is no such folder{near(path) or '; name a study, or a folder of them'}"
                for path in missing
            )
        )
    boards = [task.results.board(folders, say=say) for task in all_tasks()]
    ranked = tuple(board for board in boards if board.tables)
    if not ranked:
        raise DataError(
            f"{', '.join(map(str, folders))}: no evaluated run lies there; run `fissura evaluate` on one, or"
            " search first"
        )
    return Leaderboards(ranked)
