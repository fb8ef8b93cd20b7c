"""Whether glibc keeps the freed memory of tensors on a CPU or returns it to the system.

By default it returns blocks of some MiB at once, and each image or step faults the same pages in again: 5 to
25 % of a small network's time on a CPU (docs/benchmarks.md). With another C library nothing is done.
"""

import ctypes
import sys

KEPT_BYTES = 2**28
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # malloc.h
USUAL_BYTES = 2**17


def keep_memory() -> None:
    """From now on this process keeps up to `KEPT_BYTES` of what its main thread frees, and what other threads
    free; it still returns blocks of half as many bytes or more."""
    # with less padding, glibc would return the other threads' heaps of 64 MiB one by one
    _set(trim_threshold=KEPT_BYTES, mmap_threshold=KEPT_BYTES // 2, top_pad=KEPT_BYTES // 4)


def return_memory() -> None:
    """Returns free memory and keeps none from now on, for a process that has run out of memory."""
    _set(trim_threshold=USUAL_BYTES, mmap_threshold=USUAL_BYTES, top_pad=USUAL_BYTES)
    trim_memory()


def trim_memory() -> None:
    """Returns free memory once, for a process whose next work is far smaller."""
    if library := _glibc():
        library.malloc_trim(0)


def _set(*, trim_threshold: int, mmap_threshold: int, top_pad: int) -> None:
    if library := _glibc():
        library.mallopt(TRIM_THRESHOLD, trim_threshold)
        library.mallopt(MMAP_THRESHOLD, mmap_threshold)
        library.mallopt(TOP_PAD, top_pad)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
