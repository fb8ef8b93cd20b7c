"""Keeps results that depend only on files' hashes in the cache folder, so that they are computed once."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fissura.core.files import write_text

MEMO_BYTES = 1 << 28


def recall(path: Path | None, *, whole: Callable[[Any], bool]) -> Any | None:
    """What `remember` wrote to `path`; None if it is missing, torn, or not `whole`."""
    # it only saves time: no fault of it is an error
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path is not None and path.stat().st_size <= MEMO_BYTES:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            return loaded if whole(loaded) else None
    return None


def remember(path: Path | None, plain: Any) -> None:
    """Writes `plain` (JSON types) to `path`, if it can."""
    if path is not None:
        with contextlib.suppress(OSError):
            write_text(path, json.dumps(plain, separators=(",", ":")))
