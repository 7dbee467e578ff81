"""The audit as plain values: what `inspect.json` holds and the page shows.

Two kinds of values are kept apart. Counts are always given. What comes from the data itself (ids, file names, report
text, pixels) is given only where the caller allows it.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convirt.data.identifiers.finding import KINDS, LIMITS
from convirt.inspection.collections import Collection
from convirt.inspection.leakage import Between, Within
from convirt.inspection.repeats import Repeats, Shared, is_leak
from convirt.inspection.survey import Survey

LISTED = 200
"""Groups, pairs or rows that are listed of each kind."""
_SPLIT_ORDER = ("train", "val", "test")
_BATCH = 32  # (A)


def order_splits(names: Sequence[str]) -> list[str]:
    """Train, val and test first, whatever the order in which they came."""
    known = [name for name in _SPLIT_ORDER if name in names]
    return known + sorted(name for name in names if name not in known)


def count_splits(survey: Survey) -> list[dict[str, Any]]:
    """Pairs, patients, images and sentences of each split."""
    split_R, patient_R = survey.column("split_R"), survey.column("patient_R")
    lengths = {name: survey.column(f"{name}_R") for name in ("images", "sentences")}
    rows = []
    for name in order_splits(survey.splits):
        chosen = split_R == survey.splits.index(name)
        patients = np.unique(patient_R[chosen])
        rows.append(
            {
                "split": name,
                "pairs": int(chosen.sum()),
                "patients": int((patients != 0).sum()),
                **{what: int(values[chosen].sum()) for what, values in lengths.items()},
            }
        )
    return rows


def read_audit(corpus: Path, show: bool) -> dict[str, Any]:
    """What became of the rows of the source, from the corpus' `audit.json`; empty if there is none."""
    try:
        audit = json.loads((corpus / "audit.json").read_text(encoding="utf-8"))
        result: dict[str, Any] = {"rows": audit["rows"]}
        for fate in ("dropped", "repaired", "noted"):
            result[fate] = [
                {
                    "reason": reason,
                    "count": entry["count"],
                    "examples": [row if show else {"row": row["row"]} for row in entry["rows"][:3]],
                }
                for reason, entry in sorted(audit.get(fate, {}).items(), key=lambda item: -item[1]["count"])
            ]
        result["words"] = audit.get("words", {})
        result["notes"] = len(audit["notes"])
        if show:
            result["notes_listed"] = audit["notes"][:20]
        return result
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}


def spread(values: np.ndarray) -> dict[str, float]:
    """Mean and percentiles of some numbers."""
    if not len(values):
        return {}
    low, quarter, middle, three, high = np.percentile(values, [0, 25, 50, 75, 100])
    return {
        "mean": round(float(np.mean(values)), 4),
        "least": round(float(low), 4),
        "quarter": round(float(quarter), 4),
        "median": round(float(middle), 4),
        "three_quarters": round(float(three), 4),
        "most": round(float(high), 4),
    }


def distribution(values: np.ndarray) -> dict[str, int]:
    """How many items have each number, up to 12 and then together."""
    counts = np.bincount(values.astype(np.int64).clip(0, 13), minlength=14)
    named = {str(number): int(count) for number, count in enumerate(counts[:13]) if count}
    return named | ({"13+": int(counts[13])} if counts[13] else {})


