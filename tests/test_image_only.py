"""SimCLR and MoCo v2: their equations in naive loops, the queue and the key encoder over steps, and overfitting."""

import json
import math
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import read_log
from convirt.config import OptimiserConfig, PretrainConfig, ProjectionConfig, TransformConfig, ValidationConfig
from convirt.data.loading.loader import Batch
from convirt.errors import InputError
from convirt.methods import METHODS, MoCo, SimCLR
from convirt.methods.base import ParameterGroup
from convirt.model import load
from convirt.objectives import nt_xent_loss, queue_contrastive_loss
from convirt.recipes.image_only import MoCoObjective, TwoViewsObjective
from convirt.training.optimiser import build_optimiser
from convirt.training.pretrain import pretrain

MakeConfig = Callable[..., PretrainConfig]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    dot = norm_a = norm_b = torch.zeros((), dtype=torch.float64)
    for x, y in zip(a, b, strict=True):
        dot, norm_a, norm_b = dot + x * y, norm_a + x * x, norm_b + y * y
    return dot / torch.sqrt(norm_a) / torch.sqrt(norm_b)


def naive_nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Chen et al. 2020, algorithm 1: the loss of each ordered pair of views, one number at a time."""
    z: list[Tensor] = []
    for a, b in zip(first, second, strict=True):
        z += [a, b]  # as the paper numbers them: 2k - 1 and 2k are the views of one image
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        denominator = torch.zeros((), dtype=torch.float64)
        for k in range(len(z)):
            if k != i:
                denominator = denominator + torch.exp(cosine(z[i], z[k]) / temperature)
        total = total - torch.log(torch.exp(cosine(z[i], z[j]) / temperature) / denominator)
    return total / len(z)


def naive_queue(query: Tensor, key: Tensor, queue: list[Tensor], temperature: float) -> Tensor:
    """He et al. 2020, equation 1, one number at a time."""
    total = torch.zeros((), dtype=torch.float64)
    for q, k in zip(query, key, strict=True):
        own = torch.exp(cosine(q, k) / temperature)
        denominator = own
        for old in queue:
            denominator = denominator + torch.exp(cosine(q, old) / temperature)
        total = total - torch.log(own / denominator)
    return total / len(query)


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("count", "temperature"), [(1, 0.1), (2, 0.5), (6, 0.1), (5, 0.02)])
def test_nt_xent_and_its_gradients_equal_the_naive_loop(count: int, temperature: float) -> None:
    first, second = (3 * vectors(count, 5, seed=seed).requires_grad_() for seed in (0, 1))
    loss, expected = nt_xent_loss(first, second, temperature), naive_nt_xent(first, second, temperature)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)
    for got, wanted in zip(torch.autograd.grad(loss, (first, second)), torch.autograd.grad(expected, (first, second)),
                           strict=True):  # fmt: skip
        torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-10)


def test_the_queue_loss_and_its_gradients_equal_the_naive_loop() -> None:
    query, key, queue = (nn.functional.normalize(vectors(n, 6, seed=n), dim=1) for n in (4, 4, 9))
    key = nn.functional.normalize(key + 0.5 * vectors(4, 6, seed=7), dim=1)
    query.requires_grad_()
    loss, hits = queue_contrastive_loss(query, key, queue, 0.07)
    expected = naive_queue(query, key, list(queue), 0.07)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    rows = list(zip(query.detach(), key, strict=True))
    nearest = [max(float(cosine(q, n)) for n in queue) < float(cosine(q, k)) for q, k in rows]
    assert float(hits) == sum(nearest) / 4
    got = torch.autograd.grad(loss, query)[0]
    tangent = torch.autograd.grad(expected, query)[0]  # the naive cosine has no gradient along the vector itself
    got = got - (got * query).sum(dim=1, keepdim=True) * query
    torch.testing.assert_close(got.detach(), tangent, rtol=1e-7, atol=1e-9)


def test_a_maintained_library_has_the_same_losses() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lightly.loss import NTXentLoss
    first, second = vectors(6, 8).float(), vectors(6, 8, seed=1).float()
    assert nt_xent_loss(first, second, 0.1).item() == pytest.approx(NTXentLoss(0.1)(first, second).item(), rel=1e-5)
    bank = NTXentLoss(0.07, memory_bank_size=(10, 8))
    query, key = (nn.functional.normalize(x, dim=1) for x in (first, second))
    expected = bank(query, key).item()
    loss, _ = queue_contrastive_loss(query, key, bank.memory_bank.bank, 0.07)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_half_precision_is_computed_in_float32() -> None:
    first, second = (vectors(8, 16, seed=seed).bfloat16() for seed in (0, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent_loss(first, second, 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_nt_xent(first.double(), second.double(), 0.1).item(), rel=1e-5)
    query, key, queue = (nn.functional.normalize(vectors(n, 6, seed=n), dim=1).bfloat16() for n in (4, 4, 9))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, _ = queue_contrastive_loss(query, key, queue)
    assert loss.dtype == torch.float32
    expected = nn.functional.cross_entropy(  # bfloat16 vectors are of unit length only roughly: no cosines here
        torch.cat([(query.double() * key.double()).sum(1, keepdim=True), query.double() @ queue.double().T], 1) / 0.07,
        torch.zeros(4, dtype=torch.long),
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_wrong_arguments_are_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        nt_xent_loss(vectors(2, 3), vectors(2, 3), temperature)
    with pytest.raises(ValueError, match="equal in shape"):
        nt_xent_loss(vectors(2, 3), vectors(3, 3))
    with pytest.raises(ValueError, match="sizes equal"):
        queue_contrastive_loss(vectors(2, 3), vectors(2, 3), vectors(4, 5))
    with pytest.raises(ValueError, match="temperature must be positive"):
        queue_contrastive_loss(vectors(2, 3), vectors(2, 3), vectors(4, 3), temperature)


# The methods


def blobs(count: int, step: int = 0) -> Batch:
    """Different images: blobs of grey, 40 pixels a side."""
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(coarse, size=(40, 40), mode="bicubic").clamp(0, 1)
    return Batch(
        images_B1SS=(images * 255).to(torch.uint8),
        sentences=["."] * count,
        reports=[(".",)] * count,
        indices=np.arange(count),
        step=step,
    )


def image_config(make: MakeConfig, method: str, **objective: float) -> PretrainConfig:
    kind = {"simclr": TwoViewsObjective, "moco": MoCoObjective}[method]
    return make(method=method, objective=kind(**objective), projection=ProjectionConfig(dim=16))


@pytest.fixture
def simclr(tiny_config: MakeConfig) -> SimCLR:
    return SimCLR(image_config(tiny_config, "simclr"))


@pytest.fixture
def moco(tiny_config: MakeConfig) -> MoCo:
    return MoCo(image_config(tiny_config, "moco", queue=20, key_momentum=0.9))


def test_simclr_compares_two_views_that_share_a_batch_norm(simclr: SimCLR) -> None:
    batch = blobs(6)
    views = simclr.two_views(batch, torch.Generator().manual_seed(3))
    assert not torch.equal(*views)
    expected = deepcopy(simclr).train()
    first, second = expected.head(expected.image_encoder(torch.cat(views))).chunk(2)
    loss, _ = simclr.train().loss(batch, torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss, nt_xent_loss(first, second, 0.1))


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_validation_changes_nothing_and_draws_from_nobody(tiny_config: MakeConfig, method: str) -> None:
    model = METHODS[method](image_config(tiny_config, method))
    model.train().loss(blobs(8), torch.Generator())
    before, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    model.eval()
    with torch.no_grad():
        losses = [model.loss(blobs(8), None)[0].item() for _ in range(2)]
        other = model.loss(blobs(8, step=1), None)[0].item()
    assert losses[0] == losses[1] != other  # each batch has views of its own, always the same ones
    assert torch.equal(random, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Flat(nn.Module):
    """A linear encoder, whose batch norm of no kind the shuffling could touch."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(vectors(3, 16, seed=seed))

    def forward(self, views: Tensor) -> Tensor:
        return views.flatten(1) @ self.weight.T


