"""Batch normalisation over all GPUs of a training."""

from torch import nn


def synchronised(module: nn.Module) -> nn.Module:
    """`module` with every batch normalisation turned into one whose statistics are those of all workers.

    PyTorch's own `convert_sync_batchnorm` turns timm's `BatchNormAct2d`, which holds the activation too, into
    a normalisation without one.
    """
    from timm.layers import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(module)
    return converted
