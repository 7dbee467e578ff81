"""Fine-tuning: the encoder and its head train together (ConVIRT, section 4.1 and appendix B).

The head trains alone first, on a frozen encoder in evaluation mode: these steps need the features once. Then
everything trains, batch norm by the statistics of the minibatch. Labels, order of rows, dropout, schedule, stopping and
choice of the checkpoint are those of linear evaluation. There is no augmentation: appendix B names none, and the two
settings then differ only in what trains.

Where several views of a study are pooled, a row is a study and its features are the mean over its images, in training
as at test: what linear evaluation does with frozen features.

Shape legend: N rows, B rows of a minibatch, V images of a minibatch, R side of the view, D features, C classes.
"""

import copy
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from convirt.data.splits import derive_seed
from convirt.encoders import ImageEncoder
from convirt.errors import InputError
from convirt.evaluation.inputs.images import Canvases, Encoder
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.inputs.units import Pooled
from convirt.evaluation.protocol import ClassificationProtocol, Outcome, Plateau, minibatches


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An image encoder that can be fine-tuned."""

    encoder: ImageEncoder
    size: int
    """Side of the views that it takes."""
    device: torch.device

    @classmethod
    def of(cls, model: Encoder) -> "Tower":
        """The image tower of a loaded model.

        Raises:
            InputError: It has none.
        """
        encoder = getattr(model, "image_encoder", None)
        if encoder is None:
            raise InputError(f"{model.name} has no image encoder that could be fine-tuned; give an image method's run")
        return cls(encoder=encoder, size=model.config.transform.size, device=model.device)  # type: ignore[attr-defined]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the architecture and the weights."""
        digest = hashlib.sha256(repr(self.encoder.architecture).encode())
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Views:
    """The images of a minibatch of rows, in [0, 1]."""

    images_V1RR: Tensor
    owner_V: Tensor | None = None
    """Row of the minibatch that each image belongs to; None where each is a row."""

    def mean(self, features_VD: Tensor) -> Tensor:
        """The mean [B, D] of what the images of each row have."""
        if self.owner_V is None:
            return features_VD
        counts_B = torch.bincount(self.owner_V)
        sums_BD = features_VD.new_zeros(len(counts_B), features_VD.shape[1]).index_add(0, self.owner_V, features_VD)
        return sums_BD / counts_B[:, None]


