from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.training.soft_loss import NO_CHILD, soft_cross_entropy


class Block:
    """Random decisions, with padding of both kinds, and their distributions written out."""

    def __init__(self, nodes: int, each: int, children: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*size: int) -> torch.Tensor:
            return torch.rand(size, generator=generator, dtype=torch.float64)

        slots = nodes * each
        self.logits = 6 * random(nodes, each, children) - 3
        sizes = torch.randint(1, children + 1, (nodes,), generator=generator)
        self.real = torch.arange(children) < sizes[:, None]
        self.logits.masked_fill_(~self.real[:, None], NO_CHILD)
        padding = (random(slots) < 0.3).view(nodes, each)
        self.below = (random(nodes, children) * 9).round() * self.real
        self.choice = (random(nodes, each) * sizes[:, None]).long()
        q = random(nodes, each, children) * self.real[:, None]
        q = (q / q.sum(-1, keepdim=True)).masked_fill(padding[..., None], 0)
        self.q = q
        # Any split into the three parts is as good as another.
        even = random(nodes, each).masked_fill(padding, 0) / 9
        hard = random(nodes, each).masked_fill(padding, 0)
        extra = q - even[..., None] * self.below[:, None]
        extra = extra - torch.zeros_like(extra).scatter_(2, self.choice[..., None], hard[..., None])
        self.choice[padding] = -1
        listed = extra.view(-1).nonzero()[:, 0]
        self.terms = (
            self.choice.view(-1), hard.view(-1), even.view(-1), self.below, listed,
            extra.view(-1)[listed],
        )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(0, 999))
def test_value_and_gradient_are_those_of_the_distribution_written_out(
    nodes: int, each: int, children: int, seed: int
) -> None:
    block = Block(nodes, each, children, seed)
    logits = block.logits.requires_grad_()
    expected = -(block.q * torch.log_softmax(logits, -1)).sum()
    (wanted,) = torch.autograd.grad(expected, logits)
    found = soft_cross_entropy(logits, *block.terms)
    (got,) = torch.autograd.grad(3 * found, logits)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(got, 3 * wanted, atol=1e-9, rtol=1e-9)


def test_one_right_choice_is_the_usual_cross_entropy_also_in_mixed_precision() -> None:
    logits = torch.randn(1, 3, 4).requires_grad_()
    choice, none = torch.tensor([2, 0, -1]), torch.zeros(0)
    hard, even = torch.tensor([1.0, 1.0, 0.0]), torch.zeros(3)
    terms = choice, hard, even, torch.ones(1, 4), none.long(), none
    expected = torch.nn.functional.cross_entropy(logits[0, :2], choice[:2], reduction="sum")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = soft_cross_entropy(logits, *terms)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert logits.grad is not None
    assert not logits.grad[0, 2].any()
