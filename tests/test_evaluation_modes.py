"""What seeded faults have shown to be untested: who trains, which rows choose, and what a hidden piece is asked for."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from convirt.config import OBJECTIVES, ImageEncoderConfig, PretrainConfig, TransformConfig
from convirt.evaluation.calibration import choose_threshold, operating_rows, rates
from convirt.evaluation.finetuning import Examples, FineTuning, Tower
from convirt.evaluation.inputs.images import Canvases
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.inputs.units import Units, pool_views
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Rule
from convirt.evaluation.scoring import ScoredTask
from convirt.methods import MaskedLanguageModel
from convirt.model import baseline
from test_convirt_method import make_batch, make_sentences

SIZE = 32


def make_table(targets: list[float], splits: list[str], *, units: list[str] | None = None) -> LabelledTable:
    """A table of one label, each row of a patient of its own unless the rows have units."""
    count = len(targets)
    return LabelledTable(
        images=tuple(f"{i}.png" for i in range(count)),
        paths=(),
        patients_N=np.array(units or [f"p{i}" for i in range(count)]),
        splits_N=np.array(splits),
        classes=("abnormal",),
        targets_NC=np.array(targets)[:, None],
        multi_label=True,
        roles_N=np.full(count, ""),
        sha256="",
        units_N=None if units is None else np.array(units),
    )


def test_fine_tuning_trains_the_encoder_of_a_loaded_model():
    """A model is loaded for inference, so that its encoder is frozen; the copy that is fine-tuned must not be."""
    config = PretrainConfig(
        image_encoder=ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"),
        transform=TransformConfig(size=SIZE),
    )
    encoder = baseline("random", config, device="cpu").image_encoder
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    table = make_table([0.0, 1.0] * 8, ["train"] * 8 + ["val"] * 4 + ["test"] * 4)
    pixels = np.random.default_rng(0).integers(0, 256, (16, SIZE, SIZE), dtype=np.uint8)
    canvases = Canvases(by_size={SIZE: pixels}, sha256="", sides_N2=np.full((16, 2), SIZE))
    tower = Tower(encoder=encoder, size=SIZE, device=torch.device("cpu"))
    examples = Examples(tower=tower, canvases=canvases, pooled=pool_views(table, None))
    protocol = ClassificationProtocol(settings=("finetuned",), warmup_steps=1)
    tuning = FineTuning(examples, np.arange(8), 0, protocol)
    before = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
    tuning.adam = tuning.optimiser()
    tuning.run_epoch()
    trained = dict(tuning.classifier.encoder.named_parameters())
    assert all(not torch.equal(before[name], trained[name]) for name in before)
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.named_parameters())  # the model's own


def test_the_threshold_itself_is_positive():
    """Validation chooses t for `score >= t`, and test has to mean the same."""
    once = np.ones((4, 1))
    positive, scores = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.6, 0.6, 0.1])
    sensitivity, specificity = rates(positive, scores, 0.6, once)
    assert (sensitivity[0], specificity[0]) == (1.0, 0.5)
    chosen = choose_threshold(positive, scores, Rule(kind="sensitivity", target=1.0))
    assert chosen == 0.6
    assert rates(positive, scores, chosen, once)[0][0] == 1.0


@pytest.mark.parametrize("rule", [Rule(kind="youden"), Rule(kind="sensitivity", target=0.75)])
def test_operating_points_come_from_validation(rule: Rule):
    rng = np.random.default_rng(1)
    table = make_table([0.0, 1.0] * 60, ["train"] * 40 + ["val"] * 40 + ["test"] * 40)
    task = ScoredTask.of(table, seeds=2, resamples=20)
    targets = np.array([0.0, 1.0] * 20)
    val, test = ((0.5 * targets + rng.random((2, 40)) / 2).astype(np.float32)[:, :, None] for _ in range(2))
    rows = [
        operating_rows({"a": Outcome(test_SNC=scores, val_SNC=val, selected=[])}, task, [rule])[0]
        for scores in (test, test / 4, 1 - test)
    ]
    expected = [choose_threshold(targets, val[s, :, 0], rule) for s in range(2)]
    assert all(row["thresholds"] == expected for row in rows)
    for s, threshold in enumerate(expected):
        called = test[s, :, 0] >= threshold
        assert rows[0]["sensitivity"]["seeds"][s] == called[targets == 1].mean()
        assert rows[0]["specificity"]["seeds"][s] == (~called)[targets == 0].mean()


def test_a_unit_is_positive_where_any_of_its_images_is():
    """MURA: one abnormal study makes the patient abnormal; what is not known counts only where nothing is."""
    nan = np.nan
    units = Units.of(make_table([0, 1, 0, 0, nan, 0, nan, 1, nan], ["test"] * 9, units=list("aabbccdde")))
    np.testing.assert_array_equal(units.targets_UC[:, 0], [1, 0, 0, 1, nan])
    assert units.patients_U.tolist() == list("abcde")


def test_hidden_pieces_are_asked_for_as_they_were(tiny_config: Callable[..., PretrainConfig]):
    """Whatever stands in the place of a hidden piece, the loss is that of naming the one that stood there before."""
    config = tiny_config(method="masked_language_model", objective=OBJECTIVES["masked_language_model"](share=1.0))
    text_encoder = replace(config.text_encoder, frozen_layers=0, freeze_embeddings=False)
    method = MaskedLanguageModel(replace(config, text_encoder=text_encoder)).eval()
    batch = make_batch(make_sentences(4, 0))
    with torch.no_grad():
        method.head.bias.fill_(-30.0)
        pieces = {piece for sentence in batch.sentences for piece in method.tokenizer(sentence)["input_ids"]}
        method.head.bias[sorted(pieces - set(method.tokenizer.all_special_ids))] = 30.0
        loss, _ = method.loss(batch, torch.Generator().manual_seed(0))
    # Only true pieces are likely: to be asked for the mask, or a piece of no sentence, would cost about 60 nats.
    assert loss.item() < 10
