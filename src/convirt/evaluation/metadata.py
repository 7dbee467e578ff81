"""The metadata baseline: what sex, age, view, source and image size predict without a look at the image.

A score that they explain says nothing about the image; in COVIDx each class comes from data sets of its own.

Shape legend: N rows, F columns, S seeds, C classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from convirt.evaluation.inputs.images import LabelledFeatures
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.linear import fit_logistic
from convirt.evaluation.protocol import Outcome
from convirt.evaluation.rows import Plain, Row
from convirt.evaluation.statistics.metrics import log_loss

METHOD = "metadata"
"""Name of the baseline in rows."""


def metadata_features(table: LabelledTable, sides_N2: NDArray[np.int64]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """What is known of each image besides its pixels, as numbers.

    Returns:
        float32 [N, F]: one column for each value of sex, view and source that a training row has (another value, or
        none, is zero in all of them), age and whether it is known, the image's sides and their ratio (all logarithms);
        and what they are of.
    """
    train = table.rows("train")
    columns: list[NDArray] = []
    for role, values_N in table.attributes.items():
        if role == "age":
            age_N = np.array([_number(value) for value in values_N])
            known = np.isfinite(age_N)
            columns += [np.where(known, age_N, 0.0) / 100, known.astype(float)]
        else:
            columns += [(values_N == value).astype(float) for value in np.unique(values_N[train]) if value]
    height_N, width_N = np.log(np.maximum(sides_N2, 1)).T
    columns += [height_N, width_N, height_N - width_N]
    return np.stack(columns, axis=1).astype(np.float32), (*table.attributes, "image size")


def _number(text: str) -> float:
    try:
        return float(text.strip().rstrip("Yy"))
    except ValueError:
        return float("nan")


def metadata_outcome(
    features_NF: NDArray[np.float32], table: LabelledTable, subsets: Sequence[NDArray[np.int64]]
) -> Outcome:
    """Logistic regression or gradient boosting on the subset of each seed, whichever validation prefers by log loss."""
    everything = LabelledFeatures(features_ND=features_NF, targets_NC=table.targets_NC, multi_label=table.multi_label)
    train, val = everything.take(table.rows("train")), everything.take(table.rows("val"))
    test_NF = features_NF[table.rows("test")]
    done: dict[bytes, Outcome] = {}
    each: list[Outcome] = []
    for subset in subsets:
        if (key := subset.tobytes()) not in done:  # nothing is drawn: seeds matter by their subset alone
            done[key] = _fit(train.take(subset), val, test_NF)
        each.append(done[key])
    return Outcome.stack(each)


def _fit(train: LabelledFeatures, val: LabelledFeatures, test_NF: NDArray[np.float32]) -> Outcome:
    fit = fit_logistic(train, val, test_NF)
    val_NC, boosted_NC = _boost(train, (val.features_ND, test_NF))
    loss = log_loss(val.targets_NC, val_NC, val.multi_label)
    if loss < fit.validation_loss:
        chosen = {"model": "gradient boosting", "validation_loss": loss}
        return Outcome(test_SNC=boosted_NC[None], val_SNC=val_NC[None], selected=[chosen])
    linear = {"model": "logistic regression", "C": fit.c, "validation_loss": fit.validation_loss}
    return replace(fit.outcome, selected=[linear])


def _boost(train: LabelledFeatures, others: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Probabilities [N, C] of gradient-boosted trees: over classes, or of each label on the rows that have it."""

    def fitted(rows_NF: NDArray[np.float32], codes_N: NDArray) -> HistGradientBoostingClassifier:
        least = max(2, min(20, len(codes_N) // 10))  # the library's 20 would make no split in the smallest fractions
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return HistGradientBoostingClassifier(
                max_iter=50, min_samples_leaf=least, early_stopping=False, random_state=0
            ).fit(rows_NF, codes_N)

    if not train.multi_label:
        model = fitted(train.features_ND, train.targets_NC.argmax(axis=1))
        return [model.predict_proba(rows).astype(np.float32) for rows in others]
    columns: list[list[NDArray]] = [[] for _ in others]
    for labels_N in train.targets_NC.T:
        given = np.isfinite(labels_N)
        model = fitted(train.features_ND[given], labels_N[given].astype(int))
        for column, rows in zip(columns, others, strict=True):
            column.append(model.predict_proba(rows)[:, 1])
    return [np.stack(column, axis=1).astype(np.float32) for column in columns]


def explained(rows: Sequence[Row], comparisons: Sequence[Plain], known: Sequence[str]) -> list[str]:
    """A note for each place of the table where metadata alone explains a score.

    Args:
        rows: Rows of all methods, the baseline among them.
        comparisons: Their differences to it.
        known: What the baseline was given.
    """
    notes: list[str] = []
    for own in (row for row in rows if row["method"] == METHOD and row["ci_low"] > row["chance"]):
        keys = ("setting", "head", "fraction", "metric")
        equal = [
            row["a"]
            for row in comparisons
            if row["b"] == METHOD and all(row[key] == own[key] for key in keys) and not row["ci_low"] > 0
        ]
        if equal:
            notes.append(
                f"{', '.join(known)} alone, without the image, reach {own['metric']} {100 * own['mean']:.1f} % with "
                f"{100 * own['fraction']:g} % of the labels ({own['setting']}, {own['head']} head); of these methods "
                f"it is not shown that they do better: {', '.join(equal)}"
            )
    return notes
