"""What Ray prints by itself goes to a log, and the process's output is the program's own.

Its C++ writes to standard error, past Python's logging; what the cluster tells of workers that died, a thread
of the driver prints to standard output. `RAY_BACKEND_LOG_LEVEL` is no way out of the former: it empties Ray's
own log files, where the lines belong and stay, and Ray tells of it in one more such line. For the latter
there is no setting.
"""

import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

_LINE = re.compile(
    rb"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z] \d+ \d+\] (\([^)]*\) )?[\w./-]+\.(cc|h|cpp):\d+: "
)
_WAIT_SECONDS = 1.0  # for what has been written to be passed on


Log = Callable[[str], None]


@contextmanager
def without_ray_lines(log: Log) -> Iterator[None]:
    """Inside the block, which Ray is started in, its lines go to `log`; all else goes where it is written.

    Python's own `sys.stderr` goes on writing where it wrote, to a terminal as to one.
    """
    with ExitStack() as ending:
        ending.enter_context(_told_errors(log))
        ending.enter_context(_standard_error(log))
        yield


@contextmanager
def _told_errors(log: Log) -> Iterator[None]:
    """Stands in for the function by which the driver's listener prints what the cluster tells of."""
    from ray._private import worker

    printing = worker.print_to_stdstream

    def told(data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: FBT001  Ray's signature
        for text in data["lines"]:
            _tell(log, f"({data['pid']}) {text}")

    worker.print_to_stdstream = told
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


def _tell(log: Log, text: str) -> None:
    log(f"Ray: {' '.join(text.split())}")


@contextmanager
def _standard_error(log: Log) -> Iterator[None]:
    sys.stderr.flush()
    outer, inner = sys.stderr, None
    real = os.dup(2)
    reading, writing = os.pipe()
    ours = os.fstat(writing)
    os.dup2(writing, 2)
    os.close(writing)
    # it closes its own when all is passed on
    passing = threading.Thread(
        target=_pass_on, args=(reading, os.dup(real), log), name="standard-error", daemon=True
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


def _pass_on(reading: int, real: int, log: Log) -> None:
    with open(reading, "rb") as lines, open(real, "wb", buffering=0) as out:
        for line in lines:
            if _LINE.match(line):
                _tell(log, line.decode(errors="replace"))
            else:
                out.write(line)
