"""Saliency: boxes on the view, the two numbers by hand, gradients by finite differences, and the verb."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import benchmark_trees
from conftest import draw_shape
from convirt import errors
from convirt.analysis.saliency.attribution import GridClassifier, energy_inside, pointing_game, saliency_maps
from convirt.analysis.saliency.boxes import mask_of, read_boxes
from convirt.config import ImageEncoderConfig
from convirt.data.benchmarks.rsna import benchmark_rsna
from convirt.encoders import build_image_encoder
from convirt.errors import InputError
from flat_verbs import saliency


def write_boxes(folder, rows, columns):
    pd.DataFrame(rows, columns=columns).to_csv(folder / "boxes.csv", index=False)
    return folder / "boxes.csv"


SHARES = ("image", "label", "left", "top", "right", "bottom")
PIXELS = ("image", "label", "x", "y", "width", "height")


def test_boxes_lie_where_the_padded_square_shows_them(tmp_path):
    shares = read_boxes(write_boxes(tmp_path, [("a.png", "Edema", 0.25, 0.5, 0.75, 1)], SHARES))
    pixels = read_boxes(write_boxes(tmp_path, [("a.png", "edema", 15, 20, 30, 20)], PIXELS))
    # 40 rows and 60 columns: the square has 60, with ten black rows above the image
    expected = (15 / 60, (10 + 20) / 60, 45 / 60, (10 + 40) / 60)
    for boxes in (shares, pixels):
        assert boxes.on_view("a.png", "EDEMA", 40, 60) == [pytest.approx(expected)]
        assert boxes.on_view("a.png", "fracture", 40, 60) == []


def test_a_mask_covers_the_pixels_whose_centre_is_inside():
    mask_RR = mask_of([(0.25, 0.0, 0.75, 0.5), (0.9, 0.9, 0.91, 0.91)], 4)
    expected = np.zeros((4, 4), bool)
    expected[0:2, 1:3] = True
    expected[3, 3] = True  # smaller than a pixel, and still somewhere
    assert (mask_RR == expected).all()


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a.png", "edema", 0.5, 0.1, 0.5, 0.9)], SHARES, "row 0 is no box"),
        ([("a.png", "edema", 0.1, 0.1, 1.5, 0.9)], SHARES, "row 0 is no box"),
        ([("a.png", "edema", 1, 1, 0, 5)], PIXELS, "row 0 is no box"),
        ([("a.png", "edema", -1, 1, 5, 5)], PIXELS, "row 0 is no box"),
        ([("a.png", "edema", "left", 1, 5, 5)], PIXELS, "is no number"),
        ([("a.png", "edema")], ("image", "label"), "holds no boxes"),
    ],
)
def test_bad_boxes_are_refused(tmp_path, rows, columns, message):
    with pytest.raises(InputError, match=message):
        read_boxes(write_boxes(tmp_path, rows, columns))


def test_pointing_and_energy_by_hand():
    map_RR = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 0.0]])
    mask_RR = np.array([[False, True, False], [False, True, True]])
    assert pointing_game(map_RR, mask_RR) == 1
    assert energy_inside(map_RR, mask_RR) == pytest.approx((1 + 4) / 10)
    map_RR[0, 0] = 4  # two largest values, one of them inside
    assert pointing_game(map_RR, mask_RR) == 0.5
    assert pointing_game(map_RR, ~mask_RR) == 0.5
    for blind in (np.zeros((2, 3)), np.ones((2, 3))):
        assert pointing_game(blind, mask_RR) == energy_inside(blind, mask_RR) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def encoder():
    built = build_image_encoder(ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"), seed=3)
    return built.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def head(encoder):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, encoder.dim, generator=generator), torch.randn(3, generator=generator)


def test_the_gradient_map_equals_finite_differences(encoder, head):
    weight_CD, bias_C = head
    views = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    maps_BRR = saliency_maps("gradient", encoder, weight_CD, bias_C, views, np.array([2, 0]))
    assert maps_BRR.shape == (2, 32, 32)
    double = build_image_encoder(ImageEncoderConfig(name="test_resnet.r160_in1k", weights="random"), seed=3)
    double = double.eval().double()
    for image, label, y, x in ((0, 2, 5, 9), (0, 2, 20, 20), (1, 0, 16, 3)):
        scores = []
        for sign in (1, -1):
            nudged = views[image : image + 1].double()
            nudged[0, 0, y, x] += sign * 1e-6
            with torch.no_grad():
                scores.append(float((double(nudged) @ weight_CD.double().T + bias_C.double())[0, label]))
        assert maps_BRR[image, y, x] == pytest.approx(abs(scores[0] - scores[1]) / 2e-6, rel=1e-2, abs=1e-5)


def test_grad_cam_is_the_positive_weighted_sum_of_the_feature_map(encoder, head):
    weight_CD, bias_C = head
    views = torch.rand(3, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    labels = np.array([0, 1, 2])
    with torch.no_grad():
        grid_BDHW = encoder.grid(views)
        features_BD = encoder(views)
        logits = GridClassifier(encoder, weight_CD, bias_C)(views)
    torch.testing.assert_close(logits, features_BD @ weight_CD.T + bias_C)
    height, width = grid_BDHW.shape[2:]
    maps_BRR = saliency_maps("grad-cam", encoder, weight_CD, bias_C, views, labels)
    for b, label in enumerate(labels):
        # h is the mean over the map, so the gradient at each place is the head's weight over their number.
        coarse = np.zeros((height, width))
        for y in range(height):
            for x in range(width):
                total = sum(float(weight_CD[label, d] * grid_BDHW[b, d, y, x]) for d in range(grid_BDHW.shape[1]))
                coarse[y, x] = max(0.0, total / (height * width))
        expected = torch.nn.functional.interpolate(torch.tensor(coarse)[None, None], size=(64, 64), mode="bilinear")
        np.testing.assert_allclose(maps_BRR[b], expected[0, 0].numpy(), rtol=1e-3, atol=1e-5)


@pytest.fixture
def shapes(tmp_path):
    """Images of one shape each, left or right, with a table and boxes around the halves."""
    rng = np.random.default_rng(0)
    rows, boxes = [], []
    for i in range(48):
        shape, side = ("disc", "bar")[i % 2], ("left", "right")[i // 2 % 2]
        Image.fromarray(draw_shape(shape, side, rng)).save(tmp_path / f"{i}.png")
        rows.append(
            (f"{i}.png", f"p{i // 2}", ("train", "val", "test")[i // 16], int(shape == "disc"), int(shape == "bar"))
        )
        edges = (0, 0.5) if side == "left" else (0.5, 1)
        boxes.append((f"{i}.png", "disc" if shape == "disc" else "bar", edges[0], 0, edges[1], 1))
    pd.DataFrame(rows, columns=["image", "patient", "split", "disc", "bar"]).to_csv(tmp_path / "table.csv", index=False)
    return {
        "table": tmp_path / "table.csv",
        "images": tmp_path,
        "boxes": write_boxes(tmp_path, boxes, SHARES),
        "patient_column": "patient",
        "label_columns": ("disc", "bar"),
        "fraction": 0.5,
        "out": tmp_path / "out",
        "resamples": 50,
        "device": "cpu",
    }


def test_the_verb_beside_chance(tiny_run, shapes):
    results = saliency([tiny_run], **shapes, kinds=("gradient", "grad-cam"), seeds=2, baselines=("random",))
    written = json.loads((shapes["out"] / "metrics.json").read_text())
    assert len(written["rows"]) == 2 * 2 * 2  # kinds, metrics, methods
    for row in written["rows"]:
        assert row["n_test"] == 16
        assert len(row["seeds"]) == 2
        assert row["ci_low"] <= row["mean"] <= row["ci_high"]
        assert row["chance"] == pytest.approx(0.5 * 32 / 40, abs=0.02)  # half the image, itself 32 of 40 rows
        assert row["above_chance"] == pytest.approx(row["mean"] - row["chance"])
        assert row["above_chance_ci_low"] <= row["above_chance"] <= row["above_chance_ci_high"]
        assert set(row["by_class"]) == {"disc", "bar"}
    with np.load(shapes["out"] / "predictions.npz") as arrays:
        energy_SF = arrays["gradient|random|energy in the box"]
        assert energy_SF.shape == (2, 16)
    row = next(r for r in results.rows if (r["method"], r["metric"]) == ("random", "energy in the box"))
    assert row["mean"] == pytest.approx(energy_SF.mean())
    assert (shapes["out"] / "saliency.png").stat().st_size > 5000
    assert (shapes["out"] / "saliency.svg").is_file()
    assert written["data"]["shown"] == ["32.png", "33.png"]


def test_maps_that_are_zero_everywhere_are_counted_and_said(tiny_run, shapes, monkeypatch):
    from convirt.analysis.saliency import explaining

    monkeypatch.setattr(explaining, "saliency_maps", lambda kind, encoder, w, b, views, labels: 0 * views[:, 0].numpy())
    results = saliency([tiny_run], **shapes, seeds=1, baselines=())
    (note,) = [note for note in results.notes if "zero everywhere" in note]
    assert note.startswith("100 % of the gradient maps of ")
    assert all(row["mean"] == pytest.approx(row["chance"]) for row in results.rows)


def test_without_boxes_there_are_pictures_and_no_numbers(tiny_run, shapes, capsys):
    options = {**shapes, "boxes": None, "per_label": 2, "seeds": 1, "baselines": ()}
    capsys.readouterr()
    results = saliency([tiny_run], **options)
    said = capsys.readouterr().out
    assert said.startswith("wrote metrics.json")
    assert said.endswith("saliency.png\n")
    assert results.rows == []
    assert results.data["findings"] == 4
    assert (shapes["out"] / "saliency.png").is_file()
    with pytest.raises(InputError, match=r"results of another call \(other: --per-label\)"):
        saliency([tiny_run], **{**options, "per_label": 3})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"shown": 0}, "shown must be at least 1"),
        ({"kinds": ()}, "name at least one kind"),
        ({"label_columns": ()}, "name a label column"),
        ({"fraction": 0.0}, "fraction"),
    ],
)
def test_bad_settings_are_refused(tiny_run, shapes, changes, message):
    with pytest.raises(InputError, match=message):
        saliency([tiny_run], **{**shapes, **changes}, baselines=())


def test_boxes_of_other_images_are_refused(tiny_run, shapes, tmp_path):
    shapes["boxes"] = write_boxes(tmp_path, [("other.png", "disc", 0, 0, 1, 1)], SHARES)
    with pytest.raises(InputError, match="no positive label of a test image has a box"):
        saliency([tiny_run], **shapes, baselines=())


def test_a_missing_captum_is_named(monkeypatch, tiny_run, shapes):
    monkeypatch.setattr(errors, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"captum: pip install 'convirt\[figures\]'"):
        saliency([tiny_run], **shapes)


def test_phantom_boxes_are_those_of_the_generator(tmp_path):
    from convirt.data.phantom import archive
    from convirt.data.phantom.boxes import phantom

    whole = phantom(tmp_path / "with", patients=12, size=64, seed=2, workers=1)
    plain = archive.phantom(tmp_path / "without", patients=12, size=64, seed=2, workers=1)
    boxes = pd.read_csv(whole / "boxes.csv")
    for path in plain.rglob("*.*"):  # the frozen archive is untouched
        assert path.read_bytes() == (whole / path.relative_to(plain)).read_bytes()
    labels = pd.read_csv(whole / "labels.csv").set_index("image")
    for row in boxes.itertuples():
        assert labels.loc[row.image, row.label] == 1
        known = [f["box"] for f in json.loads(labels.loc[row.image, "boxes"]) if f["category"] == row.label]
        assert any(math.dist(box, (row.left, row.top, row.right, row.bottom)) < 1e-9 for box in known)
    assert len(boxes) == sum(
        f["box"][0] < f["box"][2] and f["box"][1] < f["box"][3] for text in labels["boxes"] for f in json.loads(text)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["with", "without"]
    with pytest.raises(InputError, match="exists already"):
        phantom(whole)


@pytest.mark.parametrize("published", [False, True])
def test_the_rsna_benchmark_brings_its_boxes(tmp_path, published):
    root = benchmark_trees.rsna(tmp_path / "rsna", test_labels=not published)
    if published:
        opacity = {"labelId": "L1", "data": {"x": 3.5, "y": 4, "width": 20, "height": 9}}
        content = {
            "labelGroups": [
                {"name": "Calculated", "labels": [{"id": "L1", "name": "Lung Opacity"}, {"id": "L2", "name": "Normal"}]}
            ],
            "datasets": [
                {
                    "annotations": [
                        {
                            **(opacity if i % 3 == 0 else {"labelId": "L2"}),
                            "StudyInstanceUID": f"1.2.test.{i}",
                            "SOPInstanceUID": f"1.2.test.{i}.9",
                        }
                        for i in range(16)
                    ]
                }
            ],
        }
        (root / "pneumonia-challenge-annotations-adjudicated-kaggle_2018.json").write_text(json.dumps(content))
    benchmark = benchmark_rsna(root, tmp_path / "out", split="images", val_images=8)
    boxes = read_boxes(benchmark.folder / "boxes.csv")
    positive = pd.read_csv(benchmark.table).query("pneumonia == 1")["image"]
    assert all(boxes.of(image, "pneumonia") for image in positive)
    assert len(boxes.by_finding) == len(positive)
    train = next(image for image in positive if "train" in image)
    assert boxes.of(train, "pneumonia") == ((10, 10, 40, 40),) * 2
    if published:
        assert boxes.of("stage_2_test_images/00000003-test.dcm", "pneumonia") == ((3.5, 4, 23.5, 13),)
