"""The verb `demo`: the whole way on drawn cracks, as a function."""

from pathlib import Path
from typing import TYPE_CHECKING

from fissura.api.given import AnyPath, path_of
from fissura.core.progress import Say, silent

if TYPE_CHECKING:
    from fissura.distributed.search.search_result import SearchResult


def demo(directory: AnyPath = Path("demo"), *, trials: int = 8, say: Say = silent) -> "SearchResult":
    """Draws synthetic cracks, searches the recipe `small_unet` on them, ranks and reports, below `directory`.

    What stands there already is not drawn or trained again.
    """
    from fissura.api import search
    from fissura.data.synthetic import SyntheticSpec, write
    from fissura.studies.study import Study

    folder = path_of(directory)
    images = folder / "images"
    write(SyntheticSpec(), images)
    begun = Study((folder / "studies" / "demo").resolve())
    known = begun.plan().trials if begun.exists else 0
    return search(
        "small_unet",
        data=() if begun.exists else (f"synthetic:{images}",),
        storage=folder / "studies",
        name="demo",
        trials=None if begun.exists else trials,
        begin="resume" if begun.exists else "new",
        extend=max(0, trials - known) if begun.exists else 0,
        profile="auto" if begun.exists else "demo",
        cache=folder / "cache",
        say=say,
    )
