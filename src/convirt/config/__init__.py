"""Every setting of a run, as frozen dataclasses; the defaults are the paper's chest encoder."""

from convirt.config.objectives import (
    OBJECTIVES,
    AttentionLSTMObjective,
    BinaryObjective,
    CaptioningObjective,
    ContrastiveObjective,
    LearnedTemperatureObjective,
    MaskedLanguageObjective,
    MeshedTransformerObjective,
    MoCoObjective,
    Objective,
    SemanticMatchingObjective,
    TwoViewsObjective,
)
from convirt.config.pretraining import (
    ImageEncoderConfig,
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
    "AttentionLSTMObjective",
    "BinaryObjective",
    "CaptioningObjective",
    "ContrastiveObjective",
    "ImageEncoderConfig",
    "LearnedTemperatureObjective",
    "MaskedLanguageObjective",
    "MeshedTransformerObjective",
    "MoCoObjective",
    "Objective",
    "OptimiserConfig",
    "PretrainConfig",
    "ProjectionConfig",
    "SemanticMatchingObjective",
    "TextEncoderConfig",
    "TransformConfig",
    "TwoViewsObjective",
    "ValidationConfig",
    "from_dict",
]
