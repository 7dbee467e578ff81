"""Recipes of the captioning baselines (ConVIRT, section 3.3).

What the ConVIRT paper says of them: ImageNet weights, the two architectures, the same pairs, the checkpoint with the
best CIDEr. For the rest, the constants of their own papers meet ConVIRT's own: image size, views, Adam with its rate,
penalty and halving (now when CIDEr-D has not risen) are ConVIRT's, so that the comparison is one of objectives; both
sources kept their image encoder fixed, and here it is what training is for.
"""

from dataclasses import replace

from convirt.config import (
    AttentionLSTMObjective,
    MeshedTransformerObjective,
    Objective,
    OptimiserConfig,
    PretrainConfig,
)
from convirt.recipes.convirt import demo


def paper_caption_lstm() -> PretrainConfig:
    """`convirt pretrain paper_caption_lstm --corpus CORPUS --out RUN`

    Caption-LSTM: Show, Attend and Tell, batches of 64 (Xu et al., 4.3), widths and lambda 1 of the authors' code.
    """
    return PretrainConfig(
        recipe="paper_caption_lstm",
        method="caption_lstm",
        objective=AttentionLSTMObjective(),
        optimiser=OptimiserConfig(batch_size=64),
    )


def paper_caption_transformer() -> PretrainConfig:
    """`convirt pretrain paper_caption_transformer --corpus CORPUS --out RUN`

    Caption-Transformer: the Meshed-Memory Transformer, batches of 50, beam 5 and 10,000 steps of warm-up (Cornia et
    al., 4.2). After it the rate stays and is halved by ConVIRT's rule; theirs falls with the root of the step.
    """
    return PretrainConfig(
        recipe="paper_caption_transformer",
        method="caption_transformer",
        objective=MeshedTransformerObjective(),
        optimiser=OptimiserConfig(batch_size=50, warmup_steps=10_000),
    )


def demo_caption_lstm() -> PretrainConfig:
    """`convirt pretrain demo_caption_lstm --corpus CORPUS --out RUN`

    Caption-LSTM with the demo's image encoder, views, batches and steps, and a smaller decoder.
    """
    objective = AttentionLSTMObjective(
        word_dim=256,
        hidden_dim=256,
        attention_dim=256,
        dropout=0.1,  # hundreds of steps do not overfit
        # A report's words, about 40, share 9 places where Xu et al. had 10 words for 196: lambda 1 would outweigh them.
        attention_penalty=0.05,
        max_words=80,
        beam=3,
        decoded=128,
    )
    return _demo("caption_lstm", objective)


def demo_caption_transformer() -> PretrainConfig:
    """`convirt pretrain demo_caption_transformer --corpus CORPUS --out RUN`

    Caption-Transformer with the demo's image encoder, views, batches and steps, and a smaller decoder.
    """
    objective = MeshedTransformerObjective(
        width=192, heads=4, layers=2, memories=20, feed_forward=512, max_words=80, beam=3, decoded=128
    )
    return _demo("caption_transformer", objective)


def _demo(method: str, objective: Objective) -> PretrainConfig:
    recipe = demo()
    return replace(
        recipe,
        recipe=f"demo_{method}",
        method=method,
        objective=objective,
        text_encoder=PretrainConfig().text_encoder,  # there is none
        optimiser=replace(recipe.optimiser, text_learning_rate=None),
    )
