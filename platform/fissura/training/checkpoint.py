"""Weights and training state on disk: safetensors and JSON, each file whole or absent, never a pickle."""

import errno
import json
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from fissura.core.documents import parse_json, read_json
from fissura.core.errors import DataError, named
from fissura.core.files import replacing

RECIPE, METRICS = "recipe.json", "metrics.json"
WEIGHTS, STATE = "weights.safetensors", "state.safetensors"
OBJECTIVE = "objective."


@dataclass(frozen=True)
class Progress:
    """How far a training is: `epoch` epochs are done, `phase_epoch` of them in phase `phase`; in the current
    epoch `batch` steps are done, whose losses sum to `loss_sum` and whose pixels, as `TrainingDice` counts
    them, to `agreed` and `marked`. `best_epoch` is the kept model's (0: none yet). `best_loss` is the lowest
    validation loss of this phase; `stale` epochs have passed since."""

    phase: int = 0
    phase_epoch: int = 0
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    agreed: int = 0
    marked: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    stale: int = 0
    seconds: float = 0.0
    finished: str = ""

    def after_epoch(self, *, loss: float, best: bool, seconds: float) -> "Progress":
        """The progress after one more epoch with validation loss `loss`, in a training that has taken
        `seconds`. `best`: its model is the one to keep."""
        lower = loss < self.best_loss
        return replace(
            self,
            epoch=self.epoch + 1,
            phase_epoch=self.phase_epoch + 1,
            batch=0,
            loss_sum=0.0,
            agreed=0,
            marked=0,
            seconds=seconds,
            best_epoch=self.epoch + 1 if best else self.best_epoch,
            best_loss=loss if lower else self.best_loss,
            stale=0 if lower else self.stale + 1,
        )


def save_weights(model: nn.Module, path: Path) -> None:
    """Writes the model's weights and buffers.

    Raises:
        OSError: the file cannot be written; the previous one is kept.
    """
    _save(contiguous(model.state_dict()), path)


def load_weights(model: nn.Module, path: Path) -> None:
    """Reads weights that `save_weights` wrote into the same architecture.

    Raises:
        DataError: the file is missing or torn, of another architecture, or holds values that are not finite.
    """
    tensors, _ = _read(path)
    broken = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    if broken:
        raise DataError(
            f"{path}: holds values that are not numbers (in {len(broken)} of {len(tensors)} tensors, such as"
            f" {broken[0]}); restore it from a copy, or train the run again"
        )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: the weights are not of this recipe's model ({reason}); train the run again"
        ) from None


@dataclass(frozen=True)
class TrainingState:
    """Everything that an exact resume needs, except the random generators, and the file that keeps it."""

    path: Path
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler | None
    scaler: torch.amp.GradScaler

    def save(self, progress: Progress, history: list[dict[str, Any]]) -> None:
        """Writes the state, with the random generators.

        Raises:
            OSError: the file cannot be written; the previous one is kept.
        """
        weights = contiguous(self.objective.state_dict())
        tensors = {f"{OBJECTIVE}{name}": tensor for name, tensor in weights.items()}
        moments = self.optimizer.state_dict()
        for index, state in moments["state"].items():
            tensors |= {
                f"optimizer.{index}.{key}": value.contiguous()
                for key, value in state.items()
                if value is not None
            }
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        plain = {
            "progress": asdict(progress),
            "history": history,
            "optimizer": moments["param_groups"],
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        _save(tensors, self.path, metadata={"state": json.dumps(plain)})

    def load(self) -> None:
        """Restores what `save` wrote, including the random generators."""
        tensors, plain = _read(self.path)
        self.objective.load_state_dict(_with_prefix(tensors, OBJECTIVE))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _with_prefix(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": moments, "param_groups": plain["optimizer"]})
        if self.schedule is not None:
            self.schedule.load_state_dict(plain["schedule"])
        self.scaler.load_state_dict(plain["scaler"])
        # PyTorch would warn that the schedule steps first: it does not know of another process's steps
        self.optimizer._opt_called = True  # type: ignore[attr-defined]
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(tensors["random.cuda"])


def resumed_progress(path: Path) -> tuple[Progress, list[dict[str, Any]]]:
    """The progress and the history of the training that wrote the state at `path`; empty where the file is
    missing, or torn: then it is removed, which costs its epochs, not the training."""
    if not path.is_file():
        return Progress(), []
    try:
        return read_progress(path)
    except DataError:
        path.unlink(missing_ok=True)
        return Progress(), []


def read_progress(path: Path) -> tuple[Progress, list[dict[str, Any]]]:
    """The progress of the training that wrote `path`, and its history of epochs.

    Raises:
        DataError: the file is missing, torn, or no training state.
    """
    return _progress(_read(path)[1], path, remedy="remove it, then train again")


def read_metrics(run: Path) -> tuple[Progress, list[dict[str, Any]]]:
    """The progress of the finished training of `run`, and its history of epochs.

    Raises:
        UserError: its metrics are missing or damaged.
    """
    path, remedy = run / METRICS, "restore it from a copy, or remove the run's folder and train it again"
    return _progress(read_json(path, remedy=remedy), path, remedy=remedy)


def _progress(plain: dict[str, Any], path: Path, *, remedy: str) -> tuple[Progress, list[dict[str, Any]]]:
    try:
        progress, history = Progress(**plain["progress"]), list(plain["history"])
        if progress.best_epoch and not isinstance(history[progress.best_epoch - 1], dict):
            raise TypeError("an epoch is no object")
        return progress, history
    except (KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path}: holds no state of a training ({named(error)}); {remedy}") from None


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors as safetensors needs them: contiguous, each with its own memory."""
    return {
        name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _save(tensors: dict[str, Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    with replacing(path) as scratch:
        try:
            save_file(tensors, scratch, metadata=metadata)
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return {name: file.get_tensor(name) for name in list(file.keys())}, parse_json(
                metadata.get("state", "{}")
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{path}: not readable as safetensors ({error}); train the run again") from None
