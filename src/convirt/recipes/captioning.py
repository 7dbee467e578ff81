"""Recipes of the captioning baselines (ConVIRT, section 3.3).

What the ConVIRT paper says of them: ImageNet weights, the two architectures, the same pairs, the checkpoint with the
best CIDEr. For the rest, the constants of their own papers meet ConVIRT's own: image size, views, Adam with its rate,
penalty and halving (now when CIDEr-D has not risen) are ConVIRT's, so that the comparison is one of objectives; both
sources kept their image encoder fixed, and here it is what training is for.
"""

from convirt.config import (
    AttentionLSTMObjective,
    MeshedTransformerObjective,
    OptimiserConfig,
    PretrainConfig,
)
from convirt.recipes.convirt import at_demo_scale

SHORT_REPORTS = {"max_words": 80, "beam": 3, "decoded": 128}
"""The demo's reports, and how many of them are written for CIDEr-D."""


def paper_caption_lstm() -> PretrainConfig:
    """Caption-LSTM: the report from an LSTM with attention.

    `convirt pretrain paper_caption_lstm --corpus CORPUS --out RUN`

    Show, Attend and Tell: batches of 64 (Xu et al., 4.3), widths and lambda 1 of the authors' code.
    """
    return PretrainConfig(
        recipe="paper_caption_lstm",
        method="caption_lstm",
        objective=AttentionLSTMObjective(),
        optimiser=OptimiserConfig(batch_size=64),
    )


def paper_caption_transformer() -> PretrainConfig:
    """Caption-Transformer: the report from a Meshed-Memory Transformer.

    `convirt pretrain paper_caption_transformer --corpus CORPUS --out RUN`

    Batches of 50, beam 5 and 10,000 steps of warm-up (Cornia et
    al., 4.2). After it the rate stays and is halved by ConVIRT's rule; theirs falls with the root of the step.
    """
    return PretrainConfig(
        recipe="paper_caption_transformer",
        method="caption_transformer",
        objective=MeshedTransformerObjective(),
        optimiser=OptimiserConfig(batch_size=50, warmup_steps=10_000),
    )


def demo_caption_lstm() -> PretrainConfig:
    """Caption-LSTM at the demo's scale, with a smaller decoder.

    `convirt pretrain demo_caption_lstm --corpus CORPUS --out RUN`
    """
    decoder = {"word_dim": 256, "hidden_dim": 256, "attention_dim": 256}
    dropout = 0.1  # hundreds of steps do not overfit
    # A report's words, about 40, share 9 places where Xu et al. had 10 words for 196: lambda 1 would outweigh them.
    own = {"dropout": dropout, "attention_penalty": 0.05}
    return at_demo_scale(paper_caption_lstm(), has_text=False, objective=decoder | own | SHORT_REPORTS)


def demo_caption_transformer() -> PretrainConfig:
    """Caption-Transformer at the demo's scale, with a smaller decoder.

    `convirt pretrain demo_caption_transformer --corpus CORPUS --out RUN`
    """
    decoder = {"width": 192, "heads": 4, "layers": 2, "memories": 20, "feed_forward": 512}
    return at_demo_scale(paper_caption_transformer(), has_text=False, objective=decoder | SHORT_REPORTS)
