"""The figure of a loss study: the loss along the run, and each score against it."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from convirt.analysis.figures import STYLE, colour
from convirt.analysis.studies.correlation import spearman
from convirt.evaluation.rows import AnyRow as Row


def draw_loss_study(
    losses: Mapping[int, float], kept: Sequence[int], panels: Mapping[str, Sequence[tuple[float, Row]]]
) -> Figure:
    """Panel (a) is the validation loss, the others are scores against its negative (ConVIRT, figure 5).

    Args:
        losses: Validation loss of every evaluation, by step.
        kept: The steps whose checkpoints were scored.
        panels: Loss and row of results of each checkpoint, by the score's name.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 1 + len(panels), figsize=(3.3 * (1 + len(panels)), 3.0), squeeze=False)
        first = axes[0][0]
        first.plot(list(losses), list(losses.values()), color="#7b8794", linewidth=1.2)
        first.plot(kept, [losses[step] for step in kept], "o", color=colour("convirt"), markersize=4)
        first.set_xlabel("step")
        first.set_ylabel("validation loss, nats")
        for panel, (name, found) in zip(axes[0][1:], panels.items(), strict=True):
            x, y = [-loss for loss, _ in found], [100 * row["mean"] for _, row in found]
            spread = [
                [max(0.0, 100 * (row["mean"] - row["ci_low"])) for _, row in found],
                [max(0.0, 100 * (row["ci_high"] - row["mean"])) for _, row in found],
            ]
            panel.errorbar(x, y, spread, fmt="o", color=colour("convirt"), ecolor="#c6d3dc", elinewidth=1, markersize=4)
            rank = spearman(x, y)
            panel.set_title(
                f"{name}\nrank correlation {rank.rho:.2f} ({rank.low:.2f} to {rank.high:.2f})", fontsize=9, loc="left"
            )
            panel.set_xlabel("- validation loss, nats")
        figure.tight_layout()
        return figure
