"""What every pretraining method has in common: the trainer knows nothing else of a method.

Shapes: B pairs in the batch, S side of the prepared images, R side of the views, D size of a feature.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from convirt import transforms
from convirt.config import Objective, PretrainConfig
from convirt.data.loading.loader import Batch, TrainingBatches, ValidationBatches
from convirt.data.records import AnyCorpus
from convirt.data.splits import derive_seed
from convirt.encoders import (
    ImageEncoder,
    TextEncoder,
    build_image_encoder,
    build_text_encoder,
    load_image_encoder,
    load_text_encoder,
)


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """The figure of `Method.evaluate` that chooses the best checkpoint and steers the learning rate."""

    name: str
    """Its key."""
    higher_is_better: bool


LOSS = Criterion(name="loss", higher_is_better=False)


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters that are trained alike."""

    parameters: dict[str, nn.Parameter]
    """By their names in the method."""
    rate_share: float = 1.0
    """Their learning rate as a part of the run's."""
    decays: bool = True
    """Whether weight decay acts on them."""


class Method(nn.Module):
    """A pretraining method: a loss over batches, and the image encoder that it leaves behind.

    A subclass defines `title`, `objective_class`, `build` and `loss`, and is entered in `convirt.methods.METHODS`.
    Whatever else it learns or remembers (momentum encoders, queues, decoders) lies in its modules and buffers, so that
    a run resumes bit for bit.
    """

    title: ClassVar[str]
    """Its name in tables and figures."""
    objective_class: ClassVar[type[Objective]]
    """The constants of its equations, a dataclass of settings."""
    criterion: ClassVar[Criterion] = LOSS
    has_image_encoder: ClassVar[bool] = True
    """Whether it leaves an image encoder behind; False for a method that trains a text encoder alone."""

    image_encoder: ImageEncoder | None
    """f_v, what pretraining is for; None for a method that trains a text encoder alone."""
    objective: Objective

    def __init__(
        self,
        config: PretrainConfig,
        *,
        folder: Path | None = None,
        corpus: AnyCorpus | None = None,
    ) -> None:
        """Build every module.

        Args:
            config: The run's configuration.
            folder: A checkpoint folder whose architecture files to build from, instead of reading initial weights; its
                state dict is yet to be loaded.
            corpus: The corpus of a run that starts, for what has to be learnt from it first, such as a vocabulary;
                that then belongs to what `save_architecture` writes.

        Raises:
            InputError: The configuration does not suit the method, or a source of its parts cannot be read.
        """
        super().__init__()
        assert isinstance(config.objective, self.objective_class)
        self.config = config
        self.objective = config.objective
        self.build(folder, corpus)

    def build(self, folder: Path | None, corpus: AnyCorpus | None) -> None:
        """Add the modules and buffers to the method (see `__init__`)."""
        raise NotImplementedError

    def initial_image_encoder(self, folder: Path | None) -> ImageEncoder:
        """f_v with its initial weights, or the architecture that a checkpoint folder holds."""
        if folder is not None:
            return load_image_encoder(folder)
        return build_image_encoder(self.config.image_encoder, seed=derive_seed(self.config.seed, "image encoder"))

    def initial_text_encoder(self, folder: Path | None) -> TextEncoder:
        """f_u with its initial weights, or the architecture that a checkpoint folder holds."""
        if folder is not None:
            return load_text_encoder(folder, self.config.text_encoder)
        return build_text_encoder(self.config.text_encoder, seed=derive_seed(self.config.seed, "text encoder"))

    @contextmanager
    def seeded(self, part: str) -> Iterator[None]:
        """Draw initial weights as a function of the run's seed and the part's name alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.config.seed, part))
            yield

    @classmethod
    def inference_parts(cls, config: PretrainConfig, folder: Path, held: Collection[str]) -> dict[str, nn.Module]:
        """The parts that a model at work needs, their weights yet to be loaded; `convirt.model.Model` takes them.

        Args:
            config: The configuration of the run.
            folder: The checkpoint folder.
            held: Names of the parts that are wanted and that the checkpoint holds weights of; a fine-tuned encoder's
                holds no projections.
        """
        parts: dict[str, nn.Module] = {}
        if "image_encoder" in held:
            parts["image_encoder"] = load_image_encoder(folder)
        if "text_encoder" in held:
            parts["text_encoder"] = load_text_encoder(folder, config.text_encoder)
        return parts

    @classmethod
    def training_batches(cls, corpus: AnyCorpus, config: PretrainConfig) -> TrainingBatches:
        """The batches that `loss` is given in training."""
        return TrainingBatches(corpus, config.optimiser.batch_size, config.seed)

    @classmethod
    def validation_batches(cls, corpus: AnyCorpus, config: PretrainConfig) -> ValidationBatches:
        """The fixed batches that `evaluate` is given."""
        return ValidationBatches(corpus, "val", config.validation.pairs, config.optimiser.batch_size, config.seed)

    @abstractmethod
    def loss(self, batch: Batch, generator: torch.Generator | None) -> tuple[Tensor, dict[str, float]]:
        """The loss of one batch.

        Args:
            batch: Prepared images and sentences.
            generator: CPU generator that the augmentation draws from; None means validation, with no augmentation and
                no change of any buffer.

        Returns:
            The scalar loss, and further scalars to log.
        """

    def evaluate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures of the validation batches, in evaluation mode and without gradients; one is the criterion's.

        Returns:
            `loss`, the mean over the batches, nats.
        """
        losses = [float(self.loss(batch, None)[0]) for batch in batches]
        return {"loss": sum(losses) / len(losses)}

    def save_architecture(self, folder: Path) -> None:
        """Write into `folder` all that building from it needs besides the configuration: here that of the encoders."""
        for name in ("image_encoder", "text_encoder"):
            if (encoder := getattr(self, name, None)) is not None:
                encoder.save_architecture(folder)

    def draw_views(self, images_B1SS: Tensor, generator: torch.Generator | None) -> Tensor:
        """Views t_v(x_v) on the method's device, images_B1RR in [0, 1]; whole images when the generator is None."""
        config = self.config.transform
        images_B1SS = images_B1SS.to(self.device)
        if generator is None:
            return transforms.plain_view(images_B1SS, config.size)
        parameters = transforms.draw_parameters(config, len(images_B1SS), images_B1SS.shape[-1], generator)
        return transforms.apply(images_B1SS, parameters, config)

    def parameters_to_train(self) -> dict[str, nn.Parameter]:
        """Name and tensor of each trained parameter: exactly what the optimiser gets."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def parameter_groups(self) -> list[ParameterGroup]:
        """How the trained parameters share learning rates and weight decay; together they are all of them.

        The text encoder has the learning rate that the configuration gives it; weight decay acts where `decays` says.
        """
        optimiser = self.config.optimiser
        text_share = (
            1.0 if optimiser.text_learning_rate is None else optimiser.text_learning_rate / optimiser.learning_rate
        )
        members: dict[tuple[float, bool], dict[str, nn.Parameter]] = {}
        for name, parameter in self.parameters_to_train().items():
            share = text_share if name.startswith("text_encoder.") else 1.0
            members.setdefault((share, self.decays(name, parameter)), {})[name] = parameter
        return [
            ParameterGroup(parameters=parameters, rate_share=share, decays=decays)
            for (share, decays), parameters in members.items()
        ]

    def decays(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay acts on a parameter: here on all (ConVIRT, appendix A, excepts none)."""
        return True

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return next(self.parameters()).device


def encode_views(encoder: Callable[[Tensor], Tensor], images_B1RR: Tensor) -> Tensor:
    """What an image encoder, or a part of it, makes of views; on a CPU in float32: convolutions in bf16 are slower."""
    if images_B1RR.is_cuda:
        return encoder(images_B1RR)
    with torch.autocast("cpu", enabled=False):
        return encoder(images_B1RR)


def encode_sentences(encoder: TextEncoder, sentences: list[str], device: torch.device) -> Tensor:
    """Features h_BD of sentences."""
    return encoder({name: tensor.to(device) for name, tensor in encoder.tokenize(sentences).items()})