def token_bands(tokens: Counter[int]) -> dict[str, int]:
    """Sentences by their number of tokens, in steps of five."""
    bands: Counter[int] = Counter()
    for number, count in tokens.items():
        bands[min((number - 1) // 5, 10)] += count
    return {f"{5 * band + 1}-{5 * band + 5}" if band < 10 else "51+": bands[band] for band in sorted(bands)}


def describe_images(survey: Survey) -> dict[str, Any]:
    """Sizes, depths and intensities."""
    measures_I4 = survey.column("measures_I4").reshape(-1, 4)
    names = ("mean", "spread", "black", "saturated")
    known = {size: count for size, count in survey.sizes.items() if size != (0, 0)}
    larger = np.repeat([max(size) for size in known], list(known.values()))
    common = sorted(known.items(), key=lambda item: (-item[1], item[0]))[:8]
    return {
        "images": len(measures_I4),
        "intensity": {name: spread(column) for name, column in zip(names, measures_I4.T, strict=True)},
        "histograms": {name: _histogram(column) for name, column in zip(names, measures_I4.T, strict=True)},
        "nearly_blank": int((measures_I4[:, 1] < 0.01).sum()),
        "half_black": int((measures_I4[:, 2] > 0.5).sum()),
        "saturated": int((measures_I4[:, 3] > 0.1).sum()),
        "source_larger_side": spread(larger),
        "source_sizes": [{"height": size[0], "width": size[1], "images": count} for size, count in common],
        "distinct_sizes": len(known),
        "source_bits": dict(sorted(survey.depths.items())),
        "source_formats": dict(survey.formats.most_common()),
    }


def _histogram(values: np.ndarray) -> list[int]:
    return [int(count) for count in np.histogram(values, bins=20, range=(0, 1))[0]]


def describe_repeats(repeats: Repeats, rows: np.ndarray | None, names: Sequence[str], split_N: np.ndarray) -> Any:
    """Counts of repeated items, and the first groups by row.

    Args:
        repeats: The groups.
        rows: Row of each item; None if the items are rows.
        names: Names of the splits.
        split_N: Number of the split of each item.
    """
    listed = [
        [{"row": int(place if rows is None else rows[place]), "split": names[split_N[place]]} for place in members[:10]]
        for members in repeats.members[:LISTED]
    ]
    return {
        "groups": repeats.groups,
        "surplus": repeats.surplus,
        "across_splits": repeats.across_splits,
        "across_patients": repeats.across_patients,
        "listed": listed,
    }


def describe_within(within: Within, survey: Survey) -> dict[str, Any]:
    """Repetitions inside a collection."""
    row_I, split_R = survey.column("row_I"), survey.column("split_R")
    split_I = split_R[row_I]
    near, texts = within.near, within.near_texts
    order = np.lexsort((-near.likeness_P, ~within.near_across))[:LISTED]
    near_listed = [
        {
            "rows": [int(row_I[place]) for place in near.pairs_P2[number]],
            "splits": [survey.splits[split_I[place]] for place in near.pairs_P2[number]],
            "likeness": round(float(near.likeness_P[number]), 3),
            "across_splits": bool(within.near_across[number]),
            "across_patients": bool(within.near_patients[number]),
        }
        for number in order
    ]
    text_listed = [
        {"rows": [int(survey.first_T[place]) for place in pair], "common": round(float(share), 3)}
        for pair, share in list(zip(texts.pairs_P2, texts.alike_P, strict=True))[:LISTED]
    ]
    return {
        "patients_across_splits": within.patients,
        "patient_rows": [rows[:10].tolist() for rows in within.patient_rows],
        "files": describe_repeats(within.files, row_I, survey.splits, split_I),
        "pixels": describe_repeats(within.pixels, row_I, survey.splits, split_I),
        "near_images": {
            "pairs": len(near.pairs_P2),
            "across_splits": int(within.near_across.sum()),
            "across_patients": int(within.near_patients.sum()),
            "checked": near.checked,
            "unchecked": near.unchecked,
            "crowded_buckets": near.cut,
            "listed": near_listed,
        },
        "look_alikes": {
            "pairs": len(near.doubtful_P2),
            "across_splits": int(within.doubtful_across.sum()),
            "listed": [
                {
                    "rows": row_I[near.doubtful_P2[number]].tolist(),
                    "across_splits": bool(within.doubtful_across[number]),
                }
                for number in np.argsort(~within.doubtful_across, kind="stable")[:LISTED]
            ],
        },
        "reports": describe_repeats(within.texts, None, survey.splits, split_R),
        "near_reports": {
            "pairs": len(texts.pairs_P2),
            "across_splits": within.near_texts_across,
            "checked": texts.checked,
            "unchecked": texts.unchecked,
            "listed": text_listed,
        },
    }


def describe_sentences(survey: Survey, collection: Collection, show: bool) -> dict[str, Any]:
    """Repeated sentences: in a batch they are false negatives of the loss."""
    lengths_R = survey.column("sentences_R").astype(np.int64)
    if not lengths_R.sum():
        return {}
    train = survey.splits.index("train") if "train" in survey.splits else int(np.argmax(np.bincount(survey.split_R)))
    row_S = np.repeat(np.arange(len(lengths_R)), lengths_R)
    chosen = survey.column("split_R")[row_S] == train
    row_S, keys_S = row_S[chosen], survey.column("sentence_S")[chosen]
    pairs = len(np.unique(row_S))
    _, firsts, inverse, counts = np.unique(keys_S, return_index=True, return_inverse=True, return_counts=True)
    # Chance of each sentence at one draw: a pair, then one of its sentences.
    chance = np.bincount(inverse, weights=1 / (pairs * lengths_R[row_S]))
    top = np.argsort(-chance, kind="stable")[:10]
    starts_R = np.cumsum(lengths_R) - lengths_R
    places = np.flatnonzero(chosen)[firsts]
    common = []
    for number in top:
        row = int(row_S[firsts[number]])
        entry: dict[str, Any] = {"count": int(counts[number]), "share_of_draws": round(float(chance[number]), 5)}
        if show:
            entry["text"] = collection.row(row).sentences[int(places[number] - starts_R[row])]
        common.append(entry)
    return {
        "split": survey.splits[train],
        "sentences": len(keys_S),
        "distinct": len(counts),
        "repeated": int(counts[counts > 1].sum()),
        "batch": _BATCH,
        "pairs_with_an_equal_sentence_in_their_batch": round(
            float((chance * (1 - (1 - chance) ** (_BATCH - 1))).sum()), 5
        ),
        "most_common": common,
    }


def describe_identifiers(survey: Survey, show: bool) -> dict[str, Any]:
    """What the local check has found in the reports, and what it cannot find."""
    found = survey.identified
    kinds = [
        {
            "kind": kind,
            "what": what,
            "count": found.counts[kind],
            "texts": found.texts[kind],
            "examples": found.examples[kind] if show else [],
        }
        for kind, what in KINDS.items()
    ]
    return {
        "texts": int((survey.column("text_R") != 0).sum()),
        "texts_with_any": found.with_any,
        "texts_with_gaps": found.with_gaps,
        "kinds": kinds,
        "cannot_find": list(LIMITS),
    }


def describe_people(survey: Survey) -> dict[str, Any]:
    """Views of the images, ages and sexes of the pairs, as far as they are known."""
    ages: Mapping[str, int] = survey.ages
    bands = sorted((band for band in ages if band[0].isdigit()), key=lambda band: int(band.split("-")[0].rstrip("+")))
    return {
        "views": dict(survey.views.most_common(20)),
        "ages": {band: ages[band] for band in [*bands, *(["other"] if "other" in ages else [])]},
        "sexes": dict(survey.sexes.most_common()),
    }


MEASURES = {
    "patients": "patients",
    "files": "images with the same source file",
    "pixels": "images with the same pixels",
    "near": "near-duplicate images, pixels not the same",
    "texts": "reports with the same words",
    "near_texts": "near-duplicate reports",
}
"""What is compared; only the first four make a leak."""
_ALL = 16  # combinations of splits that are all shown, empty ones too


def describe_between(between: Between, first: Survey, second: Survey) -> dict[str, Any]:
    """Counts and the first matches of every measure.

    Args:
        between: What was found.
        first: Survey of the collection at hand.
        second: Survey of the other one.
    """
    rows, others = first.column("row_I"), second.column("row_I")
    shared: dict[str, Any] = {
        "files": _describe(between.files, rows, others),
        "pixels": _describe(between.pixels, rows, others),
        "near": _describe(between.near_shared, rows, others, between.near.likeness_P),
        "texts": _describe(between.texts, None, None) | {"telling": between.telling},
    }
    if between.patients is not None:
        shared["patients"] = _describe(between.patients, None, None)
    texts = between.near_texts
    firsts = [survey.column("first_T") for survey in (first, second)]
    shared["near_texts"] = _describe(
        Shared(
            pairs_P2=texts.pairs_P2,
            first=len(np.unique(texts.pairs_P2[:, 0])),
            second=len(np.unique(texts.pairs_P2[:, 1])),
        ),
        firsts[0],
        firsts[1],
        texts.alike_P,
    )
    for name, found in between.crossings.items():
        shared[name]["by_split"] = found.by_split(*between.splits)
    return {
        "patients_compared": between.patients is not None,
        "near_checked": between.near.checked,
        "look_alikes": len(between.near.doubtful_P2),
        "near_unchecked": between.near.unchecked,
        "crossings": _by_split(between),
        "shared": {name: {"what": what, **shared[name]} for name, what in MEASURES.items() if name in shared},
    }


def _by_split(between: Between) -> list[dict[str, Any]]:
    """How much of each kind is in which split of the one and of the other; all splits, unless there are many."""
    firsts, seconds = between.splits
    kinds = [kind for kind in MEASURES if kind in between.crossings]
    rows = []
    for first in order_splits(firsts):
        for second in order_splits(seconds):
            places = firsts.index(first), seconds.index(second)
            counts = {kind: between.crossings[kind].count(*places) for kind in kinds}
            if any(counts.values()) or len(firsts) * len(seconds) <= _ALL:
                rows.append({"first": first, "second": second, "leak": is_leak(first, second), **counts})
    return rows


def _describe(
    shared: Shared,
    rows: np.ndarray | None,
    others: np.ndarray | None,
    scores: Sequence[float] | np.ndarray | None = None,
) -> dict[str, Any]:
    pairs = shared.pairs_P2[:LISTED]
    listed = [
        {
            "first_row": int(a if rows is None else rows[a]),
            "second_row": int(b if others is None else others[b]),
            **({} if scores is None else {"likeness": round(float(scores[number]), 3)}),
        }
        for number, (a, b) in enumerate(pairs)
    ]
    return {"first": shared.first, "second": shared.second, "listed": listed}
