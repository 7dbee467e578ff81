"""The objectives against naive loops over the paper's equations."""

import math

import pytest
import torch
from torch import Tensor

from convirt.objectives import bidirectional_contrastive_loss


def log_share(own: Tensor, all_: list[Tensor]) -> Tensor:
    """log( exp(own) / sum exp(all) ), shifted by the largest so that exp stays finite in float64."""
    largest = max(float(value.detach()) for value in all_)
    total = torch.zeros((), dtype=torch.float64)
    for value in all_:
        total = total + torch.exp(value - largest)
    return own - largest - torch.log(total)


def naive(v: Tensor, u: Tensor, temperature: float, weight: float) -> Tensor:
    """Section 2.2, a double loop: one number at a time."""

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        dot = norm_a = norm_b = torch.zeros((), dtype=torch.float64)
        for x, y in zip(a, b, strict=True):
            dot, norm_a, norm_b = dot + x * y, norm_a + x * x, norm_b + y * y
        return dot / torch.sqrt(norm_a) / torch.sqrt(norm_b)

    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(v)):
        own = cosine(v[i], u[i]) / temperature
        image_to_text = -log_share(own, [cosine(v[i], u[k]) / temperature for k in range(len(v))])
        text_to_image = -log_share(own, [cosine(u[i], v[k]) / temperature for k in range(len(v))])
        total = total + weight * image_to_text + (1 - weight) * text_to_image
    return total / len(v)


def vectors(count: int, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    v, u = torch.randn(2, count, dim, generator=generator, dtype=torch.float64)
    return (3 * v).requires_grad_(), (0.5 * u).requires_grad_()


@pytest.mark.parametrize("weight", [0.0, 0.75, 1.0])
@pytest.mark.parametrize(("count", "temperature"), [(1, 0.1), (2, 0.1), (7, 0.1), (7, 1.0), (6, 0.01), (6, 1e-5)])
def test_loss_and_gradients_equal_the_naive_loop(count: int, temperature: float, weight: float) -> None:
    v, u = vectors(count)
    loss = bidirectional_contrastive_loss(v, u, temperature, weight)
    expected = naive(v, u, temperature, weight)
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    # A temperature of 1e-5 makes gradients of about 1e5, hence the relative part.
    for got, wanted in zip(torch.autograd.grad(loss, (v, u)), torch.autograd.grad(expected, (v, u)), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("weight", [0.0, 0.75, 1.0])
def test_gradients_equal_finite_differences(weight: float) -> None:
    def loss(v: Tensor, u: Tensor) -> Tensor:
        return bidirectional_contrastive_loss(v, u, 0.1, weight)

    assert torch.autograd.gradcheck(loss, vectors(4))


def test_the_weight_is_the_share_of_the_image_to_text_loss() -> None:
    # Both images look like the first text: to the image, its text is ambiguous only for the second pair.
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    image_to_text = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 2
    text_to_image = math.log(2)
    for weight in (0.0, 0.25, 1.0):
        loss = bidirectional_contrastive_loss(v, u, temperature=1.0, weight=weight)
        assert loss.item() == pytest.approx(weight * image_to_text + (1 - weight) * text_to_image, abs=1e-12)


def test_defaults_are_the_papers() -> None:
    v, u = vectors(5)
    assert bidirectional_contrastive_loss(v, u) == bidirectional_contrastive_loss(v, u, temperature=0.1, weight=0.75)


def test_large_logits_do_not_overflow_in_float32() -> None:
    v, u = (x.detach().float().requires_grad_() for x in vectors(8))
    loss = bidirectional_contrastive_loss(v, u, temperature=1e-6)
    loss.backward()
    assert loss.item() == pytest.approx(naive(v.double(), u.double(), 1e-6, 0.75).item(), rel=1e-4)
    assert v.grad is not None
    assert v.grad.isfinite().all()


def test_a_batch_of_one_has_no_negatives() -> None:
    v, u = vectors(1)
    loss = bidirectional_contrastive_loss(v, u)
    loss.backward()
    assert loss.item() == 0
    assert v.grad is not None
    assert not v.grad.any()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(half: torch.dtype) -> None:
    v, u = (x.detach().to(half) for x in vectors(16))
    expected = bidirectional_contrastive_loss(v.double(), u.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = bidirectional_contrastive_loss(v, u)
        from_floats = bidirectional_contrastive_loss(v.float(), u.float())
    assert loss.dtype == torch.float32
    assert from_floats == loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)  # bfloat16 would give 1e-2


@pytest.mark.parametrize(
    ("v", "u", "temperature", "weight"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), 0.1, 0.75),
        (torch.ones(0, 3), torch.ones(0, 3), 0.1, 0.75),
        (torch.ones(3), torch.ones(3), 0.1, 0.75),
        (torch.ones(2, 3), torch.ones(2, 3), 0.0, 0.75),
        (torch.ones(2, 3), torch.ones(2, 3), 0.1, 1.5),
    ],
)
def test_wrong_arguments_are_refused(v: Tensor, u: Tensor, temperature: float, weight: float) -> None:
    with pytest.raises(ValueError, match=r"expected two equal|temperature must be positive"):
        bidirectional_contrastive_loss(v, u, temperature, weight)
