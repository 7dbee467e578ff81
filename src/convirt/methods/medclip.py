"""MedCLIP: images and texts that are not pairs, matched by what they are about (Wang et al. 2022).

Shapes: B images and B texts in the batch, C classes of findings, D size of the shared space.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from convirt.config import PretrainConfig
from convirt.data.findings import (
    FindingsLexicon,
    extract_findings,
    findings_vector,
    load_findings_lexicon,
    parse_findings_lexicon,
)
from convirt.data.loading.loader import Batch, DecoupledBatches, TrainingBatches
from convirt.data.records import AnyCorpus
from convirt.errors import InputError
from convirt.methods.two_towers import LearnedTemperatureTowers
from convirt.objectives import matching_entropy, semantic_matching_loss
from convirt.recipes.image_and_text import SemanticMatchingObjective

LEXICON = "findings.toml"


class MedCLIP(LearnedTemperatureTowers):
    """Two towers with linear projections and a learned temperature, drawn together by soft targets (section 3).

    What an image is about is extracted from its own report, what a text is about from the sentence alone.
    The paper is silent on weight decay; its authors' code spares biases and the gains of layer norms alone. Here it is
    as in CLIP.
    """

    title = "MedCLIP"
    objective_class = SemanticMatchingObjective
    objective: SemanticMatchingObjective

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Build both towers and the temperature; read the lexicon, which checkpoints keep.

        Raises:
            InputError: The projections are not linear, or the lexicon cannot be used.
        """
        if not self.config.projection.linear:
            raise InputError("medclip projects linearly (Wang et al. 2022, section 3.3); give --projection.linear")
        super().build(folder, corpus)
        self.lexicon = load_findings_lexicon(self.objective.lexicon) if folder is None else _kept_lexicon(folder)
        if not self.lexicon.no_finding:
            raise InputError(
                f"objective.lexicon {self.objective.lexicon}: set no_finding, the class of texts without pathology: "
                "without it a text may have no finding at all to be matched by"
            )

    @classmethod
    def training_batches(cls, corpus: AnyCorpus, config: PretrainConfig) -> TrainingBatches:
        """Batches whose images and sentences are drawn independently of each other (section 3.1)."""
        return DecoupledBatches(corpus, config.optimiser.batch_size, config.seed)

    def findings(self, reports: Iterable[Iterable[str]]) -> Tensor:
        """The multi-hot findings_BC of reports, given as their sentences, on the CPU."""
        vectors = [
            findings_vector(extract_findings(report, self.lexicon), uncertain=self.objective.uncertain)
            for report in reports
        ]
        return torch.from_numpy(np.stack(vectors))

    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The semantic matching loss of one batch (see `Method.loss`).

        Returns:
            The scalar loss, `target_entropy` (its least possible value, nats), `scale` (1 / tau), and `normal_images`
            and `normal_texts` (the shares without pathology).
        """
        _, v_BD = self.encode_image(self.draw_views(batch.images_B1SS, generator))
        _, u_BD = self.encode_text(batch.sentences)
        image_BC, text_BC = self.findings(batch.reports), self.findings([sentence] for sentence in batch.sentences)
        scale, sharpness = self.temperature(), self.objective.target_temperature
        loss = semantic_matching_loss(
            v_BD, u_BD, image_BC.to(self.device), text_BC.to(self.device), scale, target_temperature=sharpness
        )
        normal = self.lexicon.classes.index(self.lexicon.no_finding)
        return loss, {
            "target_entropy": matching_entropy(image_BC, text_BC, target_temperature=sharpness).item(),
            "scale": scale.item(),
            "normal_images": image_BC[:, normal].mean().item(),
            "normal_texts": text_BC[:, normal].mean().item(),
        }

    def save_architecture(self, folder: Path) -> None:
        """Write what both towers need, and `findings.toml`, the lexicon."""
        super().save_architecture(folder)
        (folder / LEXICON).write_text(self.lexicon.source, encoding="utf-8")


def _kept_lexicon(folder: Path) -> FindingsLexicon:
    path = folder / LEXICON
    try:
        return parse_findings_lexicon(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: not a checkpoint of medclip, or damaged") from error
