"""The number types that a training computes in."""

from contextlib import AbstractContextManager
from typing import Any, Literal

import torch

PrecisionName = Literal["float32", "mixed", "bfloat16"]


class MixedPrecision:
    """Float32 weights, and convolutions in half precision where `precision` asks for it and the device has
    it.

    `autocast` surrounds each forward pass; `scaler` keeps float16 gradients from underflowing.
    """

    def __init__(self, precision: PrecisionName, device: torch.device) -> None:
        half = half_precision(precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=half is torch.float16)
        self.autocast: AbstractContextManager[Any] = torch.autocast(
            device.type, dtype=half or torch.bfloat16, enabled=half is not None
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradient of the scaled loss to the parameters'."""
        torch.autograd.backward(self.scaler.scale(loss))

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer, skipped where a scaled gradient is not finite."""
        self.scaler.step(optimizer)
        self.scaler.update()


def half_precision(precision: PrecisionName, device: torch.device) -> torch.dtype | None:
    """The type that convolutions are computed in beside float32 weights; None: float32.

    A processor that would have to emulate bfloat16 computes in float32, which is faster there.
    """
    if precision == "float32":
        return None
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    native = precision == "bfloat16" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else None
