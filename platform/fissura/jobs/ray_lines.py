"""Standard error without the lines that Ray's C++ writes there, past Python's logging.

`RAY_BACKEND_LOG_LEVEL` is no way out: it empties Ray's own log files, where the lines belong and stay, and
Ray tells of it in one more such line.
"""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_LINE = re.compile(
    rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z] \d+ \d+\] (\([^)]*\) )?[\w./-]+\.(cc|h|cpp):\d+: "
)
_WAIT_SECONDS = 1.0  # for what has been written to be passed on


@contextmanager
def without_ray_lines() -> Iterator[None]:
    """Inside the block they do not reach the process's standard error; all else does, as it is written.

    Python's own `sys.stderr` goes on writing where it wrote, to a terminal as to one.
    """
    sys.stderr.flush()
    outer, inner = sys.stderr, None
    real = os.dup(2)
    reading, writing = os.pipe()
    ours = os.fstat(writing)
    os.dup2(writing, 2)
    os.close(writing)
    # it closes its own when all is passed on
    passing = threading.Thread(
        target=_pass_on, args=(reading, os.dup(real)), name="standard-error", daemon=True
    )
    passing.start()
    if _is_the_processes(outer):
        # never closed: a handler of Python's logging may keep it for longer than the block
        inner = open(  # noqa: SIM115  of a descriptor
            os.dup(real), "w", buffering=1, encoding=outer.encoding, errors=outer.errors, closefd=False
        )
        sys.stderr = inner
    try:
        yield
    finally:
        if inner is not None:
            inner.flush()
            if sys.stderr is inner:
                sys.stderr = outer
        outer.flush()
        # somebody else, such as a test's capture, may have put another in its place meanwhile
        if os.path.samestat(os.fstat(2), ours):
            os.dup2(real, 2)
        os.close(real)
        # a process that was started inside may hold the other end for longer
        passing.join(_WAIT_SECONDS)


def _is_the_processes(stream: TextIO) -> bool:
    """Whether a stream writes to the process's own standard error, and not to a notebook or a test."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _pass_on(reading: int, real: int) -> None:
    with open(reading, "rb") as lines, open(real, "wb", buffering=0) as out:
        for line in lines:
            if not _LINE.match(line):
                out.write(line)
