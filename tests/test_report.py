"""The demo's page: its figures, its tables, and that it carries everything with it."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from convirt.analysis import figures, report
from convirt.data.phantom import CATEGORIES

SCRIPT = "<script>alert('report')</script>"


def row(method: str, mean: float, **changes: Any) -> dict[str, Any]:
    """A row of results; by default of the paper's head with all labels."""
    common = {"task": "finding", "space": "features", "metric": "auc", "head": "paper", "fraction": 1.0, "n_train": 200}
    return {
        **common,
        "method": method,
        "mean": mean,
        "ci_low": mean - 0.02,
        "ci_high": mean + 0.03,
        "chance": 0.5,
        **changes,
    }


def found(task: str, method: str, mean: float, **changes: Any) -> dict[str, Any]:
    """A row of retrieval."""
    values = {"task": task, "metric": "precision@10", "head": None, "fraction": None, "n_train": 0, "chance": 0.125}
    return row(method, mean, **(values | changes))


ROWS = [
    row("imagenet", 0.71, fraction=0.01, n_train=20),
    row("convirt", 0.8449, fraction=0.01, n_train=20),
    row("imagenet", 0.80),
    row("convirt", 0.91),
    row("imagenet", 0.83, head="logistic"),
    row("convirt", 0.82, head="logistic"),
]
RETRIEVAL = [
    found("image-image", "imagenet", 0.15),
    found("image-image", "convirt", 0.375),
    found("text-image", "convirt", 0.99, metric="precision@5"),
    found("text-image", "convirt", 0.5, space="shared"),
]
METRICS: dict[str, Any] = {
    "rows": ROWS + RETRIEVAL,
    "comparisons": [
        {
            "a": "convirt",
            "b": baseline,
            "metric": "auc",
            "head": "paper",
            "fraction": 1.0,
            "difference": 0.11,
            "ci_low": -0.021,
            "ci_high": 0.137,
            "excludes_zero": False,
        }
        for baseline in ("imagenet", "random")
    ],
    "seeds": [0, 1, 2],
    "config": {"archive_seed": 0, "seed": 5},
    "versions": {"convirt": "0.1.0", "torch": "<2>"},
    "seconds": {"archive": 3.5},
    "data": {"convirt": {"train_pairs": 1234, "corpus": "0123456789abcdef" * 4}},
    "analysis": {
        "tsne": {
            "rows": [
                found("neighbours in the features", "convirt", 0.4567, metric="purity@10", perplexity=30.0),
                found("separation in the features", "convirt", 0.21, metric="silhouette", perplexity=30.0),
            ]
        },
        "saliency": {
            "rows": [
                found(
                    "gradient maps",
                    "convirt",
                    0.3214,
                    metric="pointing game",
                    label_fraction=0.01,
                    n_test=37,
                    n_patients=29,
                    above_chance=0.2,
                    above_chance_ci_low=0.1,
                    above_chance_ci_high=0.3,
                )
            ]
        },
    },
    "pretraining": {
        "steps": 400,
        "best_step": 300,
        "best_validation_loss": 1.23456,
        "config": {
            "optimiser": {"batch_size": 32},
            "image_encoder": {"name": "an encoder"},
            "transform": {"size": 112},
            "text_encoder": {"source": "package:text"},
        },
    },
}


def test_the_smoothed_curve_is_a_moving_average_corrected_for_its_start():
    # By hand, keep = 1/2: 1; (1/4 + 0/2) / (3/4); (1/8 + 4/2) / (7/8).
    assert figures.smoothed([1, 0, 4], keep=0.5) == pytest.approx([1, 1 / 3, 17 / 7])
    assert figures.smoothed([2.5] * 30) == pytest.approx([2.5] * 30)
    assert figures.smoothed([]) == []


def test_the_cards_are_the_papers_head_and_p10_beside_chance():
    cards = report.headlines(METRICS)
    assert [(card["value"], card["title"], card["beside"]) for card in cards] == [
        ("84.5", "AUC with 1 % of the labels", "ImageNet 71.0"),
        ("91.0", "AUC with all of the labels", "ImageNet 80.0"),
        ("4.0×", "chance, text-image retrieval", "Precision@10 50.0 against 12.5"),
        ("3.0×", "chance, image-image retrieval", "Precision@10 37.5 against 12.5"),
    ]


