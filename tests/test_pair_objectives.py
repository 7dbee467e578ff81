"""The objectives of Contrastive-Binary, CLIP, MedCLIP and the masked language model against naive float64 loops."""

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from convirt.objectives import (
    binary_pair_loss,
    draw_fakes,
    hide_pieces,
    masked_language_loss,
    matching_entropy,
    scaled_contrastive_loss,
    semantic_matching_loss,
    sigmoid_pair_loss,
)
from test_objectives import log_share, vectors


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """One number at a time, as the papers write it."""
    dot = norm_a = norm_b = torch.zeros((), dtype=torch.float64)
    for x, y in zip(a.double(), b.double(), strict=True):
        dot, norm_a, norm_b = dot + x * y, norm_a + x * x, norm_b + y * y
    return dot / torch.sqrt(norm_a) / torch.sqrt(norm_b)


def assert_same_with_gradients(loss: Tensor, expected: Tensor, inputs: tuple[Tensor, ...]) -> None:
    assert loss.dtype == torch.float64
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-9)
    for got, wanted in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)


# CLIP (Radford et al. 2021, figure 3)


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_clip_equals_its_pseudocode_in_loops(count: int, scale: float) -> None:
    v, u = vectors(count)
    s = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(count):
        total = total - log_share(s * cosine(v[i], u[i]), [s * cosine(v[i], u[k]) for k in range(count)]) / 2
        total = total - log_share(s * cosine(u[i], v[i]), [s * cosine(u[i], v[k]) for k in range(count)]) / 2
    loss = scaled_contrastive_loss(v, u, s)
    assert_same_with_gradients(loss, total / count, (v, u, s))


# SigLIP (Zhai et al. 2023, section 3.2)


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (1.0, 0.0), (100.0, 3.0)])
@pytest.mark.parametrize("count", [1, 2, 6])
def test_siglip_equals_its_equation_in_loops(count: int, scale: float, bias: float) -> None:
    v, u = vectors(count)
    t = torch.tensor(scale, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            z = 1 if i == j else -1
            total = total + torch.log1p(torch.exp(-z * (t * cosine(v[i], u[j]) + b)))
    assert_same_with_gradients(sigmoid_pair_loss(v, u, t, b), total / count, (v, u, t, b))


# MedCLIP (Wang et al. 2022, section 3.4)

IMAGES = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0.5, 0, 1, 0]], dtype=torch.float64)
TEXTS = torch.tensor([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]], dtype=torch.float64)


def naive_targets(
    images: Tensor, texts: Tensor, temperature: float = 1.0
) -> tuple[list[list[float]], list[list[float]]]:
    """y(v->u) by image and text, and y(u->v) by text and image."""
    s = [[float(cosine(image, text)) / temperature for text in texts] for image in images]
    count = range(len(s))
    forward = [[math.exp(s[i][j]) / sum(math.exp(s[i][k]) for k in count) for j in count] for i in count]
    backward = [[math.exp(s[i][j]) / sum(math.exp(s[k][j]) for k in count) for i in count] for j in count]
    return forward, backward


@pytest.mark.parametrize(("scale", "sharpness"), [(1.0, 1.0), (1 / 0.07, 1.0), (1 / 0.07, 0.1)])
def test_medclip_equals_its_equations_in_loops(scale: float, sharpness: float) -> None:
    v, u = vectors(4, seed=3)
    tau = torch.tensor(1 / scale, dtype=torch.float64, requires_grad=True)
    forward, backward = naive_targets(IMAGES, TEXTS, sharpness)
    total = torch.zeros((), dtype=torch.float64)
    for i in range(4):
        for j in range(4):
            row = [cosine(v[i], u[k]) / tau for k in range(4)]
            column = [cosine(v[k], u[j]) / tau for k in range(4)]
            total = total - forward[i][j] * log_share(row[j], row) - backward[j][i] * log_share(column[i], column)
    loss = semantic_matching_loss(v, u, IMAGES, TEXTS, 1 / tau, target_temperature=sharpness)
    assert_same_with_gradients(loss, total / 8, (v, u, tau))


