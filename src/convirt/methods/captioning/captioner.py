"""The two captioning baselines (ConVIRT, section 3.3): an image encoder that has to say the report.

Shapes: B pairs in the batch, R side of the views, D H W the image encoder's last feature map, T words of the longest
report, V words known.
"""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt.cider import cider_d
from convirt.data.loading.loader import Batch
from convirt.data.records import AnyCorpus
from convirt.encoders import ImageEncoder
from convirt.methods.base import Criterion, Method, encode_views
from convirt.methods.captioning.attention_lstm import AttentionLSTM, attention_penalty
from convirt.methods.captioning.decoding import Decoder, beam_search
from convirt.methods.captioning.meshed_transformer import MeshedMemoryTransformer
from convirt.methods.captioning.vocabulary import PAD, Vocabulary, report_words
from convirt.recipes.captioning import AttentionLSTMObjective, CaptioningObjective, MeshedTransformerObjective


class Captioner(Method):
    """An image encoder and a decoder that says the whole report of the image, word by word.

    A subclass builds the decoder and scores it. The best checkpoint is the one with the highest CIDEr-D of beam
    searched reports on validation pairs (section 3.3).
    """

    image_encoder: ImageEncoder
    decoder: Decoder
    objective: CaptioningObjective
    criterion = Criterion(name="cider", higher_is_better=True)

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build every module; a run that starts takes its vocabulary from the corpus' training reports.

        Raises:
            ValueError: There is neither a folder nor a corpus.
            InputError: The training reports hold no word that is frequent enough, or the image encoder has no grid.
        """
        if folder is not None:
            self.vocabulary = Vocabulary.load(folder)
        elif corpus is not None:
            self.vocabulary = Vocabulary.of_reports(corpus.reports("train"), self.objective.min_count)
        else:
            raise ValueError("a captioner takes its vocabulary from a corpus or a checkpoint folder: give one of them")
        self.image_encoder = self.initial_image_encoder(folder)
        if folder is None:
            self._require_grid()
        with self.seeded("decoder"):
            self.decoder = self.build_decoder()

    @abstractmethod
    def build_decoder(self) -> Decoder:
        """The decoder with its initial weights."""

    @abstractmethod
    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of saying `targets_BT` from `inputs_BT`, and further scalars."""

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch's whole reports, nats a word (see `Method.loss`)."""
        return self._score(self.grid(batch.images_B1SS, generator), batch.reports)

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures of the validation batches.

        Returns:
            `loss`, the mean over the batches; `cider`, the mean CIDEr-D of the first `objective.decoded` pairs' beam
            searched reports, document frequencies from their own; `said_words`, the mean length of those.
        """
        losses: list[float] = []
        said: list[list[str]] = []
        written: list[list[list[str]]] = []
        for batch in batches:
            grid_BDHW = self.grid(batch.images_B1SS, None)
            losses.append(float(self._score(grid_BDHW, batch.reports)[0]))
            rows = min(len(batch), self.objective.decoded - len(said))
            if rows > 0:
                said += self.say(grid_BDHW[:rows])
                written += [[report_words(report)] for report in batch.reports[:rows]]
        return {
            "loss": sum(losses) / len(losses),
            "cider": sum(cider_d(said, written)) / len(said),
            "said_words": sum(map(len, said)) / len(said),
        }

    def grid(self, images_B1SS: Tensor, generator: torch.Generator | None) -> Tensor:
        """Feature maps of views of prepared images (see `Method.draw_views`), grid_BDHW."""
        return encode_views(self.image_encoder.grid, self.draw_views(images_B1SS, generator))

    def say(self, grid_BDHW: Tensor) -> list[list[str]]:
        """The words of each image's report, by beam search."""
        found = beam_search(self.decoder, grid_BDHW, width=self.objective.beam, max_words=self.objective.max_words)
        return [self.vocabulary.decode(numbers) for numbers in found]

    def save_architecture(self, folder: Path) -> None:
        """Write `image_encoder.json` and `vocabulary.json`."""
        super().save_architecture(folder)
        self.vocabulary.save(folder)

    @torch.no_grad()
    def _require_grid(self) -> None:
        """Refuse an image encoder without a spatial feature map before a run begins."""
        side = self.config.transform.size
        self.image_encoder.eval().grid(torch.zeros(1, 1, side, side))
        self.image_encoder.train()

    def _score(self, grid_BDHW: Tensor, reports: list[tuple[str, ...]]) -> tuple[Tensor, dict[str, float]]:
        inputs_BT, targets_BT = self.vocabulary.encode(reports, self.objective.max_words)
        return self.score(grid_BDHW, inputs_BT.to(grid_BDHW.device), targets_BT.to(grid_BDHW.device))


def word_loss(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """-log p of the reports' words, mean over all words of the batch, nats; padding does not count."""
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), targets_BT.flatten(), ignore_index=PAD)


class CaptionLSTM(Captioner):
    """The report from an LSTM with attention to the places of the feature map (Show, Attend and Tell, Xu et al.)."""

    title = "Caption-LSTM"
    objective_class = AttentionLSTMObjective
    objective: AttentionLSTMObjective
    decoder: AttentionLSTM

    def build_decoder(self) -> AttentionLSTM:
        """The decoder with its initial weights."""
        return AttentionLSTM(self.image_encoder.grid_dim, len(self.vocabulary), self.objective)

    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Equation 14 of Xu et al., summed over the batch and divided by its words.

        L = ( sum_reports -log P(y | x) + lambda sum_i (1 - sum_t alpha_ti)^2 ) / words

        Returns:
            L, with `cross_entropy` (nats a word) and `attention_penalty` (its second part, without lambda).
        """
        logits_BTV, alpha_BTL = self.decoder(grid_BDHW, inputs_BT)
        spoken_BT = targets_BT != PAD
        cross_entropy = word_loss(logits_BTV, targets_BT)
        penalty = attention_penalty(alpha_BTL, spoken_BT).sum() / spoken_BT.sum()
        figures = {"cross_entropy": float(cross_entropy.detach()), "attention_penalty": float(penalty.detach())}
        return cross_entropy + self.objective.attention_penalty * penalty, figures


class CaptionTransformer(Captioner):
    """The report from a Meshed-Memory Transformer over the places of the feature map (Cornia et al. 2020).

    Trained by cross-entropy alone. Cornia et al. then go on with self-critical training for CIDEr-D (section 3.3);
    ConVIRT says only that the model is trained to decode the report, and chooses a checkpoint by CIDEr.
    """

    title = "Caption-Transformer"
    objective_class = MeshedTransformerObjective
    objective: MeshedTransformerObjective

    def build_decoder(self) -> MeshedMemoryTransformer:
        """The decoder with its initial weights."""
        return MeshedMemoryTransformer(self.image_encoder.grid_dim, len(self.vocabulary), self.objective)

    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The mean cross-entropy of a word, nats."""
        return word_loss(self.decoder(grid_BDHW, inputs_BT), targets_BT), {}
