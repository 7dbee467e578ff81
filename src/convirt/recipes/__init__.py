"""Recipes: functions that return whole configurations, each opening with the command that runs it."""

from collections.abc import Callable

from convirt.config import PretrainConfig
from convirt.recipes.captioning import (
    demo_caption_lstm,
    demo_caption_transformer,
    paper_caption_lstm,
    paper_caption_transformer,
)
from convirt.recipes.convirt import demo, paper_bone, paper_chest
from convirt.recipes.image_and_text import (
    demo_clip,
    demo_contrastive_binary,
    demo_masked_language_model,
    demo_medclip,
    paper_clip,
    paper_contrastive_binary,
    paper_masked_language_model,
    paper_medclip,
)
from convirt.recipes.image_only import demo_moco, demo_simclr, paper_moco, paper_simclr

RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        paper_chest,
        paper_bone,
        paper_contrastive_binary,
        paper_clip,
        paper_medclip,
        paper_masked_language_model,
        paper_caption_lstm,
        paper_caption_transformer,
        paper_simclr,
        paper_moco,
        demo,
        demo_contrastive_binary,
        demo_clip,
        demo_medclip,
        demo_masked_language_model,
        demo_caption_lstm,
        demo_caption_transformer,
        demo_simclr,
        demo_moco,
    )
}

__all__ = ["RECIPES", *RECIPES]
