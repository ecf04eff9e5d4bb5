"""Balanced assignment of samples to codes by entropic optimal transport (arXiv 1306.0895)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

# From here on scaling steps are this much longer (arXiv 1711.01851); before, that may diverge.
_PLAIN_ITERATIONS = 50
_STRIDE = 1.8
# Scalings go into the potentials this often; between, they stay far from overflow.
_ITERATIONS_A_BLOCK = 20


def sinkhorn(
    distances: Float[Tensor, "samples codes"],
    epsilon: float,
    *,
    masses: Float[Tensor, " samples"] | None = None,
    iterations: int = 20_000,
    tolerance: float = 1e-4,
) -> Float[Tensor, "samples codes"]:
    """The transport plan from samples to codes in which every code receives as much.

    Rows sum to the mass of their sample (1 unless given), columns to the same share of all mass,
    with relative errors up to `tolerance`; after the last of the iterations only columns are exact.
    The largest entry of a row is the code of the sample. With `epsilon` near 0 the plan is a
    matching, with a large one it is uniform. Distances are brought to [-1, 1] first, so that one
    `epsilon` does for all sizes of vectors. Potentials are kept in the log domain and in double
    precision: no `epsilon` is too small to divide by.
    """
    low, high = distances.double().aminmax()
    centred = (distances.double() - (high + low) / 2) / ((high - low) / 2).clamp(min=1e-12)
    exponents = -centred / epsilon
    rows = torch.ones_like(exponents[:, 0]) if masses is None else masses.double()
    log_rows, column = rows.log()[:, None], float(rows.sum()) / distances.shape[1]
    # A step in the log domain leaves no row or column whose sum could underflow.
    left = log_rows - torch.logsumexp(exponents, 1, keepdim=True)
    right = math.log(column) - torch.logsumexp(exponents + left, 0, keepdim=True)
    done = 1
    while True:
        plan = torch.exp(exponents + left + right)
        errors = torch.cat([plan.sum(1) / rows, plan.sum(0) / column]) - 1
        if done >= iterations or float(errors.abs().max()) <= tolerance:
            return plan
        stride = 1.0 if done < _PLAIN_ITERATIONS else _STRIDE
        block = min(_ITERATIONS_A_BLOCK, iterations - done)
        by_row, by_column = torch.ones_like(rows), torch.ones_like(plan[0])
        for step in range(block):
            if done + step + 1 == iterations:
                stride = 1.0
            by_row = by_row * (rows / (by_row * (plan @ by_column))) ** stride
            by_column = by_column * (column / (by_column * (by_row @ plan))) ** stride
        left, right = left + by_row.log()[:, None], right + by_column.log()
        done += block
