"""`convirt reproduce`: the paired tests between methods, from kept scores to each form of a table."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convirt.evaluation.statistics.bootstrap import Resampling
from convirt.evaluation.statistics.metrics import auc
from convirt.reproduce import filling
from convirt.reproduce.filling import Figure, Filled, Scores, differences, draw_column, in_figures, read_scores
from convirt.reproduce.ordering import agreements, in_words
from convirt.reproduce.tables import PAPER_TASKS, Column, paper_figure, paper_tables
from convirt.reproduce.writing import as_csv, as_html, latex, markdown

TABLE = paper_tables(tuple(PAPER_TASKS.values()))["table3"]
TITLE = TABLE.columns[0].title
MEANS = {"imagenet": 60.0, "simclr": 75.0, "moco": 70.0, "convirt": 80.0}
LINEAR = Column(title="T", task="t", setting="linear", key=0.1, metric="auc", paper="rsna")
RETRIEVED = Column(title="R", task="image-image", setting=None, key=5.0, metric="precision@5", paper="image-image")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PART", 50)


def probabilities(rng: np.random.Generator, positive_N: np.ndarray, signal: float) -> np.ndarray:
    """[2 seeds, N, 1]."""
    return (signal * positive_N + rng.normal(size=(2, len(positive_N))))[..., None]


def test_a_difference_equals_a_loop_over_resamples_patients_and_seeds() -> None:
    rng = np.random.default_rng(0)
    positive_N, patients_N = np.arange(30) % 2, np.repeat(np.arange(10), 3).astype(str)
    scores = {
        name: Scores(
            metric="auc",
            values=probabilities(rng, positive_N, signal),
            targets_NC=positive_N[:, None].astype(float),
            patients_N=patients_N,
        )
        for name, signal in (("convirt", 2.0), ("moco", 0.5))
    }
    drawn = draw_column(scores, 2)
    expected = []
    for part in range(2):
        plan = Resampling.draw(patients_N, seeds=2, resamples=50, seed=part)
        for r in range(50):
            gaps = []
            for s in plan.seeds_RS[r]:
                a, b = (auc(positive_N, own.values[s, :, 0], plan.weights_NR[:, r]) for own in scores.values())
                gaps.append(100 * (a - b))
            expected.append(np.mean(gaps))
    np.testing.assert_allclose(drawn["convirt"] - drawn["moco"], expected, rtol=1e-6)
    draws = {(name, "T"): values for name, values in drawn.items()}
    (found,) = differences(draws, {("convirt", "T"): 90.0, ("moco", "T"): 60.0}).values()
    assert found.difference == 30
    assert (found.low, found.high) == pytest.approx(tuple(np.nanquantile(expected, (0.025, 0.975))))
    assert found.p == found.p_holm


def test_there_are_enough_resamples_for_every_comparison_to_be_significant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "PART", 1000)
    for comparisons in (1, 45, 165, 250):
        resamples = 1000 * filling.parts_for(comparisons)
        assert comparisons * 2 / (resamples + 1) < filling.ALPHA


def test_p_values_are_corrected_over_all_columns_of_the_table() -> None:
    rng = np.random.default_rng(0)
    draws = {("convirt", title): rng.normal(3, 1, 999) for title in "AB"}
    draws |= {(method, title): rng.normal(1, 1, 999) for method in ("clip", "moco") for title in "AB"}
    found = differences(draws, {key: float(values.mean()) for key, values in draws.items()})
    assert len(found) == 4
    least = min(found.values(), key=lambda difference: difference.p)
    assert least.p_holm == pytest.approx(4 * least.p)
    assert ("convirt", "A") not in found


def keep(folder: Path, **arrays: Any) -> None:
    np.savez(folder / "predictions.npz", **arrays)


def test_scores_are_read_from_what_a_cell_kept(tmp_path: Path) -> None:
    row = {"method": "run", "metric": "auc", "head": "paper"}
    assert read_scores(tmp_path, LINEAR, row) is None
    scores_SNC = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    targets_NC = np.array([[1, 0], [1, 0], [0, 1], [0, 1.0]])
    shared = {"test_targets": targets_NC, "test_patients": np.array(["p", "p", "q", "r"])}
    keep(tmp_path, **{"paper|0.1|run": scores_SNC}, **shared)
    found = read_scores(tmp_path, LINEAR, row)
    assert found is not None
    np.testing.assert_array_equal(found.values, scores_SNC)
    assert found.patients_N.tolist() == ["p", "p", "q", "r"]
    keep(tmp_path, **{"paper|0.1|run": scores_SNC}, **shared, test_units=np.array(["b", "b", "a", "c"]))
    found = read_scores(tmp_path, LINEAR, row)
    assert found is not None
    assert found.patients_N.tolist() == ["p", "q", "r"]
    assert found.values[0].tolist() == [[1, 2], [4, 5], [6, 7]]  # the mean of a unit's images
    row = {"method": "run", "metric": "precision@5", "head": None}
    keep(tmp_path, **{"image-image|precision@5|run": np.array([0.2, 0.4])})
    assert read_scores(tmp_path, RETRIEVED, row) is None  # of an earlier version: the patients are not known
    keep(tmp_path, **{"image-image|precision@5|run": np.array([0.2, 0.4]), "image-image|of": np.array(["p", "q"])})
    found = read_scores(tmp_path, RETRIEVED, row)
    assert found is not None
    assert found.values.tolist() == [0.2, 0.4]


def test_scores_of_other_rows_are_not_compared() -> None:
    values, patients = np.array([0.2, 0.4, 0.6]), np.array(["p", "q", "r"])
    one = Scores(metric="precision@5", values=values, targets_NC=None, patients_N=patients)
    other = Scores(metric="precision@5", values=values, targets_NC=None, patients_N=patients[::-1])
    assert list(draw_column({"clip": other, "convirt": one}, 1)) == ["convirt"]


def filled(spread: float) -> Filled:
    """Our figures of one column, with draws around them that move together but for `spread`."""
    rng = np.random.default_rng(0)
    together = rng.normal(0, 10, 9999)
    figures = {}
    for method in TABLE.methods:
        for column in TABLE.columns:
            mean = MEANS[method] if column.title == TITLE else None
            bounds = (None, None) if mean is None else (mean - 20, mean + 20)
            paper = paper_figure(TABLE, method, column)
            figures[method, column.title] = Figure(mean=mean, spread=None, low=bounds[0], high=bounds[1], paper=paper)
    draws = {(m, TITLE): mean + together + rng.normal(0, spread, 9999) for m, mean in MEANS.items()}
    means = {(m, TITLE): mean for m, mean in MEANS.items()}
    return Filled(
        table=TABLE, methods=TABLE.methods, figures=figures, draws=draws, differences=differences(draws, means)
    )


def test_verdicts_rest_on_the_paired_test_where_scores_are_there() -> None:
    """Both intervals are wide, but the methods' errors are the same ones."""
    (found,) = agreements(filled(spread=0.1))
    assert len(found.differing) == 1
    assert found.differing[0].endswith("here 70.0 and 75.0 (beyond chance: paired p 0.001)")
    assert found.certain == 1
    assert found.low == found.rho == found.high
    (found,) = agreements(filled(spread=10.0))
    assert "may be chance: paired p " in found.differing[0]
    assert found.certain == 0
    assert found.low < found.rho
    assert "1 of 6 comparisons differ, 0 beyond chance." in in_words(filled(10.0), [found])[0]


