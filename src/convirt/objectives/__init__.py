"""The equations of the objectives, one file a family."""

from convirt.objectives.contrastive import bidirectional_contrastive_loss

__all__ = ["bidirectional_contrastive_loss"]