class Classifier(nn.Module):
    """An encoder, dropout, and a linear layer."""

    def __init__(self, encoder: ImageEncoder, classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = dropout
        self.head = nn.Linear(encoder.dim, classes)

    def forward(self, views: Views) -> Tensor:
        """Logits [B, C]."""
        return self.classify(self.features(views))

    def features(self, views: Views) -> Tensor:
        """Features [B, D]: of each row's image, or the mean over its images."""
        return views.mean(self.encoder(views.images_V1RR))

    def classify(self, features_BD: Tensor) -> Tensor:
        """Logits [B, C] of features."""
        return self.head(F.dropout(features_BD, self.dropout, self.training))


@dataclass(frozen=True, kw_only=True)
class Examples:
    """An encoder, and labelled images as it takes them."""

    tower: Tower
    canvases: Canvases
    pooled: Pooled
    """The table, and which images are one row of it where several views of a study are."""

    @property
    def table(self) -> LabelledTable:
        """Labels and splits."""
        return self.pooled.table

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> tuple[Views, Tensor]:
        """Views of B rows, and targets [B, C]."""
        targets_BC = torch.from_numpy(self.table.targets_NC[rows].astype(np.float32))
        return self.views(rows, device), targets_BC.to(device)

    def views(self, rows: NDArray[np.int64], device: torch.device) -> Views:
        """Every image of some rows."""
        if self.pooled.column is None:
            return Views(images_V1RR=self.canvases.views(self.tower.size, rows, device))
        members = [np.flatnonzero(self.pooled.index_N == row) for row in rows]
        owner_V = np.repeat(np.arange(len(rows)), [len(images) for images in members])
        images_V1RR = self.canvases.views(self.tower.size, np.concatenate(members), device)
        return Views(images_V1RR=images_V1RR, owner_V=torch.from_numpy(owner_V).to(device))


def classification_loss(logits_BC: Tensor, targets_BC: Tensor, multi_label: bool) -> Tensor:
    """Softmax cross-entropy, or sigmoid cross-entropy over the labels that are given."""
    if not multi_label:
        return F.cross_entropy(logits_BC, targets_BC)
    given = ~targets_BC.isnan()
    if not given.any():
        return (logits_BC * 0).sum()
    return F.binary_cross_entropy_with_logits(logits_BC[given], targets_BC[given])


class FineTuning:
    """One run of fine-tuning: one encoder, one subset of the training rows, one seed.

    Every draw is a function of the seed and the epoch or step alone. What it holds between two epochs is in `state`.
    """

    def __init__(
        self,
        examples: Examples,
        subset: NDArray[np.int64],
        seed: int,
        protocol: ClassificationProtocol,
    ) -> None:
        table, tower = examples.table, examples.tower
        self.examples, self.seed, self.protocol, self.device = examples, seed, protocol, tower.device
        self.train_rows, self.val_rows = table.rows("train")[subset], table.rows("val")
        schedule = protocol.schedule
        encoder = copy.deepcopy(tower.encoder).to(tower.device).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("head-initialisation", seed))
            self.classifier = Classifier(encoder, table.targets_NC.shape[1], schedule.dropout).to(tower.device)
        self.plateau = Plateau(1, schedule)
        self.adam: torch.optim.Adam | None = None
        self.epoch = self.step = 0
        self.best: dict[str, Tensor] = {}

    @property
    def done(self) -> bool:
        """Whether the schedule has ended."""
        limit = self.protocol.max_steps
        spent = limit is not None and self.step >= limit
        return spent or self.epoch >= self.protocol.schedule.max_epochs or not bool(self.plateau.active_S.any())

    def run(self, after_epoch: Callable[["FineTuning"], None] | None = None) -> None:
        """Train to the end of the schedule, and take the checkpoint that is best on validation.

        Raises:
            InputError: The loss is no longer finite, or validation cannot be scored.
        """
        with _reproducible(self.device):
            if self.adam is None:
                self.warm_up()
                self.adam = self.optimiser()
            while not self.done:
                self.run_epoch()
                if after_epoch is not None:
                    after_epoch(self)
        self.classifier.load_state_dict(self.best)

    def warm_up(self) -> None:
        """Train the head alone on the features of the frozen encoder."""
        classifier, protocol = self.classifier, self.protocol
        features_ND = self._features(self.train_rows)
        targets_NC = torch.from_numpy(self.examples.table.targets_NC[self.train_rows].astype(np.float32)).to(
            self.device
        )
        adam = torch.optim.Adam(
            classifier.head.parameters(), lr=protocol.warmup_rate, weight_decay=protocol.schedule.weight_decay
        )
        classifier.train()
        classifier.encoder.eval()
        for step, rows in zip(range(protocol.warmup_steps), self._rows_for_ever("warm-up"), strict=False):
            torch.manual_seed(derive_seed("fine-tuning", self.seed, "warm-up", step))
            loss = classification_loss(
                classifier.classify(features_ND[rows]), targets_NC[rows], self.examples.table.multi_label
            )
            adam.zero_grad()
            loss.backward()
            adam.step()

    def run_epoch(self) -> None:
        """One epoch of the whole network, and its validation."""
        assert self.adam is not None, "warmed up before"
        self.epoch += 1
        limit = self.protocol.max_steps or float("inf")
        for group in self.adam.param_groups:
            group["lr"] = float(self.plateau.rate_S[0])
        self.classifier.train()
        for rows in whole_minibatches(self._queue("epoch", self.epoch)):
            if self.step >= limit:
                break
            torch.manual_seed(derive_seed("fine-tuning", self.seed, "step", self.step))
            views, targets_BC = self.examples.batch(self.train_rows[rows], self.device)
            loss = classification_loss(self.classifier(views), targets_BC, self.examples.table.multi_label)
            if not torch.isfinite(loss):
                raise InputError(
                    f"fine-tuning: the loss is {loss.item()} at step {self.step}; lower --learning-rate, or check the "
                    "images"
                )
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            self.step += 1
        scores_NC = self.scores(self.val_rows)
        if self.plateau.update(self.epoch, scores_NC[None], self.examples.table.targets_NC[self.val_rows])[0]:
            self.best = {name: tensor.detach().clone() for name, tensor in self.classifier.state_dict().items()}

    @torch.inference_mode()
    def scores(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities [N, C] of some rows, in evaluation mode.

        Raises:
            InputError: One is not a number.
        """
        self.classifier.eval()
        logits_NC = torch.cat([self.classifier(views).float() for views in self._views(rows)])
        if not torch.isfinite(logits_NC).all():
            raise InputError("fine-tuning: a score is not a number; lower --learning-rate, or check the images")
        return (logits_NC.sigmoid() if self.examples.table.multi_label else logits_NC.softmax(-1)).cpu().numpy()

    def outcome(self) -> Outcome:
        """What the chosen checkpoint says."""
        selected: dict[str, Any] = {
            "epoch": int(self.plateau.epoch_S[0]),
            "validation_score": float(self.plateau.best_S[0]),
            "steps": self.step,
        }
        return Outcome(
            test_SNC=self.scores(self.examples.table.rows("test"))[None],
            val_SNC=self.scores(self.val_rows)[None],
            selected=[selected],
        )

    @torch.inference_mode()
    def _features(self, rows: NDArray[np.int64]) -> Tensor:
        self.classifier.eval()
        return torch.cat([self.classifier.features(views).float() for views in self._views(rows)]).clone()

    def _views(self, rows: NDArray[np.int64]) -> Iterator[Views]:
        for part in np.array_split(rows, -(-len(rows) // 128)):
            yield self.examples.views(part, self.device)

    def _queue(self, purpose: str, epoch: int) -> list[NDArray[np.int64]]:
        generator = np.random.default_rng(derive_seed("fine-tuning", self.seed, purpose, epoch))
        return minibatches(np.arange(len(self.train_rows)), generator, self.protocol.schedule)

    def _rows_for_ever(self, purpose: str) -> Iterator[NDArray[np.int64]]:
        epoch = 0
        while True:
            yield from self._queue(purpose, epoch)
            epoch += 1

    def optimiser(self) -> torch.optim.Adam:
        """Adam over everything, its moments new: they would be those of the frozen encoder's head alone."""
        schedule = self.protocol.schedule
        return torch.optim.Adam(
            self.classifier.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay, fused=True
        )


def whole_minibatches(queue: list[NDArray[np.int64]]) -> list[NDArray[np.int64]]:
    """Minibatches with one row joined to the one before: a single image has no statistics for batch norm."""
    joined: list[NDArray[np.int64]] = []
    for rows in queue:
        if len(rows) == 1 and joined:
            joined[-1] = np.concatenate([joined[-1], rows])
        else:
            joined.append(rows)
    return joined


@contextmanager
def _reproducible(device: torch.device) -> Iterator[None]:
    """The global random state is left as it was; convolutions on a GPU give the same result twice."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        yield


def fine_tune(examples: Examples, subset: NDArray[np.int64], seed: int, protocol: ClassificationProtocol) -> Outcome:
    """Fine-tune one encoder on one subset with one seed, and score the checkpoint that is best on validation.

    Args:
        examples: f_v, which is copied, not changed, and the images, labels and splits of every row of the table.
        subset: Positions among the training rows.
        seed: Draws the head's start, the order and the dropout.
        protocol: The constants.

    Raises:
        InputError: Training diverges, or validation cannot be scored.
    """
    tuning = FineTuning(examples, subset, seed, protocol)
    tuning.run()
    return tuning.outcome()
