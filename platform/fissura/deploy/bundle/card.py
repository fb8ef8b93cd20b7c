"""The bundle's own description, `card.json`, and its networks under onnxruntime."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

FOLDER = Path(__file__).resolve().parent
FORMAT = 1


class BundleError(Exception):
    """The bundle is not whole."""


class Network:
    """An ONNX network of one input and one output."""

    def __init__(self, path: Path, *, threads: int) -> None:
        """`threads` 0 means one a core."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise BundleError(f"{path.name}: onnxruntime cannot load it ({_line(error)})") from None
        self._input = self._session.get_inputs()[0].name

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """What the network makes of images, uint8 [b h w 3]."""
        outcome: np.ndarray = self._session.run(None, {self._input: images})[0]
        return outcome


def read_card(task: str, *, needs: list[str]) -> dict[str, Any]:
    """The card of this bundle; the files that are needed are whole.

    Raises:
        BundleError: the card is not there or of another kind, or a file is not the one that it describes.
    """
    path = FOLDER / "card.json"
    try:
        card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = card["files"]
        if (card["format"], card["task"]) != (FORMAT, task):
            raise BundleError(f"{path}: not a card of format {FORMAT} for {task}; export the run again")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"{path}: no readable card ({_line(error)}); export the run again") from None
    for name in needs:
        if name not in files:
            known = ", ".join(known for known in files if known.endswith(".onnx"))
            raise BundleError(f"{name}: not in this bundle; its networks are {known}")
        try:
            with (FOLDER / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"{FOLDER / name}: {error.strerror or error}; copy the whole bundle") from None
        if found != files[name]["sha256"]:
            raise BundleError(f"{FOLDER / name}: not the file of the card (SHA-256 differs); copy it again")
    return card


def require_numbers(values: np.ndarray, *, card: dict[str, Any]) -> None:
    """Looks whether what a network gives are numbers.

    Raises:
        BundleError: they are not.
    """
    if not np.isfinite(values).all():
        raise BundleError(
            f"{FOLDER}: the network of run {card.get('run', 'unknown')} gives values that are not numbers;"
            " copy the bundle again, or export another run"
        )


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
