"""The clustering terms over the ambiguous pixels of one image, without ever holding all pairs of them.

S    those pixels, s of them
p_m  predicted distribution of pixel m over (non-crack, crack); u_m = 2 p_m(crack) - 1, so that
     p_m . p_n = (1 + u_m u_n) / 2
C_m  m's neighbours, |C| of them: the row m of `neighbours`
O_m  the others, S without C_m and m
psi  the quantity whose mean over m is the term (Chen et al., CVPR 2024)

Both of the paper's terms hold the constant (|C| - |O|) log s: no gradient, but -2e5 at 20 000 pixels, where a
float32 has two decimals left. Training uses the `centred_` forms, which leave it out.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from fissura.losses.neighbours import PAIRS, directions

DEGREE = 16  # of the series of exp(x), |x| <= 1/2: a float64 holds no further term


def clustering_bound(
    probability: Float[Tensor, " s"], *, neighbours: Int64[Tensor, "s neighbours"]
) -> Float[Tensor, ""]:
    """The mean over m of (Eq. 13, 15)

    `psi = - sum_{n in C} p_m.p_n + |C|/|O| sum_{k in O} p_m.p_k + (|C| - |O|) log s`,

    the middle term 0 where O is empty, and 0 for no pixel at all.
    """
    return centred_bound(probability, neighbours=neighbours) + _constant(neighbours)


def clustering_exact(
    probability: Float[Tensor, " s"], *, neighbours: Int64[Tensor, "s neighbours"]
) -> Float[Tensor, ""]:
    """The mean over m of `psi = - log( P(C_m) / P(O_m) )` (Eq. 9-12, 15), which is

    `- sum_{n in C} p_m.p_n + sum_{k in O} p_m.p_k + (|C| - |O|) log sum_{q in S} exp(p_m.p_q)`,

    and 0 for no pixel at all.
    """
    return centred_exact(probability, neighbours=neighbours) + _constant(neighbours)


def centred_bound(
    probability: Float[Tensor, " s"], *, neighbours: Int64[Tensor, "s neighbours"]
) -> Float[Tensor, ""]:
    """`clustering_bound` less (|C| - |O|) log s."""
    near, far, close, others = _sums(probability, neighbours)
    if others == 0:
        return -(close + near).sum() / (2 * max(1, len(probability)))
    # with |O| > 0 the halves of all p_m.p_n = (1 + u_m u_n) / 2 cancel
    return (close / others * far - near).mean() / 2


def centred_exact(
    probability: Float[Tensor, " s"], *, neighbours: Int64[Tensor, "s neighbours"]
) -> Float[Tensor, ""]:
    """`clustering_exact` less (|C| - |O|) log s."""
    near, far, close, others = _sums(probability, neighbours)
    u = 2 * probability - 1
    # mean_q exp(u_m u_q / 2) is a power series in u_m / 2, whose coefficients are moments of u
    mean, power, moment = torch.ones_like(u), torch.ones_like(u), torch.ones_like(u)
    for degree in range(1, DEGREE + 1):
        power, moment = power * u / (2 * degree), moment * u
        mean = mean + power * (moment.sum() / max(1, len(u)))
    psi = (far - near) / 2 + (close - others) * torch.log(mean)
    return psi.sum() / max(1, len(u))


def nearest_neighbour_contrast(
    features: Float[Tensor, "s c"],
    *,
    neighbours: Int64[Tensor, "s neighbours"],
    temperature: float,
    pairs: int = PAIRS,
) -> Float[Tensor, ""]:
    """Nearest neighbours as positives (after Dwibedi et al., NNCLR, ICCV 2021), the paper's ablation:

    `- 1/s sum_m log( exp(a_m.z_m / t) / sum_{q in S} exp(a_m.z_q / t) )`, and 0 for fewer than two pixels.

    z_m  the feature over its length        t  temperature
    a_m  the z of m's nearest neighbour, the first in `neighbours`, taken as a constant

    `pairs` similarities are held at a time (at least one row). Once differentiable.
    """
    if len(features) < 2:
        return features.sum() * 0
    with torch.autocast(features.device.type, enabled=False):
        z = directions(features)
        a = z.detach()[neighbours[:, 0]]
        normaliser: Tensor = _MeanLogSumExp.apply(z, a / temperature, pairs)
        return normaliser - (a * z).sum() / (temperature * len(z))


class _MeanLogSumExp(Function):
    """`1/s sum_m log sum_q exp(a_m.z_q)`. The forward pass computes the gradient by z as well."""

    @staticmethod
    def forward(ctx: Any, z: Float[Tensor, "s c"], a: Float[Tensor, "s c"], pairs: int) -> Float[Tensor, ""]:
        size, rows = len(z), max(1, pairs // len(z))
        buffer, total, gradient = z.new_empty(min(rows, size), size), z.new_zeros(()), torch.zeros_like(z)
        for chunk in torch.split(a, rows):
            softmax = torch.mm(chunk, z.T, out=buffer[: len(chunk)])
            peak = softmax.amax(dim=1, keepdim=True)
            mass = softmax.sub_(peak).exp_().sum(dim=1, keepdim=True)
            total += (peak + mass.log()).sum()
            gradient.addmm_(softmax.div_(mass).T, chunk)
        ctx.save_for_backward(gradient.div_(size))
        return total / size

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Float[Tensor, ""]) -> tuple[Float[Tensor, "s c"], None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _sums(
    probability: Float[Tensor, " s"], neighbours: Int64[Tensor, "s neighbours"]
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"], int, int]:
    """`u_m sum_{n in C} u_n` and `u_m sum_{k in O} u_k` of every m, |C| and |O|."""
    u, close = 2 * probability - 1, neighbours.shape[1]
    near = u[neighbours].sum(dim=1)
    far = u.sum() - near - u
    return u * near, u * far, close, max(0, len(u) - close - 1)


def _constant(neighbours: Int64[Tensor, "s neighbours"]) -> float:
    size, close = neighbours.shape
    return (close - (size - close - 1)) * math.log(size) if size else 0.0