def test_queue_and_key_encoder_over_several_steps_equal_naive_lists(
    moco: MoCo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps of four keys through a queue of ten: it is passed round twice, across its end."""
    moco.objective = MoCoObjective(queue=10, key_momentum=0.8, temperature=0.2)
    moco.image_encoder, moco.key_encoder = Flat(0), Flat(0)  # type: ignore[assignment]
    moco.head, moco.key_head = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    moco.queue_KD = nn.functional.normalize(vectors(10, 3, seed=9), dim=1)
    inputs = [(vectors(4, 1, 4, 4, seed=10 + n), vectors(4, 1, 4, 4, seed=20 + n)) for n in range(6)]
    optimiser = torch.optim.SGD(moco.image_encoder.parameters(), lr=0.5, momentum=0.9)
    follower = moco.image_encoder.weight.tolist()
    queue = list(moco.queue_KD.clone())
    for step, (one, other) in enumerate(inputs):
        leader = moco.image_encoder.weight.tolist()
        monkeypatch.setattr(moco, "two_views", lambda batch, generator, views=(one, other): views)
        loss, figures = moco.loss(blobs(4), torch.Generator().manual_seed(step))
        for row in range(3):
            for column in range(16):
                follower[row][column] = 0.8 * follower[row][column] + 0.2 * leader[row][column]
        query = [[sum(w * x for w, x in zip(r, v.flatten().tolist(), strict=True)) for r in leader] for v in one]
        keys = [[sum(w * x for w, x in zip(r, v.flatten().tolist(), strict=True)) for r in follower] for v in other]
        expected = naive_queue(*(torch.tensor(x, dtype=torch.float64) for x in (query, keys)), queue, 0.2)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-9), step
        assert 0 <= figures["own_key_nearest"] <= 1
        for key in keys:
            queue = [*queue[1:], torch.tensor(key, dtype=torch.float64) / math.sqrt(sum(x * x for x in key))]
        torch.testing.assert_close(moco.key_encoder.weight.tolist(), follower)
        in_order = torch.cat([moco.queue_KD[int(moco.oldest) :], moco.queue_KD[: int(moco.oldest)]])
        torch.testing.assert_close(in_order, torch.stack(queue))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def test_the_key_encoder_begins_equal_and_only_follows(moco: MoCo) -> None:
    names = set(moco.parameters_to_train())
    assert names == {n for n, _ in moco.named_parameters() if n.startswith(("image_encoder.", "head."))}
    for leader, follower in ((moco.image_encoder, moco.key_encoder), (moco.head, moco.key_head)):
        assert all(torch.equal(a, b) for a, b in zip(leader.parameters(), follower.parameters(), strict=True))
    loss, _ = moco.train().loss(blobs(8), torch.Generator())
    loss.backward()
    assert all(p.grad is None for p in [*moco.key_encoder.parameters(), *moco.key_head.parameters()])
    assert all(p.grad is not None for p in moco.parameters_to_train().values())


def test_groups_have_a_batch_norm_each_and_the_keys_are_shuffled(moco: MoCo, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = blobs(8)
    seen: dict[str, list[Tensor]] = {"query": [], "key": []}
    for name, encoder in (("query", moco.image_encoder), ("key", moco.key_encoder)):
        encoder.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0].clone()))
    moco.train().loss(batch, torch.Generator().manual_seed(1))
    one, other = moco.two_views(batch, torch.Generator().manual_seed(1))
    assert [len(x) for x in seen["query"] + seen["key"]] == [4] * 4
    assert torch.equal(torch.cat(seen["query"]), one)
    keys = torch.cat(seen["key"])
    places = [next(i for i in range(8) if torch.equal(key, other[i])) for key in keys]
    assert sorted(places) == list(range(8))
    assert set(places[:4]) != set(range(4))


def test_a_queue_shorter_than_a_batch_is_refused(tiny_config: MakeConfig) -> None:
    with pytest.raises(InputError, match=r"objective\.queue 7 is shorter than a batch of 8"):
        MoCo(image_config(tiny_config, "moco", queue=7))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TwoViewsObjective, {"temperature": 0.0}),
        (MoCoObjective, {"temperature": math.inf}),
        (MoCoObjective, {"queue": 0}),
        (MoCoObjective, {"key_momentum": 1.0}),
        (MoCoObjective, {"norm_groups": 0}),
    ],
)
def test_senseless_constants_are_refused(kind: type, values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"objective.{next(iter(values))} must"):
        kind(**values)


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_method_is_rebuilt_from_its_folder_alone(tiny_config: MakeConfig, tmp_path: Path, method: str) -> None:
    config = image_config(tiny_config, method)
    model = METHODS[method](config)
    model.train().loss(blobs(8), torch.Generator())
    model.save_architecture(tmp_path)
    moved = replace(config, image_encoder=replace(config.image_encoder, weights="package:gone"))
    again = METHODS[method](moved, folder=tmp_path)
    again.load_state_dict(model.state_dict())
    for generator in (None, torch.Generator().manual_seed(4)):
        state = None if generator is None else generator.get_state()
        expected = model.loss(blobs(8), generator)[0]
        if generator is not None and state is not None:
            generator.set_state(state)
        assert torch.equal(again.loss(blobs(8), generator)[0], expected)
    assert all(torch.equal(v, again.state_dict()[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("method", ["simclr", "moco"])
def test_a_run_goes_on_bit_for_bit_by_the_command(
    tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path, method: str
) -> None:
    """Queue, key encoder and momentum come back; the rate decays by epochs in both."""
    kind = {"simclr": "adamw", "moco": "sgd"}[method]
    rates = OptimiserConfig(kind=kind, learning_rate=0.01, batch_size=8, decay_epochs=(0.6, 1.4))  # type: ignore[arg-type]
    rule = ValidationConfig(every=3, pairs=16, max_evaluations=4)
    config = replace(image_config(tiny_config, method), optimiser=rates, validation=rule)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(replace(config, max_steps=9), tiny_corpus, whole)
    pretrain(replace(config, max_steps=6), tiny_corpus, parts)
    pretrain(replace(config, max_steps=9), tiny_corpus, parts, resume=True)
    for file in ("last/model.safetensors", "last/optimiser.safetensors", "best/model.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    used = [row["learning_rate"] for row in read_log(whole) if row["event"] == "step"]
    assert used == pytest.approx([1e-2] * 3 + [1e-3] * 4 + [1e-4] * 2)  # five steps an epoch
    model = load(whole)
    assert (model.text_dim, model.shared_dim) == (None, None)
    assert model.encode_image(np.zeros((40, 40), np.uint8), space="features").shape == (1, model.image_dim)


def test_a_run_ends_after_so_many_epochs(tiny_config: MakeConfig, tiny_corpus: Path, tmp_path: Path) -> None:
    config = replace(image_config(tiny_config, "simclr"), max_steps=None, max_epochs=2)
    out = pretrain(config, tiny_corpus, tmp_path / "run")
    assert json.loads((out / "metrics.json").read_text())["steps"] == 10


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_of_sgd_are_the_textbooks(steps: int, momentum: float) -> None:
    """v <- mu v + g + lambda w; w <- w - rate v."""
    method = nn.Linear(1, 1, bias=False)
    method.parameter_groups = lambda: [  # type: ignore[assignment, method-assign]
        ParameterGroup(parameters=dict(method.named_parameters()), rate_share=1.0, decays=True)
    ]
    with torch.no_grad():
        method.weight.fill_(2.0)
    config = OptimiserConfig(kind="sgd", learning_rate=0.1, momentum=momentum, weight_decay=0.01)
    optimiser = build_optimiser(method, config)  # type: ignore[arg-type]
    weight, velocity = 2.0, 0.0
    for _ in range(steps):
        method.weight.grad = torch.full((1, 1), 3.0)
        optimiser.step()
        velocity = momentum * velocity + 3.0 + 0.01 * weight
        weight -= 0.1 * velocity
    assert method.weight.item() == pytest.approx(weight, rel=1e-6)


# Overfitting: 64 images, at least 90 % of the gap to the floor in 300 steps

NEARLY_THE_SAME = TransformConfig(
    size=32, crop=(0.9, 1.0), flip=0, degrees=0, translate=0, scale=(1, 1), brightness=(0.9, 1.1), contrast=(0.9, 1.1),
    blur_sigma=(0, 0), blur_kernel=3,
)  # fmt: skip


def overfit(model: SimCLR | MoCo, steps: int, batch: int) -> list[float]:
    """Training losses on 64 images, all visited once before any is visited again."""
    optimiser = build_optimiser(model, model.config.optimiser)
    whole, losses = blobs(64), []
    for step in range(steps):
        rows = torch.arange(64).roll(-step * batch)[:batch]
        part = replace(whole, images_B1SS=whole.images_B1SS[rows], sentences=["."] * batch)
        loss, _ = model.train().loss(part, torch.Generator().manual_seed(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_simclr_overfits(tiny_config: MakeConfig) -> None:
    """A bound that no encoder can pass: of N pairs of unit vectors with sum S, |S|^2 >= 0.

    So the mean cosine n of strangers is at least -(1 + p) / (2N - 2), where p is that of the pairs. The loss is convex
    in the differences of cosines, and by Jensen's inequality at least log(1 + (2N - 2) exp((n - p) / tau)); p = 1 is
    best.
    """
    count, tau = 32, 0.1
    config = image_config(tiny_config, "simclr")
    config = replace(config, transform=NEARLY_THE_SAME, optimiser=OptimiserConfig(learning_rate=3e-3, batch_size=count))
    floor = math.log(1 + (2 * count - 2) * math.exp((-1 / (count - 1) - 1) / tau))
    losses = overfit(SimCLR(config), 150, count)
    first, last = losses[0], sum(losses[-4:]) / 4
    assert floor < last < first - 0.9 * (first - floor), (floor, first, last)


def test_moco_overfits(tiny_config: MakeConfig) -> None:
    """Of 64 images in two batches of 32, a queue of 128 holds two earlier keys of each image: false negatives.

    Were the keys to hold still, a query would be as near to those as to its own key, and to the other 126 at the
    least mean cosine of 64 unit vectors, -1/63: the floor is log(1 + 2 + 126 exp((-1/63 - 1) / tau)), about log 3.
    Keys that drift can be told from their own past, so that a loss may come to lie a little below it.
    """
    count, tau, queue = 32, 0.07, 128
    config = image_config(tiny_config, "moco", queue=queue, key_momentum=0.97)
    rates = OptimiserConfig(kind="sgd", learning_rate=0.03, batch_size=count)
    floor = math.log(1 + 2 + 126 * math.exp((-1 / 63 - 1) / tau))
    losses = overfit(MoCo(replace(config, transform=NEARLY_THE_SAME, optimiser=rates)), 150, count)
    # Random vectors are easy negatives: the first loss is the one against the first full queue of keys.
    first, last = losses[queue // count], sum(losses[-8:]) / 8
    assert floor / 2 < last < first - 0.9 * (first - floor), (floor, first, last)
