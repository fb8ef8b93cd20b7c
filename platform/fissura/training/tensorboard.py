"""A training's curves, as TensorBoard reads them: one event file a run, without threads."""

import errno
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from fissura.core.files import replacing

FILE = "tensorboard/events.out.tfevents.0.fissura"
NO_CURVES = ("epoch", "parameters", "seconds")


def begin_curves(run: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Rewrites the curves of the epochs so far, which repairs a file that a killed process left torn."""
    from tensorboard.compat.proto.event_pb2 import Event

    with replacing(run / FILE) as scratch, scratch.open("wb") as file:
        _write(file, Event(file_version="brain.Event:2"))
        for record in history:
            _write(file, _event(record))


def add_epoch(run: Path, record: Mapping[str, Any]) -> None:
    """Adds the numbers of one epoch to the curves that `begin_curves` began."""
    encoded = BytesIO()
    _write(encoded, _event(record))
    with (run / FILE).open("ab", buffering=0) as file:
        end = file.tell()
        try:
            if file.write(encoded.getvalue()) < len(encoded.getvalue()):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run / FILE))
        except OSError:
            # half an event would hide those after it
            file.truncate(end)
            raise


def _event(record: Mapping[str, Any]) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [
        Summary.Value(tag=name, simple_value=value)
        for name, value in record.items()
        if isinstance(value, int | float) and name not in NO_CURVES
    ]
    return Event(wall_time=record["seconds"], step=record["epoch"], summary=Summary(value=values))


def _write(file: BinaryIO | BytesIO, event: Any) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(event.SerializeToString())