def test_every_form_has_the_differences() -> None:
    table = filled(spread=0.1)
    assert table.differences["imagenet", TITLE].difference == 20
    assert set(table.differences) == {(m, TITLE) for m in ("imagenet", "simclr", "moco")}
    text = markdown(table, None, ["line"])
    assert "## ConVIRT minus each other method" in text
    assert "| SimCLR | **+5.0** (+4.7 to +5.3), p < 0.001 | - | - |" in text
    assert "over the 3 differences of this table" in text
    rows = {(row["method"], row["column"]): row for row in csv.DictReader(io.StringIO(as_csv(table)))}
    assert rows["simclr", TITLE]["difference"] == "5"
    assert rows["simclr", TITLE]["p_holm"] == "0.0006"
    assert rows["convirt", TITLE]["difference"] == ""
    tex = latex(table, None)
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert r"\textbf{$+$5.0} ($+$4.7 to $+$5.3), p $<$ 0.001" in tex
    page = as_html(table, None, [])
    assert '<b>+5.0</b><br><span class="paper">(+4.7 to +5.3), p &lt; 0.001</span>' in page
    unsure = markdown(filled(spread=10.0), None, [])
    assert "| SimCLR | +5.0 (" in unsure


def test_without_scores_there_is_no_second_table() -> None:
    with_tests = filled(0.1)
    table = Filled(table=TABLE, methods=TABLE.methods, figures=with_tests.figures)
    assert "minus" not in markdown(table, None, [])
    assert latex(table, None).count("tabular") == 2
    assert as_html(table, None, []).count("<table>") == 1
    assert "within the intervals" in agreements(table)[0].differing[0]


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0002, "p < 0.001"), (0.0123, "p 0.012"), (0.25, "p 0.25"), (1.0, "p 1.00")]
)
def test_p_values_are_printed_with_what_they_can_say(p: float, shown: str) -> None:
    assert in_figures(p) == shown