@pytest.mark.parametrize("sharpness", [1.0, 0.1])
def test_the_entropy_of_soft_targets_is_the_least_loss(sharpness: float) -> None:
    options = {"target_temperature": sharpness}
    forward, backward = naive_targets(IMAGES, TEXTS, sharpness)
    entropy = -sum(p * math.log(p) for rows in (forward, backward) for row in rows for p in row) / 8
    assert matching_entropy(IMAGES, TEXTS, **options).item() == pytest.approx(entropy, abs=1e-12)
    # Vectors that are as similar as the findings reach it at the same scale; any others lie above.
    scale = torch.tensor(1 / sharpness)
    assert semantic_matching_loss(IMAGES, TEXTS, IMAGES, TEXTS, scale, **options).item() == pytest.approx(entropy)
    for seed in range(20):
        v, u = vectors(4, seed=seed)
        assert semantic_matching_loss(v, u, IMAGES, TEXTS, scale, **options).item() > entropy


def test_unpaired_items_of_one_meaning_are_no_negatives() -> None:
    """All images and texts speak of the same: the targets are even, and equal vectors cost nothing above them."""
    same = torch.ones(5, 1)
    v = torch.ones(5, 3)
    assert semantic_matching_loss(v, v, same, same, torch.tensor(10.0)).item() == pytest.approx(math.log(5), rel=1e-6)


def test_something_without_any_finding_is_refused() -> None:
    v, u = vectors(4)
    empty = TEXTS.clone()
    empty[1] = 0
    with pytest.raises(ValueError, match="No Finding"):
        semantic_matching_loss(v, u, IMAGES, empty, torch.tensor(1.0))
    normal = IMAGES.clone()
    normal[2] = 0
    with pytest.raises(ValueError, match="No Finding"):
        semantic_matching_loss(v, u, normal, TEXTS, torch.tensor(1.0))
    with pytest.raises(ValueError, match="findings of 4"):
        semantic_matching_loss(v, u, IMAGES[:3], TEXTS[:3], torch.tensor(1.0))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(half: torch.dtype) -> None:
    v, u = (x.detach().to(half) for x in vectors(4))
    scale = torch.tensor(14.0)
    real, fake = (4 * x[:, 0].detach() for x in (v, u))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = [
            (scaled_contrastive_loss(v, u, scale), scaled_contrastive_loss(v.double(), u.double(), scale)),
            (
                semantic_matching_loss(v, u, IMAGES.float(), TEXTS.float(), scale),
                semantic_matching_loss(v.double(), u.double(), IMAGES, TEXTS, scale),
            ),
            (binary_pair_loss(real, fake), binary_pair_loss(real.double(), fake.double())),
        ]
    for loss, expected in losses:
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


# Contrastive-Binary (ConVIRT, section 3.3)


def test_the_binary_loss_equals_the_cross_entropy_in_loops() -> None:
    real, fake = (x[:, 0].detach().clone().requires_grad_() for x in vectors(7))
    total = torch.zeros((), dtype=torch.float64)
    for a, b in zip(real, fake, strict=True):
        total = total - torch.log(1 / (1 + torch.exp(-a))) - torch.log(1 - 1 / (1 + torch.exp(-b)))
    assert_same_with_gradients(binary_pair_loss(real, fake), total / 14, (real, fake))


def test_a_head_that_cannot_tell_costs_log_2_and_extreme_logits_stay_finite() -> None:
    assert binary_pair_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))
    assert binary_pair_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(1e4)
    for real, fake in ((torch.zeros(2), torch.zeros(3)), (torch.zeros(0), torch.zeros(0)), (torch.zeros(2, 1),) * 2):
        with pytest.raises(ValueError, match="equal, nonempty"):
            binary_pair_loss(real, fake)


@pytest.mark.parametrize(
    ("sentences", "avoidable"),
    [
        ("abcdefg", 7),
        ("aabbcc", 6),
        ("aaab", 2),  # one a gets the b, the b an a; the other two can only get an a
        ("aaabbb", 6),
        ("abacad", 6),
        ("aaaa", 0),
        ("ab", 2),
    ],
)
def test_a_fake_is_another_pair_and_another_sentence_where_avoidable(sentences: str, avoidable: int) -> None:
    met: set[tuple[int, ...]] = set()
    for seed in range(200):
        fakes = draw_fakes(list(sentences), torch.Generator().manual_seed(seed)).tolist()
        assert sorted(fakes) == list(range(len(sentences)))
        assert all(fake != pair for pair, fake in enumerate(fakes))
        assert sum(sentences[fake] != sentences[pair] for pair, fake in enumerate(fakes)) == avoidable
        met.add(tuple(fakes))
    assert len(sentences) <= 2 or len(met) > 1


