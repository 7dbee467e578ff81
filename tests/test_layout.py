"""Printed tables: no figure and no name is cut, whatever the width, and significance shows without bold type."""

import io
import re

import pytest
from rich.console import Console

from convirt.evaluation.printing import differences, figures, fitted, show

METHODS = ("random", "imagenet", "runs/a-very-long-name-of-a-run")


def row(method, **changes):
    return {
        "task": "image-image",
        "space": "features",
        "head": None,
        "fraction": None,
        "n_test": 8,
        "n_patients": 4,
        "method": method,
        "metric": "precision@10",
        "mean": 0.325,
        "std": None,
        "chance": 0.125,
        "ci_low": 0.301,
        "ci_high": 0.349,
        "n_train": 0,
        **changes,
    }


def printed(table, width, *, terminal):
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    show(table, console)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("width", [20, 60, 80, 200])
def test_nothing_is_cut_at_any_width(width, terminal):
    rows = [row(method, task=task) for task in ("image-image", "own caption, text to image") for method in METHODS]
    said = printed(figures(rows, None, "retrieve"), width, terminal=terminal)
    assert "…" not in said
    words = re.findall(r"[^\s│┃]+", said)
    assert [words.count(word) for word in ("32.5", "30.1", "34.9", "12.5")] == [6, 6, 6, 2]
    for name in (*METHODS, "precision@10", "(features)", "image-image", "caption,"):
        assert name in words
    lines = said.splitlines()
    if terminal and width >= 80:
        assert max(map(len, lines)) <= max(width, 98)
    if not terminal:
        assert "30.1 to 34.9" in said
        assert max(map(len, lines)) <= 100


def test_columns_narrow_to_their_longest_words_and_no_further():
    assert fitted([10, 20, 5], [3, 4, 5], 100) == [10, 20, 5]
    assert fitted([10, 20, 5], [3, 4, 5], 25) == [10, 10, 5]
    assert fitted([10, 20, 5], [9, 4, 5], 20) == [9, 6, 5]
    assert fitted([10, 20, 5], [3, 4, 5], 1) == [3, 4, 5]


def test_a_pipe_shows_which_differences_are_significant_and_how_many_images_a_share_is():
    rows = [row("a", head="paper", setting="linear", fraction=f, n_train=n) for f, n in ((0.01, 2), (1.0, 80))]
    table = figures(rows, "linear", "classify")
    said = printed(table, 80, terminal=False)
    assert "1 % (2)" in said
    assert "all (80)" in said
    assert "n: training images" in " ".join(said.split())
    comparisons = [
        {
            "a": "a",
            "b": "b",
            "head": "paper",
            "setting": "linear",
            "metric": "auc",
            "fraction": fraction,
            "difference": difference,
            "p_holm": p,
            "family_size": 2,
            "ci_low": 0.0,
            "ci_high": 0.2,
        }
        for fraction, difference, p in ((0.01, 0.1, 0.01), (1.0, 0.05, 0.3))
    ]
    said = printed(differences(comparisons, {0.01: 2, 1.0: 80}), 80, terminal=False)
    assert "+10.0*" in said
    assert "+5.0*" not in said
    assert "1 % (2)" in said
    assert "* (and bold) below 0.05" in " ".join(said.split())
