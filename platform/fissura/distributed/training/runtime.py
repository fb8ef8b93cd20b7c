"""A worker of Ray Train as the `Runtime` of a training."""

import logging

import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from fissura.distributed.stopping import StopFile
from fissura.models.synchronised import synchronised
from fissura.training.allocator import keep_memory
from fissura.training.runtime import set_threads


class TrainRuntime:
    """One of several data-parallel workers (DDP: nccl on GPUs, gloo on CPUs)."""

    def __init__(self, *, cpus: int, stop: StopFile) -> None:
        context = ray.train.get_context()
        self.rank: int = context.get_world_rank()
        self.world_size: int = context.get_world_size()
        self.device: torch.device = ray.train.torch.get_device()
        self.cpus = cpus
        self._stop = stop
        set_threads(cpus)
        keep_memory()

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model on the device, wrapped so that gradients are averaged; batch norm's statistics too on
        GPUs."""
        if self.device.type == "cuda":
            model = synchronised(model)
        model = model.to(self.device)
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    def share(self, values: list[float]) -> list[float]:
        """Rank 0's values, on every rank."""
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, src=0)
        return [float(value) for value in tensor]

    def mean(self, value: float) -> float:
        """The mean of the ranks' values, on every rank."""
        tensor = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor[0]) / self.world_size

    def should_stop(self) -> bool:
        """Whether rank 0 sees the stop file; broadcast, so that all ranks stop after the same step."""
        return bool(self.share([float(self._stop.requested())])[0])

    def waiting(self, reason: str) -> None:
        """Logs the reason as a warning in Ray's log of the worker; the other workers wait for this one."""
        if reason:
            logging.getLogger(__name__).warning(reason)
