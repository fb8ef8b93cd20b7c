"""Rows of an RBF kernel, exponentiated from squared distances when first needed, and kept."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32, Int64
from numba import njit

# 2^r on [-1/2, 1/2], relative error 1e-12
_POWER = tuple(
    np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 8, [-0.5, 0.5])
    .convert(kind=np.polynomial.Polynomial)
    .coef
)
_exact = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


class KernelRows(NamedTuple):
    """A kernel `2^(factor * distances)` and its rows that have been exponentiated.

    The rows are float32, rounded once from float64. If there is no room, new rows replace the oldest.

    Attributes:
        distances: squared distances [n, n], read-only, in the caller's order.
        order: the samples in the solver's order; empty if it is the caller's.
        kept: room for rows, in the solver's order.
        slot_of: the index of each sample's row in `kept`, -1 for none.
        owner: the sample whose row each slot holds, -1 for none.
        next_slot: one number, the slot that is replaced next.
        gathered: room for one row of distances.
        values: room for one row of factors.
        exponents: room for one row of the powers of two that multiply them, as bits.
    """

    distances: Float[np.ndarray, "n n"]
    order: Int64[np.ndarray, " n"]
    kept: Float32[np.ndarray, "slots n"]
    slot_of: Int64[np.ndarray, " n"]
    owner: Int64[np.ndarray, " slots"]
    next_slot: Int64[np.ndarray, " 1"]
    gathered: Float[np.ndarray, " n"]
    values: Float64[np.ndarray, " n"]
    exponents: Int32[np.ndarray, " n"]


def kernel_rows(
    distances: Float[np.ndarray, "n n"], *, order: Int64[np.ndarray, " n"], slots: int
) -> KernelRows:
    """An empty cache with room for `slots` rows (at least 2)."""
    count = len(distances)
    slots = max(min(slots, count), 2)
    return KernelRows(
        distances=_read_only(distances),
        order=order,
        kept=np.empty((slots, count), np.float32),
        slot_of=np.full(count, -1),
        owner=np.full(slots, -1),
        next_slot=np.zeros(1, np.int64),
        gathered=np.empty(count, distances.dtype),
        values=np.empty(count),
        exponents=np.empty(count, np.int32),
    )


def renewed(kernel: KernelRows, distances: Float[np.ndarray, "n n"]) -> KernelRows:
    """The same memory, emptied for another gamma or other distances."""
    kernel.slot_of.fill(-1)
    kernel.owner.fill(-1)
    kernel.next_slot.fill(0)
    return kernel._replace(distances=_read_only(distances))


def _read_only(distances: Float[np.ndarray, "n n"]) -> Float[np.ndarray, "n n"]:
    # read-only as arrays of an object store or a mapped file are: numba compiles one version for all
    view = np.asarray(distances).view()
    view.flags.writeable = False
    return view


@_exact
def _exponentiate(
    kernel: KernelRows, factor: float, distances: Float[np.ndarray, " t"]
) -> tuple[Float64[np.ndarray, " t"], Float32[np.ndarray, " t"]]:
    """2^(factor * distances) as two factors to be multiplied, the second a power of two, at least 2^-126."""
    values, bits = kernel.values[: len(distances)], kernel.exponents[: len(distances)]
    for t in range(len(distances)):
        exponent = max(factor * distances[t], -126.0)
        whole = math.floor(exponent + 0.5)
        rest = exponent - whole
        value = _POWER[8]
        value = value * rest + _POWER[7]
        value = value * rest + _POWER[6]
        value = value * rest + _POWER[5]
        value = value * rest + _POWER[4]
        value = value * rest + _POWER[3]
        value = value * rest + _POWER[2]
        value = value * rest + _POWER[1]
        value = value * rest + _POWER[0]
        bits[t] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        values[t] = value
    return values, bits.view(np.float32)


@_exact
def _distances(kernel: KernelRows, i: int, start: int, stop: int) -> Float[np.ndarray, " t"]:
    """Sample i's distances to those at [start, stop) of the solver's order."""
    if len(kernel.order) == 0:
        return kernel.distances[i, start:stop]
    source = kernel.distances[kernel.order[i]]
    for t in range(start, stop):
        kernel.gathered[t] = source[kernel.order[t]]
    return kernel.gathered[start:stop]


@_exact
def add_exact(
    kernel: KernelRows, factor: float, i: int, start: int, weight: float, sums: Float64[np.ndarray, " t"]
) -> None:
    """Adds to `sums` the weighted kernel between sample i and as many samples from `start` on, in float64."""
    values, powers = _exponentiate(kernel, factor, _distances(kernel, i, start, start + len(sums)))
    for t in range(len(sums)):
        sums[t] += weight * (values[t] * powers[t])


@_exact
def row_slot(kernel: KernelRows, factor: float, i: int, beside: int) -> int:
    """The slot of sample i's row, exponentiated if it is not kept; never replaces the row of `beside`."""
    slot: int = kernel.slot_of[i]
    if slot >= 0:
        return slot
    slots = len(kernel.kept)
    slot = kernel.next_slot[0]
    if beside >= 0 and kernel.slot_of[beside] == slot:
        slot = (slot + 1) % slots
    if kernel.owner[slot] >= 0:
        kernel.slot_of[kernel.owner[slot]] = -1
    kernel.owner[slot] = i
    kernel.slot_of[i] = slot
    kernel.next_slot[0] = (slot + 1) % slots
    row = kernel.kept[slot]
    values, powers = _exponentiate(kernel, factor, _distances(kernel, i, 0, len(row)))
    for t in range(len(row)):
        row[t] = values[t] * powers[t]
    return slot
