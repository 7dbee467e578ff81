"""`convirt tsne`: images of chosen categories in a plane, before and after pretraining (ConVIRT, figure 3)."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from convirt.analysis.categories import rows_of_one_category
from convirt.analysis.embedding.neighbours import NEIGHBOURS, measure_neighbourhoods
from convirt.atomic import check_out_folder as check_out
from convirt.errors import InputError
from convirt.evaluation.inputs.images import encode_images, load_encoders
from convirt.evaluation.inputs.labelled import Columns, data_notes, read_labelled, settle
from convirt.evaluation.inputs.options import Baseline, Device, check_counts
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.results import Results, beside, check_same


def tsne(
    runs: Sequence[Path],
    table: Path,
    images: Path | None = None,
    *,
    out: Path,
    label_column: str | None = None,
    label_columns: Sequence[str] = (),
    categories: Sequence[str] = (),
    image_column: str = "image",
    patient_column: str | None = None,
    role_column: str | None = None,
    split_column: str | None = None,
    split: str = "test",
    where: Sequence[str] = (),
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
        table: CSV or Parquet, one row per image; or a benchmark folder, such as a retrieval set.
        images: Folder that the image paths are relative to; by default the benchmark's.
        out: Folder for tsne.png, tsne.svg, tsne.csv (coordinates) and metrics.json.
        label_column: Column with the class of the image (single-label).
        label_columns: Columns with 1, 0 or nothing, one a label (multi-label); commas may separate them.
        categories: Categories to show; all by default. The paper shows five.
        image_column: Column with the image path.
        patient_column: Column with the patient or case; without it each image counts as a patient of its own.
        role_column: Column that says query or candidate; the candidates are shown.
        split_column: Column with the split.
        split: The split that is shown.
        where: Conditions column=value that rows must meet.
        baselines: Encoders to stand beside the runs, with the architecture of the first run.
        perplexity: Of t-SNE: about how many neighbours an image has (silent in the paper; 30 is the usual).
        seed: Of what t-SNE draws; its start lies along the principal axes, so it changes little or nothing.
        resamples: Bootstrap resamples over patients.
        batch_size: Images encoded at once.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: Unusable table, images, runs or settings.
    """
    arguments = dict(locals())
    started = time.monotonic()
    check_out(out)
    check_counts(batch_size=batch_size, resamples=resamples)
    labels = tuple(name.strip() for part in label_columns for name in part.split(",") if name.strip())
    asked = Columns(
        image=image_column,
        label=label_column,
        labels=labels,
        patient=patient_column,
        split=split_column,
        role=role_column,
    )
    columns, benchmark = settle(Path(table), asked)
    if not columns.label and not columns.labels:
        raise InputError("name a label column (--label-column) or several (--label-columns)")
    whole = read_labelled(table, images, columns, where, benchmark)
    shown = rows_of_one_category(whole, columns, categories, split)
    _check_perplexity(perplexity, shown)
    check_same(out, "tsne", arguments, whole.sha256)
    encoders = load_encoders(runs, baselines, part="image", device=device)
    requests = [(encoder, "features") for encoder in encoders.values()]
    encoded = encode_images(requests, shown.paths, normalise=True, batch_size=batch_size)  # type: ignore[arg-type]
    features = dict(zip(encoders, encoded.vectors, strict=True))
    maps = {name: draw_map(h_ND, perplexity=perplexity, seed=seed) for name, h_ND in features.items()}
    rows, comparisons = measure_neighbourhoods(shown, features, maps, resamples=resamples, baselines=baselines)
    results = Results(
        verb="tsne",
        config=arguments,
        seeds=[seed],
        data={
            "table_sha256": whole.sha256,
            "images_sha256": encoded.sha256,
            "images": len(shown),
            "categories": list(shown.classes),
            "perplexity": perplexity,
            **(benchmark.described() if benchmark else {}),
        },
        rows=[{**row, "perplexity": perplexity} for row in beside(rows, benchmark)],
        comparisons=comparisons,
        predictions={"images": np.array(shown.images), **{f"map|{name}": map_N2 for name, map_N2 in maps.items()}},
        wall_seconds=time.monotonic() - started,
        notes=data_notes(columns, benchmark),
        files=("tsne.png", "tsne.svg", "tsne.csv"),
    )
    _write_pictures(Path(out), shown, maps, results)
    return results.finish(out)


def _check_perplexity(perplexity: float, table: LabelledTable) -> None:
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
    with threadpool_limits(limits=1):
        model = TSNE(n_components=2, perplexity=perplexity, init="pca", random_state=seed, n_jobs=1)
        return model.fit_transform(features_ND.astype(np.float32)).astype(np.float64)


def _write_pictures(out: Path, table: LabelledTable, maps: Mapping[str, NDArray[np.float64]], results: Results) -> None:
    from convirt.analysis.embedding.neighbours import draw_maps
    from convirt.analysis.figures import write_figure
    from convirt.atomic import write_text

    purity = {row["method"]: row for row in results.rows if row["task"] == "neighbours in the features"}
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
