from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.codes.sinkhorn import sinkhorn


def random_distances(samples: int, codes: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(samples, width, generator=generator)
    codebook = torch.randn(codes, width, generator=generator)
    return torch.cdist(vectors, codebook).square()


def assert_doubly_stochastic(plan: torch.Tensor) -> None:
    samples, codes = plan.shape
    assert torch.isfinite(plan).all()
    assert (plan >= 0).all()
    assert (plan.sum(1) - 1).abs().max() < 1e-4
    assert (plan.sum(0) * codes / samples - 1).abs().max() < 1e-4


@pytest.mark.parametrize("epsilon", [0.05, 0.003])
@pytest.mark.parametrize(("samples", "codes"), [(1024, 256), (64, 256), (1, 4), (7, 5)])
def test_plans_are_doubly_stochastic(samples: int, codes: int, epsilon: float) -> None:
    assert_doubly_stochastic(sinkhorn(random_distances(samples, codes, 8, seed=0), epsilon))


def test_far_outliers_and_equal_rows_do_not_underflow() -> None:
    distances = random_distances(128, 32, 4, seed=1)
    # exp(-2 / 0.0005) is 0 in double precision: without the log domain, rows would be 0 / 0.
    distances[0] = 1e6
    distances[1:40] = distances[1]
    assert_doubly_stochastic(sinkhorn(distances, 0.003))
    assert_doubly_stochastic(sinkhorn(distances[1:], 0.0005))
    assert_doubly_stochastic(sinkhorn(torch.zeros(6, 3), 0.003))


@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 40),
    codes=st.integers(1, 12),
    width=st.integers(1, 6),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_any_shape_is_doubly_stochastic(
    samples: int, codes: int, width: int, seed: int, scale: float
) -> None:
    distances = random_distances(samples, codes, width, seed)
    plan = sinkhorn(scale * distances, 0.01)
    assert_doubly_stochastic(plan)
    # Distances are brought to one scale, so their unit does not matter.
    torch.testing.assert_close(plan, sinkhorn(distances, 0.01), atol=1e-3, rtol=0)


def test_two_by_two_by_hand() -> None:
    # Centred distances are -1 and 1, so that the plan is [[p, 1-p], [1-p, p]] with
    # p / (1 - p) = exp(2 / epsilon).
    plan = sinkhorn(torch.tensor([[0.0, 8.0], [8.0, 0.0]]), 2.0)
    p = torch.tensor(1.0).exp() / (torch.tensor(1.0).exp() + 1)
    torch.testing.assert_close(
        plan, torch.tensor([[p, 1 - p], [1 - p, p]]).double(), atol=1e-6, rtol=0
    )


def test_a_small_epsilon_gives_the_best_matching() -> None:
    for seed in range(6):
        distances = random_distances(5, 5, 3, seed)
        best = min(
            itertools.permutations(range(5)),
            key=lambda order: sum(float(distances[row, code]) for row, code in enumerate(order)),
        )
        assert sinkhorn(distances, 0.003).argmax(1).tolist() == list(best)


def test_masses_are_kept() -> None:
    masses = torch.tensor([1.0, 1.0, 4.0])
    plan = sinkhorn(random_distances(3, 6, 2, seed=3), 0.01, masses=masses)
    torch.testing.assert_close(plan.sum(1), masses.double(), atol=5e-4, rtol=0)
    torch.testing.assert_close(plan.sum(0), torch.ones(6).double(), atol=2e-4, rtol=0)


def test_few_iterations_still_balance_the_codes() -> None:
    plan = sinkhorn(random_distances(1024, 256, 8, seed=0), 0.003, iterations=50)
    torch.testing.assert_close(plan.sum(0), torch.full((256,), 4.0).double())
