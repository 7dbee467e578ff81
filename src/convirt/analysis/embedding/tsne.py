"""`convirt tsne`: images of chosen categories in a plane, before and after pretraining (ConVIRT, figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError
from convirt.evaluation.inputs.options import Baseline, Device, SharedLabelledOptions, flat
from convirt.evaluation.results import Call, Results

if TYPE_CHECKING:
    from convirt.evaluation.inputs.table import LabelledTable

NEIGHBOURS = 10


def tsne(
    runs: Sequence[Path],
    options: SharedLabelledOptions,
    *,
    out: Path,
    categories: Sequence[str] = (),
    role_column: str | None = None,
    split: str = "test",
    baselines: Sequence[Baseline] = ("imagenet",),
    perplexity: float = 30.0,
    seed: int = 0,
    resamples: int = 1000,
    batch_size: int = 64,
    device: Device = "auto",
) -> Results:
    """t-SNE of the features h_v of images of chosen categories, one map for each encoder.

    Each image has one category: in a multi-label table the images that are positive in one label alone. Beside the
    picture stand numbers, in the features and in the map: the share of an image's ten nearest neighbours of other
    patients that have its category, and the silhouette.

    Args:
        runs: Folders of pretraining runs (or of checkpoints).
        options: The table, such as a retrieval set, and its columns.
        out: Folder for tsne.png, tsne.svg, tsne.csv (coordinates) and metrics.json.
        categories: Categories to show; all by default. The paper shows five.
        role_column: Column that says query or candidate; the candidates are shown.
        split: The split that is shown.
        baselines: Encoders to stand beside the runs, with the architecture of the first run.
        perplexity: Of t-SNE: about how many neighbours an image has (30 is usual; the paper does not give its own).
        seed: Of what t-SNE draws; its start lies along the principal axes, so it changes little or nothing.
        resamples: Bootstrap resamples over patients.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, runs or settings.
    """
    call = Call.begin("tsne", flat(locals()), "batch_size", "resamples")
    opened = options.open(role_column=role_column).require_labels()

    from convirt.analysis.categories import rows_of_one_category
    from convirt.analysis.embedding.neighbours import measure_neighbourhoods
    from convirt.evaluation.inputs.images import encode_images, load_encoders

    shown = rows_of_one_category(opened.table, opened.columns, categories, split)
    _check_perplexity(perplexity, shown)
    call.check_same(opened)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    requests = [(encoder, "features") for encoder in encoders.values()]
    encoded = encode_images(requests, shown.paths, normalise=True, batch_size=batch_size)  # type: ignore[arg-type]
    features = dict(zip(encoders, encoded.vectors, strict=True))
    maps = {name: draw_map(h_ND, perplexity=perplexity, seed=seed) for name, h_ND in features.items()}
    rows, comparisons = measure_neighbourhoods(shown, features, maps, resamples=resamples, baselines=baselines)
    _write_pictures(Path(out), shown, maps, rows)
    return call.finish(
        opened,
        seeds=[seed],
        data={
            "table_sha256": opened.table.sha256,
            "images_sha256": encoded.sha256,
            "images": len(shown),
            "categories": list(shown.classes),
        },
        rows=rows,
        row_values={"perplexity": perplexity},
        comparisons=comparisons,
        predictions={"images": np.array(shown.images), **{f"map|{name}": map_N2 for name, map_N2 in maps.items()}},
        files=("tsne.png", "tsne.svg", "tsne.csv"),
    )


def _check_perplexity(perplexity: float, table: "LabelledTable") -> None:
    if not 1 <= perplexity < len(table) / 3:
        raise InputError(
            f"perplexity {perplexity:g} does not fit {len(table)} images; choose 1 to a third of their number"
        )
    if len(table) <= NEIGHBOURS + 1:
        raise InputError(f"{len(table)} images are too few for a map with {NEIGHBOURS} neighbours each; show more")


def draw_map(features_ND: NDArray[np.float32], *, perplexity: float, seed: int) -> NDArray[np.float64]:
    """The t-SNE map [N, 2] of features (van der Maaten and Hinton 2008), from a start along their principal axes.

    Distances are Euclidean between L2-normalised features, which order pairs as the cosine does that retrieval uses.
    The result is a function of the arguments alone, whatever the number of threads.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        model = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        return model.fit_transform(features_ND.astype(np.float32)).astype(np.float64)


def _write_pictures(
    out: Path,
    table: "LabelledTable",
    maps: Mapping[str, NDArray[np.float64]],
    rows: Sequence[Mapping[str, Any]],
) -> None:
    import pandas as pd

    from convirt.analysis.embedding.neighbours import draw_maps
    from convirt.analysis.figures import write_figure
    from convirt.atomic import write_text

    purity = {row["method"]: row for row in rows if row["task"] == "neighbours in the features"}
    write_figure(draw_maps(maps, table.labels_N, table.classes, purity), out / "tsne")
    frame = pd.concat(
        pd.DataFrame(
            {
                "image": table.images,
                "category": table.labels_N,
                "patient": table.patients_N,
                "method": name,
                "x": map_N2[:, 0],
                "y": map_N2[:, 1],
            }
        )
        for name, map_N2 in maps.items()
    )
    write_text(out / "tsne.csv", frame.to_csv(index=False, float_format="%.4f", lineterminator="\n"))
