"""Storage that is full, or gone for a while: what is written there waits for it, for a bounded time."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fissura.core.errors import ResourceError

STORAGE_SECONDS = 300.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 10.0
# a full disk or quota; a device, server or network that does not answer; a file handle or folder that is gone
PASSING = {
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOENT, errno.ENODEV, errno.ENXIO,
    errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.ECONNREFUSED, errno.ECONNRESET, errno.EAGAIN, errno.EBUSY,
}  # fmt: skip
OnWait = Callable[[str], None]
Result = TypeVar("Result")


def may_pass(error: BaseException) -> bool:
    """Whether an error can end by itself: somebody frees the disk, or the storage comes back."""
    return isinstance(error, OSError) and error.errno in PASSING


def persist(
    action: Callable[[], Result],
    *,
    what: str,
    passing: Callable[[BaseException], bool] = may_pass,
    on_wait: OnWait,
    seconds: float = STORAGE_SECONDS,
) -> Result:
    """The result of `action`; where it fails for now, it is tried again, after half a second at first and ten
    at last, until `seconds` have passed.

    `on_wait` is told before each wait that `what` waits and why, and "" when it is over; what it raises ends
    the waiting.

    Raises:
        ResourceError: time is up, or it is a failure to write that will not pass.
        Exception: what else `action` raised.
    """
    begin, wait, waited = time.monotonic(), FIRST_WAIT_SECONDS, False
    while True:
        try:
            result = action()
        except Exception as error:
            silent = time.monotonic() - begin
            if not passing(error) and not isinstance(error, OSError):
                raise
            if not passing(error) or silent >= seconds:
                if waited:
                    on_wait("")
                raise ResourceError(
                    f"{what}: cannot be written ({error}){f' within {silent:.0f} s' if waited else ''}; free"
                    " some space there, or mend the storage, then go on: what was written before stands"
                ) from None
            on_wait(f"{what}: {error}; tried again for {seconds - silent:.0f} s more")
            waited = True
            time.sleep(min(wait, max(0.05, seconds - silent)))
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            continue
        if waited:
            on_wait("")
        return result


def persist_in(folder: Path, write: Callable[[], Result], *, on_wait: OnWait) -> Result:
    """The result of `write`, which writes below `folder`: `persist`, and never below the mount point of
    storage that is gone."""

    def attempt() -> Result:
        must_stand(folder)
        return write()

    return persist(attempt, what=str(folder), on_wait=on_wait)


def must_stand(folder: Path) -> None:
    """Sees that `folder` is there, so that nothing is written below the mount point of storage that is gone.

    Raises:
        FileNotFoundError: it is not.
    """
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder is gone; is its storage mounted?", str(folder))
