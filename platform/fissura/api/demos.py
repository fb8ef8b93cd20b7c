"""The verb `demo`, as a function: the whole workflow on synthetic cracks."""

from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.arguments import AnyPath, path_of
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.distributed.search.search_result import SearchResult


def demo(directory: AnyPath = Path("demo"), *, trials: int = 8, say: Say = silent) -> "SearchResult":
    """Draws synthetic cracks, searches the recipe `small_unet` on them, ranks and reports, below `directory`.

    Does not repeat what is done already.
    """
    from fissura.api import search
    from fissura.data.synthetic import SyntheticSpec, write
    from fissura.studies.study import Study

    folder = path_of(directory)
    images = folder / "images"
    write(SyntheticSpec(), images)
    study = Study((folder / "studies" / "demo").resolve())
    planned = study.plan().trials if study.exists else 0
    return search(
        "small_unet",
        data=() if study.exists else (f"synthetic:{images}",),
        storage=folder / "studies",
        name="demo",
        trials=None if study.exists else trials,
        begin="resume" if study.exists else "new",
        extend=max(0, trials - planned) if study.exists else 0,
        profile="auto" if study.exists else "demo",
        cache=folder / "cache",
        say=say,
    )
