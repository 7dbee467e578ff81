"""What the two captioning baselines have in common (ConVIRT, section 3.3): an image encoder that has to say the report.

Shapes: B pairs in the batch, R side of the views, D H W the image encoder's last feature map, T words of the longest
report, V words known.
"""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt.cider import cider_d
from convirt.config import CaptioningObjective, PretrainConfig
from convirt.data.loading.loader import derive_seed
from convirt.encoders import ImageEncoder, build_image_encoder, load_image_encoder
from convirt.methods.base import Criterion, Method, encode_views
from convirt.methods.captioning.decoding import Decoder, beam_search
from convirt.methods.captioning.vocabulary import PAD, Vocabulary, report_words

if TYPE_CHECKING:
    from convirt.data.loading.loader import Batch
    from convirt.data.records import AnyCorpus


class Captioner(Method):
    """An image encoder and a decoder that says the whole report of the image, word by word.

    A subclass builds the decoder and scores it. The best checkpoint is the one with the highest CIDEr-D of beam
    searched reports on validation pairs (section 3.3).
    """

    image_encoder: ImageEncoder
    decoder: Decoder
    criterion = Criterion(name="cider", higher_is_better=True)

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: "AnyCorpus | None" = None,
    ) -> None:
        """Build every module; a run that starts takes its vocabulary from the corpus' training reports.

        Raises:
            ValueError: There is neither a folder nor a corpus.
            InputError: The training reports hold no word that is frequent enough, or the image encoder has no grid.
        """
        super().__init__(config, folder=folder)
        if folder is not None:
            self.vocabulary = Vocabulary.load(folder)
            self.image_encoder = load_image_encoder(folder)
        elif corpus is not None:
            self.vocabulary = Vocabulary.of_reports(corpus.reports("train"), self.objective.min_count)
            seed = derive_seed(config.seed, "image encoder")
            self.image_encoder = build_image_encoder(config.image_encoder, seed=seed)
            self._require_grid()
        else:
            raise ValueError("a captioner takes its vocabulary from a corpus or a checkpoint folder: give one of them")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(config.seed, "decoder"))
            self.decoder = self.build_decoder()

    @property
    def objective(self) -> CaptioningObjective:
        """The method's constants."""
        assert isinstance(self.config.objective, CaptioningObjective)
        return self.config.objective

    @abstractmethod
    def build_decoder(self) -> Decoder:
        """The decoder with its initial weights."""

    @abstractmethod
    def score(self, grid_BDHW: Tensor, inputs_BT: Tensor, targets_BT: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of saying `targets_BT` from `inputs_BT`, and further scalars."""

    def loss(self, batch: "Batch", generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch's whole reports, nats a word (see `Method.loss`)."""
        return self._score(self.grid(batch.images_B1SS, generator), batch.reports)

    def evaluate(self, batches: Iterable["Batch"]) -> dict[str, float]:
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
        self.image_encoder.save_architecture(folder)
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
