"""fissura: find, train, compare and serve the best crack model for your own images.

The verbs of the command line are functions here: `search`, `train`, `evaluate`, `classify`, `interference`,
`export`, `serve`, `rollout`, `batch`, `score`, `leaderboard`, `plan`, `report`, `dashboard`, `doctor`,
`drill`, `demo`, `verify`, `repair`, and `check`, `prepare` and `prune` of `fissura data`. They are imported
when first used, so that `import fissura` is quick and leaves PyTorch and Ray alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from fissura.api import (
        batch,
        check,
        classify,
        dashboard,
        demo,
        doctor,
        drill,
        evaluate,
        export,
        interference,
        leaderboard,
        plan,
        prepare,
        prune,
        repair,
        report,
        rollout,
        score,
        search,
        serve,
        train,
        verify,
    )

__all__ = [
    "batch",
    "check",
    "classify",
    "dashboard",
    "demo",
    "doctor",
    "drill",
    "evaluate",
    "export",
    "interference",
    "leaderboard",
    "plan",
    "prepare",
    "prune",
    "repair",
    "report",
    "rollout",
    "score",
    "search",
    "serve",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(import_module("fissura.api"), name)
    raise AttributeError(f"module 'fissura' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("fissura")
    except PackageNotFoundError:
        return "unknown: run from its folder, without having been installed"