def test_fakes_are_a_function_of_the_generator_alone() -> None:
    draws = []
    for seed in (0, 1, 1):
        torch.manual_seed(seed)
        draws.append(draw_fakes(list("abcdefghijklmnop"), torch.Generator().manual_seed(7)).tolist())
    assert draws[0] == draws[1] == draws[2]
    assert draw_fakes(list("abcdefghijklmnop"), torch.Generator().manual_seed(8)).tolist() != draws[0]


def test_every_other_pair_is_drawn_equally_often() -> None:
    counts = Counter(draw_fakes(list("abcdef"), torch.Generator().manual_seed(seed))[2].item() for seed in range(2000))
    assert set(counts) == {0, 1, 3, 4, 5}
    assert all(340 < count < 460 for count in counts.values())  # 400 expected, three deviations of 18
    with pytest.raises(ValueError, match="at least 2"):
        draw_fakes(["a"], torch.Generator())


# Masked language modelling (Devlin et al. 2019, 3.1)

MASK, VOCABULARY = 4, 1000


def hide(count: int, length: int, seed: int = 0, share: float = 0.15) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pieces = torch.randint(5, VOCABULARY, (count, length), generator=torch.Generator().manual_seed(7))
    may_hide = torch.arange(length)[None] < torch.arange(count)[:, None] % length + 1
    generator = torch.Generator().manual_seed(seed)
    hidden, chosen = hide_pieces(pieces, may_hide, share=share, mask=MASK, vocabulary=VOCABULARY, generator=generator)
    return pieces, may_hide, hidden, chosen


def test_so_many_pieces_of_each_text_are_chosen_and_no_others() -> None:
    pieces, may_hide, hidden, chosen = hide(60, 40)
    assert not (chosen & ~may_hide).any()
    assert torch.equal(hidden[~chosen], pieces[~chosen])
    for row, words in zip(chosen, may_hide, strict=True):
        assert int(row.sum()) == max(1, round(0.15 * int(words.sum())))


def test_eighty_ten_ten() -> None:
    pieces, _, hidden, chosen = hide(3000, 60, share=0.5)
    total = int(chosen.sum())
    masked = int((hidden == MASK)[chosen].sum())
    kept = int((hidden == pieces)[chosen].sum())
    deviation = 3 * math.sqrt(0.1 * 0.9 / total)
    assert masked / total == pytest.approx(0.8, abs=2 * deviation)
    assert kept / total == pytest.approx(0.1, abs=deviation + 1 / VOCABULARY)
    assert (total - masked - kept) / total == pytest.approx(0.1, abs=deviation + 1 / VOCABULARY)
    other = hidden[chosen & (hidden != MASK) & (hidden != pieces)]
    assert other.max() < VOCABULARY
    assert len(other.unique()) > 0.9 * VOCABULARY


def test_what_is_hidden_is_a_function_of_the_generator() -> None:
    first, again, another = hide(8, 20)[2], hide(8, 20)[2], hide(8, 20, seed=1)[2]
    assert torch.equal(first, again)
    assert not torch.equal(first, another)


def test_the_loss_of_hidden_pieces_equals_the_loop() -> None:
    logits = vectors(6, dim=9)[0]
    pieces = [0, 3, 8, 3, 1, 5]
    total = torch.zeros((), dtype=torch.float64)
    for row, piece in zip(logits, pieces, strict=True):
        total = total - log_share(row[piece], list(row))
    assert_same_with_gradients(masked_language_loss(logits, torch.tensor(pieces)), total / 6, (logits,))


def test_hidden_pieces_in_half_precision_are_judged_in_float32() -> None:
    logits = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    pieces = torch.tensor([0, 1, 2, 8, 4, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = masked_language_loss(logits, pieces)
    assert loss.dtype == torch.float32
    expected = torch.nn.functional.cross_entropy(logits.double(), pieces)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
