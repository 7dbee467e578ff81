"""The in-domain text encoder: masked language modelling on a corpus' reports (ConVIRT, appendix A; Devlin et al. 2019).

Shapes: B reports in the batch, T word pieces of the longest, D size of a token's vector, V size of the vocabulary, M
hidden pieces.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt.config import PretrainConfig
from convirt.data.loading.loader import Batch, TrainingBatches, ValidationBatches
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.errors import InputError
from convirt.methods.base import Method
from convirt.objectives import hide_pieces, masked_language_loss
from convirt.recipes.image_and_text import MaskedLanguageObjective


class VocabularyHead(nn.Module):
    """From the vectors of hidden pieces to the pieces, by BERT's head, its output tied to the input embedding."""

    def __init__(self, dim: int, vocabulary: int, spread: float) -> None:
        super().__init__()
        linear = nn.Linear(dim, dim)
        nn.init.normal_(linear.weight, std=spread)
        nn.init.zeros_(linear.bias)
        self.transform = nn.Sequential(linear, nn.GELU(), nn.LayerNorm(dim))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, states_MD: Tensor, embedding_VD: Tensor) -> Tensor:
        """Logits_MV."""
        return F.linear(self.transform(states_MD), embedding_VD, self.bias)


class MaskedLanguageModel(Method):
    """A text encoder that is trained further to name hidden word pieces of reports; there are no images.

    All its layers and embeddings train. The head is new, also where the source has one, and is of no further use: the
    checkpoint's text encoder is what `text_encoder.source` of another method takes.
    """

    image_encoder = None

    title = "Masked language model"
    has_image_encoder = False
    objective_class = MaskedLanguageObjective
    objective: MaskedLanguageObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build the text encoder and the head.

        Raises:
            InputError: A part of the text encoder would be frozen, or its tokenizer has no mask.
        """
        config = self.config
        if config.text_encoder.frozen_layers or config.text_encoder.freeze_embeddings:
            raise InputError(
                "masked_language_model trains the whole text encoder; "
                "give --text-encoder.frozen-layers 0 and --text-encoder.no-freeze-embeddings"
            )
        self.text_encoder = self.initial_text_encoder(folder)
        self.tokenizer = self.text_encoder.tokenizer
        if self.tokenizer.mask_token_id is None or not self.tokenizer.is_fast:
            raise InputError(
                f"text_encoder.source {config.text_encoder.source!r}: its tokenizer has no mask, or cannot cut texts "
                "into stretches; take a BERT with a fast tokenizer"
            )
        with self.seeded("vocabulary head"):
            spread = getattr(self.text_encoder.model.config, "initializer_range", 0.02)
            self.head = VocabularyHead(self.text_encoder.dim, self.embedding.num_embeddings, spread)

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: not on gains and biases (google-research/bert)."""
        return parameter.ndim > 1

    @classmethod
    def training_batches(cls, corpus: AnyCorpus, config: PretrainConfig) -> TrainingBatches:
        """Batches of reports; no image is decoded."""
        batches = super().training_batches(corpus, config)
        batches.with_images = False
        return batches

    @classmethod
    def validation_batches(cls, corpus: AnyCorpus, config: PretrainConfig) -> ValidationBatches:
        """Fixed batches of reports; no image is decoded."""
        batches = super().validation_batches(corpus, config)
        batches.with_images = False
        return batches

    @property
    def embedding(self) -> nn.Embedding:
        """The vectors of word pieces, a part of the text encoder."""
        return self.text_encoder.model.get_input_embeddings()

    def tokenize(self, reports: list[tuple[str, ...]], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Word pieces of reports; of one longer than `max_tokens` a stretch of that length, drawn at random.

        Returns:
            Pieces, which of them are real, and which are words (not special), [B, T] each, on the CPU.
        """
        tokens = self.tokenizer(
            [" ".join(report) for report in reports],
            padding=True,
            truncation=True,
            max_length=self.text_encoder.max_tokens,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            return_tensors="pt",
        )
        first = torch.searchsorted(tokens["overflow_to_sample_mapping"], torch.arange(len(reports) + 1))
        stretch_B = first[:-1] + (torch.rand(len(reports), generator=generator) * first.diff()).long()
        real_BT = tokens["attention_mask"][stretch_B]
        longest = int(real_BT.sum(dim=1).max())
        real_BT = real_BT[:, :longest].bool()
        words_BT = real_BT & ~tokens["special_tokens_mask"][stretch_B, :longest].bool()
        return tokens["input_ids"][stretch_B, :longest], real_BT, words_BT

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The cross-entropy of hidden word pieces of the batch's reports (see `Method.loss`).

        Returns:
            The scalar loss, and `accuracy` (how often the likeliest piece is the hidden one).
        """
        if generator is None:  # what is hidden in a validation batch is always the same
            generator = torch.Generator().manual_seed(derive_seed(self.config.seed, batch.step, "validation masks"))
        pieces_BT, real_BT, words_BT = self.tokenize(batch.reports, generator)
        hidden_BT, chosen_BT = hide_pieces(
            pieces_BT,
            words_BT,
            share=self.objective.share,
            mask=self.tokenizer.mask_token_id,
            vocabulary=self.embedding.num_embeddings,
            generator=generator,
        )
        states_BTD = self.text_encoder.model(
            input_ids=hidden_BT.to(self.device), attention_mask=real_BT.long().to(self.device)
        ).last_hidden_state
        logits_MV = self.head(states_BTD[chosen_BT.to(self.device)], self.embedding.weight)
        pieces_M = pieces_BT[chosen_BT].to(self.device)
        accuracy = (logits_MV.argmax(dim=1) == pieces_M).float().mean().item()
        return masked_language_loss(logits_MV, pieces_M), {"accuracy": accuracy}
