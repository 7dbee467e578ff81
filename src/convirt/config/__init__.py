"""Every setting of a run, as frozen dataclasses; the defaults are the paper's chest encoder."""

from convirt.config.objectives import OBJECTIVES, ContrastiveObjective, Objective
from convirt.config.parts import (
    ImageEncoderConfig,
    OptimiserConfig,
    ProjectionConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.config.pretraining import PretrainConfig
from convirt.config.reading import from_dict

__all__ = [
    "OBJECTIVES",
    "ContrastiveObjective",
    "ImageEncoderConfig",
    "Objective",
    "OptimiserConfig",
    "PretrainConfig",
    "ProjectionConfig",
    "TextEncoderConfig",
    "TransformConfig",
    "ValidationConfig",
    "from_dict",
]
