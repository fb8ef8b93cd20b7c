"""Remembering in the cache folder what follows from files' hashes alone, so that it is worked out once."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fissura.core.files import write_text
from fissura.data.content import MEMO_BYTES


def recall(path: Path | None, *, whole: Callable[[Any], bool]) -> Any | None:
    """What `remember` wrote to `path`, or None: there is nothing, or it is torn or `whole` says no."""
    # Its only use is to save time, so whatever is wrong with it is no error.
    with contextlib.suppress(OSError, ValueError, RecursionError):
        if path is not None and path.stat().st_size <= MEMO_BYTES:
            loaded = json.loads(path.read_text(encoding="utf-8"))
            return loaded if whole(loaded) else None
    return None


def remember(path: Path | None, plain: Any) -> None:
    """Writes `plain` (JSON types) to `path`; where that cannot be, nothing is remembered."""
    if path is not None:
        with contextlib.suppress(OSError):
            write_text(path, json.dumps(plain, separators=(",", ":")))
