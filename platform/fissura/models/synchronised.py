"""Batch normalisation over all GPUs of a training."""

from torch import nn


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with every batch normalisation converted to one over all workers.

    PyTorch's own conversion drops the activation that timm's `BatchNormAct2d` holds.
    """
    from timm.layers import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(module)
    return converted
