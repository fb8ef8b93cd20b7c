"""The interface between a training and where it runs."""

import logging
import os
from typing import Protocol

import torch
from torch import nn

from fissura.training.allocator import keep_memory


class Runtime(Protocol):
    """One worker's view of where it runs: all that a training sees of Ray, DDP or a notebook."""

    device: torch.device
    cpus: int
    rank: int
    world_size: int

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model on the device, wrapped for data-parallel training where there are several workers."""
        ...

    def share(self, values: list[float]) -> list[float]:
        """Rank 0's values, on every rank."""
        ...

    def mean(self, value: float) -> float:
        """The mean of the ranks' values, on every rank."""
        ...

    def should_stop(self) -> bool:
        """Whether training must save its state and end now; the same answer on every rank."""
        ...

    def waiting(self, reason: str) -> None:
        """Reports that this worker waits for its storage, and why; "": it no longer waits. May raise to end
        the wait."""
        ...


class LocalRuntime:
    """One worker in this process, on the GPU if there is one."""

    rank = 0
    world_size = 1

    def __init__(self, *, device: str = "auto", cpus: int | None = None) -> None:
        self.device = pick_device(device)
        self.cpus = cpus or usable_cpus()
        set_threads(self.cpus)
        keep_memory()

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model on the device."""
        return model.to(self.device)

    def share(self, values: list[float]) -> list[float]:
        """The values themselves."""
        return values

    def mean(self, value: float) -> float:
        """The value itself."""
        return value

    def should_stop(self) -> bool:
        """Never."""
        return False

    def waiting(self, reason: str) -> None:
        """Logs the reason as a warning."""
        if reason:
            logging.getLogger(__name__).warning(reason)


def pick_device(name: str) -> torch.device:
    """The named device; "auto" is the first GPU, or else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_threads(cpus: int) -> None:
    """Lets PyTorch use `cpus` threads, whatever OMP_NUM_THREADS says, and OpenCV one in each loader
    thread."""
    import cv2

    torch.set_num_threads(cpus)
    cv2.setNumThreads(1)
