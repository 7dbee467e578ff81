"""The door that is left open: a method with a fusion encoder, two losses and momentum copies needs no change elsewhere.

The toy is a sketch of ALBEF (Li et al. 2021): contrast before fusion, against targets of a momentum copy and a queue;
matching after it. docs/decisions.md describes it.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt import load
from convirt.config import OBJECTIVES, Objective, PretrainConfig, ProjectionConfig, ValidationConfig
from convirt.data.corpora import Corpus
from convirt.methods import METHODS
from convirt.methods.base import ParameterGroup
from convirt.methods.two_towers import TwoTowers
from convirt.objectives import binary_pair_loss, draw_fakes
from convirt.training.plan import count_parameters
from convirt.training.pretrain import pretrain

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch

QUEUE, MOMENTUM, TEMPERATURE = 24, 0.9, 0.1


@dataclass(frozen=True, kw_only=True)
class FusionObjective(Objective):
    """Constants of the toy."""

    matching: float = 0.5
    """Share of the matching loss."""


class Fusion(TwoTowers):
    """Two towers, a transformer that fuses them, and slow copies of the towers that give targets."""

    queue_QD: Tensor

    title = "Fusion"
    objective_class = FusionObjective
    objective: FusionObjective

    def build(self, folder: Path | None, corpus: Any) -> None:
        super().build(folder, corpus)
        config = self.config
        dim = self.text_encoder.dim
        self.fusion = nn.TransformerDecoderLayer(dim, 2, 32, dropout=0.1, batch_first=True)
        self.to_fusion = nn.Linear(self.image_encoder.grid_dim, dim)
        self.matching = nn.Linear(dim, 1)
        self.slow = nn.ModuleDict(
            {name: copy.deepcopy(getattr(self, name)) for name in ("image_encoder", "image_projection")}
        ).requires_grad_(False)
        generator = torch.Generator().manual_seed(config.seed)
        start_QD = F.normalize(torch.randn(QUEUE, config.projection.dim, generator=generator), dim=1)
        self.register_buffer("queue_QD", start_QD)

    def train(self, mode: bool = True) -> "Fusion":
        """Set training mode; the slow copies stay in evaluation mode."""
        super().train(mode)
        self.slow.eval()
        return self

    def parameter_groups(self) -> list[ParameterGroup]:
        """The fusion encoder starts from nothing and learns ten times as fast."""
        groups = super().parameter_groups()
        fast = {name: p for group in groups for name, p in group.parameters.items() if name.startswith("fusion.")}
        rest = [replace(g, parameters={n: p for n, p in g.parameters.items() if n not in fast}) for g in groups]
        return [*rest, ParameterGroup(parameters=fast, rate_share=10.0)]

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        objective = self.objective
        if generator is not None:
            self._follow()
        views = self.draw_views(batch.images_B1SS, generator)
        tokens = self.text_encoder.tokenize(batch.sentences)
        states_BTD = self.text_encoder.model(**tokens).last_hidden_state
        u_BD = F.normalize(self.text_projection(self.text_encoder(tokens)), dim=1)
        with torch.no_grad():
            slow_BD = F.normalize(self.slow["image_projection"](self.slow["image_encoder"](views)), dim=1)
        logits_BN = u_BD @ torch.cat([slow_BD, self.queue_QD.clone()]).T / TEMPERATURE
        contrast = F.cross_entropy(logits_BN, torch.arange(len(batch)))
        grid_BPD = self.to_fusion(self.image_encoder.grid(views).flatten(2).transpose(1, 2))
        fakes_B = draw_fakes(batch.sentences, generator or torch.Generator().manual_seed(batch.step))
        logits = [self.matching(self.fusion(text, grid_BPD)[:, 0])[:, 0] for text in (states_BTD, states_BTD[fakes_B])]
        matching = binary_pair_loss(*logits)
        if generator is not None:
            self.queue_QD = torch.cat([slow_BD, self.queue_QD])[:QUEUE]
        total = (1 - objective.matching) * contrast + objective.matching * matching
        return total, {"contrast": contrast.item(), "matching": matching.item()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the slow copies a step towards the towers."""
        for name, copied in self.slow.items():
            own = getattr(self, name).state_dict()
            for key, tensor in copied.state_dict().items():
                if tensor.is_floating_point():
                    tensor.lerp_(own[key], 1 - MOMENTUM)


@pytest.fixture
def config(tiny_config: Callable[..., PretrainConfig], monkeypatch: pytest.MonkeyPatch) -> PretrainConfig:
    monkeypatch.setitem(METHODS, "fusion", Fusion)
    monkeypatch.setitem(OBJECTIVES, "fusion", FusionObjective)
    rule = ValidationConfig(every=4, pairs=16, patience=1)
    base = tiny_config(validation=rule, max_steps=8, projection=ProjectionConfig(dim=16))
    return replace(base, method="fusion", objective=FusionObjective())


def test_it_is_trained_resumed_bit_for_bit_and_loaded(
    config: PretrainConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    whole = pretrain(config, tiny_corpus, tmp_path / "whole")
    parts = pretrain(replace(config, max_steps=4), tiny_corpus, tmp_path / "parts")
    pretrain(config, tiny_corpus, parts, resume=True)
    for file in ("last/model.safetensors", "last/optimiser.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    model = load(whole)
    images = [np.zeros((32, 40), dtype=np.uint8)] * 2
    assert (model.encode_image(images) @ model.encode_text(["disc seen ."]).T).shape == (2, 1)


def test_momentum_queue_and_both_losses_do_their_part(config: PretrainConfig, tiny_corpus: Path) -> None:
    method = Fusion(config).train()
    trained = method.parameters_to_train()
    assert not any(name.startswith("slow.") for name in trained)
    assert sorted(name for group in method.parameter_groups() for name in group.parameters) == sorted(trained)
    assert {group.rate_share for group in method.parameter_groups()} == {1.0, 10.0}
    assert count_parameters(method)["slow"][0] == 0
    batch = Fusion.training_batches(Corpus.open(tiny_corpus), config)[0]
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    method.eval().loss(batch, None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    loss, figures = method.train().loss(batch, torch.Generator())
    loss.backward()
    assert loss.item() == pytest.approx((figures["contrast"] + figures["matching"]) / 2)
    assert all(parameter.grad is not None for name, parameter in trained.items() if "image_projection" not in name)
    assert not torch.equal(method.queue_QD, before["queue_QD"])
