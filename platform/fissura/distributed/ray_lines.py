"""Redirects Ray's own output to a log, so that the process's output is the program's own.

Ray's C++ writes to standard error, past Python's logging, and so do the handlers that Ray's Python gives its
own loggers; a thread of the driver prints the cluster's reports of dead workers to standard output.
`RAY_BACKEND_LOG_LEVEL` does not help: it empties Ray's own log files,
where the lines belong, and prints one more such line. The reports have no setting.
"""

import logging
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
_WAIT_SECONDS = 1.0  # until the last lines are forwarded


Log = Callable[[str], None]


@contextmanager
def without_ray_lines(log: Log) -> Iterator[None]:
    """Inside the block, in which Ray is started, Ray's lines go to `log`; all other output stays as it is.

    Python's `sys.stderr` keeps its target; a terminal stays a terminal.
    """
    with ExitStack() as ending:
        ending.enter_context(_cluster_reports(log))
        ending.enter_context(_python_lines(log))
        ending.enter_context(_standard_error(log))
        yield


@contextmanager
def _cluster_reports(log: Log) -> Iterator[None]:
    """Replaces the function by which the driver's listener prints the cluster's reports."""
    from ray._private import worker

    printing = worker.print_to_stdstream

    def log_report(data: Mapping[str, Any], ignore_prefix: bool) -> None:  # noqa: FBT001  Ray's signature
        for text in data["lines"]:
            _log_line(log, f"({data['pid']}) {text}")

    worker.print_to_stdstream = log_report
    try:
        yield
    finally:
        worker.print_to_stdstream = printing


@contextmanager
def _python_lines(log: Log) -> Iterator[None]:
    """Replaces the method by which the handlers of Ray's loggers print, also of those made in the block."""
    from ray._private.log import PlainRayHandler

    printing = PlainRayHandler.emit

    def log_record(handler: logging.Handler, record: logging.LogRecord) -> None:
        _log_line(log, handler.format(record))

    PlainRayHandler.emit = log_record
    try:
        yield
    finally:
        PlainRayHandler.emit = printing


def _log_line(log: Log, text: str) -> None:
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
    # the thread closes its descriptors when all is forwarded
    forwarding = threading.Thread(
        target=_forward, args=(reading, os.dup(real), log), name="standard-error", daemon=True
    )
    forwarding.start()
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
        # other code, such as a test's capture, may have replaced it meanwhile
        if os.path.samestat(os.fstat(2), ours):
            os.dup2(real, 2)
        os.close(real)
        # a process that was started inside may hold the other end for longer
        forwarding.join(_WAIT_SECONDS)


def _is_the_processes(stream: TextIO) -> bool:
    """Whether a stream writes to the process's own standard error, and not to a notebook or a test."""
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _forward(reading: int, real: int, log: Log) -> None:
    with open(reading, "rb") as lines, open(real, "wb", buffering=0) as out:
        for line in lines:
            if _LINE.match(line):
                _log_line(log, line.decode(errors="replace"))
            else:
                out.write(line)
