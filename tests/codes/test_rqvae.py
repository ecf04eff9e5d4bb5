from __future__ import annotations

import pytest
import torch

from incatalog.codes.codebooks import residual_codes, sum_of_codes
from incatalog.codes.rqvae import RqVae, RqVaeSizes, contrastive_loss, quantise

# Level 1 takes code 0 for latent 1 and code 3 for latent 4; both leave 1, for which level 2 takes
# 0.5. Codebook losses: mean(1, 1) = 1 and mean(0.25, 0.25) = 0.25; commitment losses are the same.
LATENTS = [[1.0], [4.0]]
LEVELS = [[[0.0], [3.0]], [[0.5], [-1.0]]]
BETA = 0.2


def by_hand() -> tuple[torch.Tensor, list[torch.Tensor]]:
    latents = torch.tensor(LATENTS, requires_grad=True)
    return latents, [torch.tensor(level, requires_grad=True) for level in LEVELS]


def test_losses_by_hand() -> None:
    latents, codebooks = by_hand()
    quantised = quantise(latents, codebooks, BETA)
    assert quantised.codes.tolist() == [[0, 0], [1, 0]]
    assert quantised.vectors.tolist() == [[0.5], [3.5]]
    assert quantised.residuals.tolist() == [[[1.0], [4.0]], [[1.0], [1.0]]]
    # Mean over the levels of 1 + 0.2 * 1 and 0.25 + 0.2 * 0.25.
    assert quantised.loss.item() == pytest.approx((1.2 + 0.3) / 2)


def test_gradients_of_the_loss_by_hand() -> None:
    latents, codebooks = by_hand()
    quantise(latents, codebooks, BETA).loss.backward()
    # d mean((e - r)^2) / d e = 2 (e - r) / 2 for each row, halved by the mean over two levels.
    torch.testing.assert_close(codebooks[0].grad, torch.tensor([[-0.5], [-0.5]]))
    torch.testing.assert_close(codebooks[1].grad, torch.tensor([[-0.5], [0.0]]))
    # Each level pulls the latents with beta * 2 (r - e) / 2 / 2: 0.1 * 1 and 0.1 * 0.5.
    torch.testing.assert_close(latents.grad, torch.tensor([[0.15], [0.15]]))


def test_gradients_go_straight_through() -> None:
    latents, codebooks = by_hand()
    weights = torch.tensor([[2.0], [-7.0]])
    (quantise(latents, codebooks, BETA).vectors * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    assert all(codebook.grad is None for codebook in codebooks)


def test_balance_uses_all_codes_of_its_level_only() -> None:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(64, 2, generator=generator)
    # Code 0 is nearest to everything at both levels.
    far = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0], [50.0, 50.0]])
    plain = quantise(latents, [far, far], BETA).codes
    assert plain.unique().tolist() == [0]
    codes = quantise(latents, [far, far], BETA, (0.0, 0.05), iterations=200).codes
    assert codes[:, 0].unique().tolist() == [0]
    assert torch.bincount(codes[:, 1], minlength=4).min() >= 8


def test_contrastive_loss_by_hand() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    # Cosines are 1 and 0; at temperature 0.5 the loss of a row is -log(e^2 / (e^2 + 1)).
    loss = contrastive_loss(2 * vectors, vectors, 0.5)
    assert loss.item() == pytest.approx(0.126928, abs=1e-6)
    assert contrastive_loss(vectors.flip(0), vectors, 0.5).item() == pytest.approx(2.126928)


@pytest.fixture
def network() -> RqVae:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RqVae(RqVaeSizes(width=6, layers=(5, 4), e_dim=3, codebooks=(8, 4, 2)))
        for codebook in network.codebooks:
            torch.nn.init.normal_(codebook)
    network.mean.copy_(torch.arange(6.0))
    network.scale.fill_(3.0)
    return network.eval()


def test_codes_are_those_training_takes(network: RqVae) -> None:
    vectors = torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    quantised = quantise(network.latents(vectors), list(network.codebooks), BETA)
    codes = residual_codes(network.latents(vectors), list(network.codebooks))
    assert torch.equal(codes, quantised.codes)
    torch.testing.assert_close(
        network.decode(sum_of_codes(codes, list(network.codebooks))),
        network.decoder(quantised.vectors) * 3 + torch.arange(6.0),
    )
    brute = quantised.vectors.new_zeros(20, 3)
    residual = network.latents(vectors)
    for level, codebook in enumerate(network.codebooks):
        nearest = (residual[:, None] - codebook).norm(dim=2).argmin(1)
        assert torch.equal(nearest, codes[:, level])
        brute = brute + codebook[nearest]
        residual = residual - codebook[nearest]
    torch.testing.assert_close(brute, quantised.vectors)


def test_layers_are_linear_between_relu() -> None:
    sizes = RqVaeSizes(4, (3,), 2, (2,), batch_norm=True, dropout=0.5)
    kinds = [type(module).__name__ for module in RqVae(sizes).encoder]
    assert kinds == ["Dropout", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
