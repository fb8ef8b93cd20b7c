"""Where labels are doubtful: beside a crack, and where the network says so (Chen et al., CVPR 2024)."""

import torch
from jaxtyping import Float, Num, UInt8
from torch import Tensor
from torch.nn.functional import max_pool2d


def marginal_region(mask: Num[Tensor, "b 1 h w"]) -> Num[Tensor, "b 1 h w"]:
    """`M = dilate(y, 5 x 5) - y` (Eq. 1): 1 on the pixels labelled non-crack at most two rows and two columns
    from one labelled crack, else 0. `mask` holds 0 and 1; the result has its type.
    """
    return _ring(mask, size=5)


def boundary_region(mask: Num[Tensor, "b 1 h w"]) -> Num[Tensor, "b 1 h w"]:
    """`dilate(y, 3 x 3) - y`: 1 on the non-crack pixels that touch a crack, by a side or a corner (Cheng et
    al., ICCV 2021). `mask` holds 0 and 1; the result has its type.
    """
    return _ring(mask, size=3)


def _ring(mask: Num[Tensor, "b 1 h w"], *, size: int) -> Num[Tensor, "b 1 h w"]:
    return max_pool2d(mask.float(), kernel_size=size, stride=1, padding=size // 2).to(mask.dtype) - mask


def ambiguous_region(
    log_variance: Float[Tensor, "b 1 h w"], mask: Num[Tensor, "b 1 h w"], *, gamma: float
) -> UInt8[Tensor, "b 1 h w"]:
    """`A = 1 where exp(s) > gamma and M = 1` (Eq. 8), else 0.

    s  `log_variance`, natural logarithm        M  the marginal region of `mask`        gamma  above 0
    """
    variance = torch.exp(log_variance.float())
    return ((variance > gamma) & (marginal_region(mask) == 1)).to(torch.uint8)