def test_the_table_sets_methods_side_by_side_and_marks_the_best():
    lines = report.tabulate(ROWS)
    assert [(line["head"], line["fraction"], line["n_train"], line["best"]) for line in lines] == [
        ("paper", 0.01, 20, "convirt"),
        ("paper", 1.0, 200, "convirt"),
        ("logistic", 1.0, 200, "imagenet"),
    ]
    assert all(set(line["cells"]) == {"imagenet", "convirt"} for line in lines)
    assert lines[2]["cells"]["convirt"]["mean"] == 0.82


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page of a demo folder made by hand; only the model is left out."""
    images = tmp_path / "archive" / "images"
    images.mkdir(parents=True)
    names = [f"{number}.png" for number in range(2)]
    for number, name in enumerate(names):
        Image.fromarray(np.full((40, 30), 100 + 50 * number, dtype=np.uint8)).save(images / name)
    report_text = f"FINDINGS: Clear & wide. {SCRIPT}"
    pd.DataFrame({"image": names, "report": report_text}).to_csv(tmp_path / "archive" / "reports.csv", index=False)
    labels = pd.DataFrame({"image": names, "finding": CATEGORIES[:2]})
    labels.to_csv(tmp_path / "archive" / "labels.csv", index=False)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "convirt").mkdir()
    log = [{"event": "step", "step": step, "loss": 3 / step} for step in range(1, 9)]
    log.append({"event": "validation", "step": 8, "loss": 0.7})
    (tmp_path / "convirt" / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    (tmp_path / "tsne").mkdir()
    places = {"method": "convirt", "category": CATEGORIES[:3], "x": [0.0, 1.0, 2.0], "y": [1.0, 0.0, 1.0]}
    pd.DataFrame(places).to_csv(tmp_path / "tsne" / "tsne.csv", index=False)
    (tmp_path / "saliency").mkdir()
    Image.new("RGB", (40, 20)).save(tmp_path / "saliency" / "saliency.png")
    thumbnail = report.thumbnail(images / names[0])
    hits = [{"image": thumbnail, "finding": "edema", "hit": hit, "similarity": "0.50"} for hit in (True, False)]
    searches = [{"text": f'"Oedema" {SCRIPT}', "finding": "edema", "hits": hits}]
    monkeypatch.setattr(report, "searches", lambda folder: searches)
    written = report.write_report(tmp_path)
    assert written == tmp_path / "report.html"
    assert not list(tmp_path.glob(".*")), "a temporary file is left"
    return written.read_text()


def test_the_page_says_what_was_measured(page: str):
    for text in (
        "45.7",
        "32.1",
        "37\n  findings in 29 patients",
        "84.5",
        "91.0",
        "4.0×",
        "+11.0",
        "-2.1 to +13.7",
        "1.235",
        "1234",
        "0123456789abcdef<",
        "torch &lt;2&gt;",
    ):
        assert text in page
    # One line for the comparison with ImageNet, none for the one with random weights.
    assert page.count("+11.0") == 1
    assert page.count('<figure class="hit">') == 1
    assert "1 of 2" in page
    assert "not a medical device" in page
    assert page.count("<svg") == 4


def test_what_reports_and_queries_hold_is_text_not_markup(page: str):
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;report&#39;)&lt;/script&gt;") == 3  # two pairs, one query
    assert "Clear &amp; wide." in page


def test_nothing_is_fetched(page: str):
    sources = re.findall(r"\bsrc\s*=\s*[\"']([^\"']*)", page)
    assert len(sources) == 5
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert all(target.startswith("#") for target in re.findall(r"\bhref\s*=\s*[\"']([^\"']*)", page))
    assert all(target.startswith("#") for target in re.findall(r"\burl\(\s*[\"']?([^)]*)", page))
    assert not re.search(r"@import|<link|<iframe|<object|<embed|http-equiv", page)


def test_figures_scale_with_the_page_and_are_the_same_each_time():
    log = [{"event": "step", "step": 1, "loss": 3.0}]
    curves = figures.learning_curves(log, 32)
    assert curves.startswith("<svg")
    assert curves == figures.learning_curves(log, 32)
    assert "validation" not in curves
    assert "validation" in figures.learning_curves([{"event": "validation", "step": 1, "loss": 2.0}], 32)
    bars = figures.retrieval_bars(RETRIEVAL)
    assert "text-image, ConVIRT" in bars
    assert "Precision@10" in bars


def test_thumbnails_keep_their_shape(tmp_path: Path):

    Image.fromarray(np.zeros((100, 50), dtype=np.uint8)).save(tmp_path / "tall.png")
    address = report.thumbnail(tmp_path / "tall.png", size=20)
    with Image.open(io.BytesIO(base64.b64decode(address.split(",", 1)[1]))) as image:
        assert image.size == (10, 20)
