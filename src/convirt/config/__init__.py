"""Every setting of a run, as frozen dataclasses; the defaults are the paper's chest encoder."""

from convirt.config.pretraining import (
    OBJECTIVES,
    ContrastiveObjective,
    ImageEncoderConfig,
    Objective,
    OptimiserConfig,
    PretrainConfig,
    ProjectionConfig,
    TextEncoderConfig,
    TransformConfig,
    ValidationConfig,
)
from convirt.config.settings import from_dict

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
