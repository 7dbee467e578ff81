"""Put the results of `convirt classify` for many methods on several tasks into one picture and one table.

    python benchmarks/methods.py m-location_category m-plane m-modality --out methods.png

Prints a Markdown table for each task (AUC in per cent, mean and spread over seeds, and the first method minus each
other one, paired over patients) and draws AUC with its 95 % interval.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#8fb8c4", "#3d8ca3", "#0b4a5e")


def share(fraction: float) -> str:
    """A share of the labels, as text."""
    return "all" if fraction == 1 else f"{100 * fraction:g} %"


def auc_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that hold AUC of linear evaluation."""
    return [row for row in results["rows"] if row["metric"] == "auc" and row["setting"] == "linear"]


def table(results: dict[str, Any]) -> str:
    """One line a method."""
    rows = auc_rows(results)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    columns = list(dict.fromkeys((row["head"], row["fraction"]) for row in rows))
    values = {(row["method"], row["head"], row["fraction"]): row for row in rows}
    differences = {
        (row["b"], row["head"], row["fraction"]): row
        for row in results["comparisons"]
        if row["metric"] == "auc" and row["setting"] == "linear" and row["a"] == results["comparisons"][0]["a"]
    }
    heads = [f"{head}, {share(fraction)}" for head, fraction in columns]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---|" * len(columns)]
    for method in methods:
        cells = []
        for head, fraction in columns:
            row = values[method, head, fraction]
            said = f"{100 * row['mean']:.1f} ± {100 * row['std']:.1f}"
            if other := differences.get((method, head, fraction)):
                star = "\\*" if other["p_holm"] < 0.05 else ""
                said += f" ({100 * other['difference']:+.1f}{star})"
            cells.append(said)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(folders: list[Path], out: Path, head: str) -> None:
    """A panel a task, a line a method."""
    found = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in folders]
    figure, axes = plt.subplots(1, len(found), figsize=(3.1 * len(found) + 1.2, 4.2), sharey=True, squeeze=False)
    for axis, folder, results in zip(axes[0], folders, found, strict=True):
        rows = [row for row in auc_rows(results) if row["head"] == head]
        methods = list(dict.fromkeys(row["method"] for row in rows))
        fractions = list(dict.fromkeys(row["fraction"] for row in rows))
        for row in rows:
            rank = fractions.index(row["fraction"])
            place = methods.index(row["method"]) + 0.22 * (rank - (len(fractions) - 1) / 2)
            colour = COLOURS[rank % len(COLOURS)]
            axis.plot([100 * row["ci_low"], 100 * row["ci_high"]], [place, place], color=colour, linewidth=1.5)
            label = f"{share(row['fraction'])} of the labels" if row["method"] == methods[0] else None
            axis.plot(100 * row["mean"], place, "o", color=colour, markersize=4.5, label=label)
        axis.set_yticks(range(len(methods)), [name.replace("_", " ") for name in methods])
        axis.set_title(folder.name.removeprefix("m-").replace("_", " "), fontsize=10)
        axis.set_xlabel("AUC, %")
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        for side in ("top", "right", "left"):
            axis.spines[side].set_visible(False)
    axes[0][0].invert_yaxis()
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), fontsize=9, frameon=False, loc="lower center")
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    figure.savefig(out, dpi=110)


def main() -> None:
    """Print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("methods.png"))
    parser.add_argument("--head", default="paper", help="of the picture: paper or logistic")
    arguments = parser.parse_args()
    for folder in arguments.folders:
        results = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        print(f"\n{folder.name}\n\n{table(results)}")
    draw(arguments.folders, arguments.out, arguments.head)


if __name__ == "__main__":
    main()
