"""`convirt make-retrieval-set`: a retrieval set as the paper made its own (ConVIRT, appendices C and D).

Candidates of a category are images that are positive in it and in no other label ("exclusive positivity"). From the
remaining ones 50 are preselected, of which an expert keeps 10 queries that are typical and well posed. Text queries are
five sentences a category, unambiguous and diverse.

An uncertain label is not a negative one: the 1,680 images of the authors' lists have none. Nor have they a lateral
view; `--where` says so.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from convirt.atomic import check_free
from convirt.data.benchmarks.building import Source, build_benchmark
from convirt.data.benchmarks.files import names_of, read_source, unique_images
from convirt.data.benchmarks.folder import Benchmark, Protocol
from convirt.data.benchmarks.splits import rank
from convirt.data.splits import respelt
from convirt.data.tables import one_class_each
from convirt.errors import InputError

_POSITIVE = {"1", "1.0", "true"}
_NEGATIVE = {"0", "0.0", "false", ""}
_UNCERTAIN = {"-1", "-1.0"}


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """Images of each category."""

    candidates: int
    preselected: int
    queries: int


def make_retrieval_set(
    root: Path,
    table: Path,
    out: Path,
    label_columns: Sequence[str] = (),
    *,
    patient_column: str,
    label_column: str | None = None,
    categories: Sequence[str] = (),
    image_column: str = "image",
    where: Sequence[str] = (),
    candidates: int = 200,
    preselected: int = 50,
    queries: int = 10,
    exclude: Literal["image", "patient"] = "image",
    chosen: Path | None = None,
    texts: Path | None = None,
    name: str | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Draw a retrieval set with exclusive positives from any labelled table (ConVIRT, appendices C and D).

    OUT/preselected.csv lists the preselected images; give an expert the file, have 1 written into its column `keep` for
    the images that are typical and well posed, and run the command again with --chosen. Without an expert the queries
    are a random draw of the preselected images, and a note beside every score says so.

    Args:
        root: Folder that the table's image paths start from.
        table: CSV (also .gz) or Parquet table, one row an image.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        label_columns: All label columns (1, 0, -1 uncertain, or nothing), over which positives are exclusive; commas
            may separate them.
        patient_column: Column with the patient.
        label_column: Instead of label columns, one column with the class of each image.
        categories: The label columns that become categories; all by default.
        image_column: Column with the path of the image.
        where: Filters `column=value1,value2`; a row must pass all of them.
        candidates: Candidate images of each category.
        preselected: Images of each category from which queries are chosen.
        queries: Query images of each category.
        exclude: What candidates and queries never share: `image`, as the paper, or `patient`.
        chosen: preselected.csv of an earlier run with the same settings, with 1 in the column `keep`.
        texts: Table of text queries with columns `text` and `label`.
        name: Name of the benchmark; by default the table's.
        seed: Seed of the draw.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Unusable table, too few exclusive positives, or choices that do not fit.
    """
    check_free(out)
    labels, classes = names_of(label_columns), names_of(categories)
    sizes = _Sizes(candidates=candidates, preselected=preselected, queries=queries)
    if not 1 <= queries <= preselected or candidates < 1:
        raise InputError("make-retrieval-set needs 1 <= queries <= preselected, and at least 1 candidate")
    if bool(label_column) == bool(labels):
        raise InputError("name either one label column (--label-column) or several (--label-columns)")
    columns = {"image_column": image_column, "patient_column": patient_column}
    if label_column:
        frame, labels = images_by_class(table, label_column, where=where, **columns)
    else:
        frame = exclusive_positives(table, labels, where=where, **columns)
    if unknown := sorted(set(classes) - set(labels)):
        raise InputError(f"category {unknown[0]!r} is not among the label columns")
    pool = frame[frame["label"].isin(classes or labels)]
    drawn = _draw(pool, classes or labels, sizes, exclude, seed)
    selected = drawn[drawn["role"] == "preselected"]
    kept = _kept(chosen, selected, sizes.queries) if chosen else _first(selected, sizes.queries)
    rows = pd.concat([drawn[drawn["role"] == "candidate"], kept.assign(role="query")], ignore_index=True)
    notes = [] if chosen else ["the queries are a random draw; no expert has looked at them"]
    extra: dict[str, bytes | str] = {"preselected.csv": _preselected(selected, kept if chosen else None)}
    if texts:
        wording, more = _texts(texts, classes or labels)
        extra["queries.csv"], notes = wording.to_csv(index=False, lineterminator="\n"), notes + more
    source = Source(
        name=name or table.name.split(".")[0],
        kind="retrieval",
        labels=("label",),
        root=root,
        frame=rows,
        tables=tuple(path for path in (table, chosen, texts) if path),
        protocol=Protocol(own_patient=False),
        settings={"exclude": exclude, "where": list(where), "labels": list(labels), **vars(sizes)},
    )
    split = {"name": "drawn", "by": exclude, "seed": seed}
    return build_benchmark(source, rows.assign(split="test"), out, split=split, notes=notes, images=images, extra=extra)


def exclusive_positives(
    table: Path, labels: Sequence[str], *, image_column: str, patient_column: str, where: Sequence[str] = ()
) -> pd.DataFrame:
    """Images that are positive in one label, and neither positive nor uncertain in any other.

    Returns:
        image, patient, and the one label.

    Raises:
        InputError: Unusable table or columns.
    """
    if len(labels) < 2:
        raise InputError("name at least two label columns (--label-columns); positives are exclusive over them")
    rows = read_source(table, [image_column, patient_column, *labels], where)
    values = rows[list(labels)].apply(lambda column: column.str.lower())
    for column in labels:
        if unknown := sorted(set(values[column]) - _POSITIVE - _NEGATIVE - _UNCERTAIN):
            raise InputError(f"{table}: label column {column!r} holds {unknown[0]!r}; use 1, 0, -1 or nothing")
    positive, uncertain = values.isin(_POSITIVE), values.isin(_UNCERTAIN)
    alone = positive.sum(axis=1).eq(1) & ~uncertain.any(axis=1)
    frame = pd.DataFrame(
        {"image": rows[image_column], "patient": rows[patient_column], "label": positive.idxmax(axis=1)}
    )[alone]
    return _checked(frame, table)


def images_by_class(
    table: Path, label_column: str, *, image_column: str, patient_column: str, where: Sequence[str] = ()
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Images with the class that one column gives them; rows without a class are left out.

    Returns:
        image, patient and label; and the classes, sorted.

    Raises:
        InputError: Unusable table or columns, or a single class.
    """
    rows = read_source(table, [image_column, patient_column, label_column], where)
    rows = rows[rows[label_column] != ""]
    rows = rows.assign(**{label_column: one_class_each(rows[label_column], table)})
    classes = tuple(sorted(set(rows[label_column])))
    if len(classes) < 2:
        raise InputError(f"{table}: column {label_column!r} names {len(classes)} classes; a retrieval set needs two")
    columns = {"image": rows[image_column], "patient": rows[patient_column], "label": rows[label_column]}
    return _checked(pd.DataFrame(columns), table), classes


def _checked(frame: pd.DataFrame, table: Path) -> pd.DataFrame:
    unique_images(frame, str(table))
    frame = frame.assign(patient=frame["patient"].replace(respelt(frame["patient"])))
    if (frame["patient"] == "").any():
        raise InputError(f"{table}: a row names no patient; fill it in")
    return frame.reset_index(drop=True)


def _draw(
    pool: pd.DataFrame, categories: Sequence[str], sizes: _Sizes, exclude: Literal["image", "patient"], seed: int
) -> pd.DataFrame:
    """Candidates of every category first, then preselected images that share nothing with them."""
    ranked = pool.assign(rank=[rank(name, seed=seed, purpose="retrieval") for name in pool["image"]])
    ranked = ranked.sort_values(["label", "rank"], ignore_index=True).drop(columns="rank")
    candidates = _first(ranked, sizes.candidates)
    _check_enough(candidates, categories, sizes.candidates, "candidates", pool)
    taken = ranked["image"].isin(candidates["image"])
    if exclude == "patient":
        taken |= ranked["patient"].isin(candidates["patient"])
    selected = _first(ranked[~taken], sizes.preselected)
    _check_enough(selected, categories, sizes.preselected, "preselected images", ranked[~taken])
    return pd.concat([candidates.assign(role="candidate"), selected.assign(role="preselected")], ignore_index=True)


def _first(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    return rows.groupby("label", sort=False).head(count)


def _check_enough(rows: pd.DataFrame, categories: Sequence[str], count: int, what: str, pool: pd.DataFrame) -> None:
    found, there = rows["label"].value_counts(), pool["label"].value_counts()
    for category in categories:
        if found.get(category, 0) < count:
            raise InputError(
                f"category {category!r} has {there.get(category, 0)} images left for {count} {what}; ask for fewer, or "
                "leave the category out (--categories)"
            )


def _preselected(selected: pd.DataFrame, kept: pd.DataFrame | None) -> str:
    keep = [""] * len(selected) if kept is None else selected["image"].isin(kept["image"]).map({True: "1", False: ""})
    return selected[["image", "label"]].assign(keep=keep).to_csv(index=False, lineterminator="\n")


def _kept(path: Path, selected: pd.DataFrame, count: int) -> pd.DataFrame:
    """The preselected images that the expert keeps."""
    table = read_source(path, ["image", "label", "keep"])
    table = table[table["keep"].str.lower().isin({"1", "1.0", "true", "yes", "x"})]
    if foreign := sorted(set(table["image"]) - set(selected["image"])):
        raise InputError(
            f"{path}: {foreign[0]} is not among the preselected images; use the same table, sizes and seed"
        )
    kept = _first(selected[selected["image"].isin(table["image"])], count)
    counts = kept["label"].value_counts()
    for label in dict.fromkeys(selected["label"]):
        if (found := counts.get(label, 0)) < count:
            raise InputError(
                f"{path}: {found} images of {label!r} are kept, {count} are needed; keep more or ask fewer"
            )
    return kept


def _texts(path: Path, categories: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Text queries of the categories, and what appendix D would object to."""
    frame = read_source(path, ["text", "label"])[["text", "label"]]
    if unknown := sorted(set(frame["label"]) - set(categories)):
        raise InputError(f"{path}: {unknown[0]!r} is no category; categories are {', '.join(categories)}")
    if (frame["text"] == "").any():
        raise InputError(f"{path}: a query has no text; fill it in")
    notes = []
    if without := [name for name in categories if name not in set(frame["label"])]:
        notes.append(f"no text query for {', '.join(without)}")
    if frame["text"].str.lower().duplicated().any():
        notes.append("some text queries repeat; they should be diverse")
    for text, label in zip(frame["text"], frame["label"], strict=True):
        named = [name for name in categories if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)]
        if named := [name for name in named if name != label]:
            notes.append(f"text query {text!r} of {label} also names {named[0]}")
    return frame, notes
