"""The phantom archive: frozen, deterministic, well formed; test_phantom_guards.py holds the guards on its exam."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import convirt.data.phantom as phantom_package
from convirt.data.phantom import CATEGORIES, draw_study, render, wording
from convirt.data.phantom.archive import phantom, split_of
from convirt.data.phantom.report import write_report
from convirt.errors import InputError

# The generator was frozen before any model was tuned on it. Whoever changes it must measure every figure anew, or show
# that the archives of a seed are the same byte for byte, as was done when writing moved to `atomic.py`.
FROZEN = "214839a62247f5f913dbff167f6cde4fb5022e0f5aad062122e91c5a58e041e9"
FROZEN_FILES = ("archive", "canvas", "disease", "frontal", "lateral", "radiograph", "report", "study", "wording")


def studies(seed: int, count: int) -> list:
    return [draw_study(seed, patient, 0) for patient in range(count)]


def test_generator_is_frozen():
    folder = Path(phantom_package.__file__).parent
    digest = hashlib.sha256()
    for name in FROZEN_FILES:
        digest.update((folder / f"{name}.py").read_bytes())
    assert digest.hexdigest() == FROZEN


def test_same_numbers_give_the_same_study_and_image():
    study = draw_study(5, 3, 1)
    assert study == draw_study(5, 3, 1)
    assert np.array_equal(render(study, 0, 64)[0], render(study, 0, 64)[0])
    assert write_report(study) == write_report(draw_study(5, 3, 1))
    assert not np.array_equal(render(study, 0, 64)[0], render(draw_study(6, 3, 1), 0, 64)[0])


@pytest.mark.parametrize("category", CATEGORIES)
def test_each_category_is_rendered_with_a_box(category):
    study = next(s for s in studies(1, 500) if s.categories == (category,))
    pixels, findings = render(study, 0, 96)
    assert pixels.shape == (96, 96)
    assert pixels.dtype == np.uint8
    assert pixels.std() > 20
    for finding in findings:
        left, top, right, bottom = finding.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


def test_a_finding_changes_pixels_inside_its_box_most():
    from dataclasses import replace

    found = [s for s in studies(2, 400) if s.categories == ("pneumonia",) and s.findings[0].severity == 3]
    inside, outside = [], []
    for study in found[:6]:
        sick, findings = render(study, 0, 128)
        healthy, _ = render(replace(study, findings=()), 0, 128)
        change = np.abs(sick.astype(float) - healthy)
        left, top, right, bottom = (round(128 * edge) for edge in findings[0].box)
        mask = np.zeros((128, 128), bool)
        mask[top:bottom, left:right] = True
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
    assert np.mean(inside) > 2 * np.mean(outside)


def test_prevalence_and_study_sizes():
    drawn = studies(3, 3000)
    shares = {name: np.mean([name in s.categories for s in drawn]) for name in CATEGORIES}
    assert shares["no finding"] == pytest.approx(0.20, abs=0.03)
    assert all(0.08 < share < 0.25 for share in shares.values())
    assert {len(s.views) for s in drawn} == {1, 2, 3}
    assert any("LATERAL" in s.views for s in drawn)
    assert np.mean([len(s.findings) == 2 for s in drawn]) > 0.1


def test_reports_name_their_findings_and_deny_only_absent_ones():
    for study in studies(4, 300):
        report = write_report(study)
        assert len(report.split()) > 8
        for name in CATEGORIES[:-1]:
            denied = any(sentence in report for sentence in wording.NEGATIONS[name])
            assert not (denied and name in study.categories), report
        if study.findings:
            assert not any(sentence in report for sentence in wording.NORMAL_FINDINGS)


def test_reports_repeat_no_sentence():
    for study in studies(8, 300):
        body = write_report(study).split("\n\n")[-2]
        sentences = [s for s in body.split("\n", 1)[1].split(". ") if s]
        assert len(sentences) == len(set(sentences))


def test_queries_share_no_template_with_the_reports():
    def key(text: str) -> str:
        return " ".join(word for word in text.lower().replace(".", " ").replace(",", " ").split() if "{" not in word)

    groups = (wording.FINDINGS, wording.IMPRESSIONS, wording.NEGATIONS)
    trained = {key(t) for group in groups for templates in group.values() for t in templates}
    trained |= {key(t) for t in wording.NORMAL_FINDINGS + wording.NORMAL_IMPRESSIONS + wording.UNRELATED}
    queries = [query for texts in wording.QUERIES.values() for query in texts]
    assert len(queries) == len(set(queries)) == 40
    for query in queries:
        assert key(query) not in trained
        assert not any(key(query) in template for template in trained)


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return phantom(tmp_path_factory.mktemp("phantom") / "archive", patients=60, size=64, seed=9, workers=2)


def test_archive_tables_agree(archive):
    reports, labels = pd.read_csv(archive / "reports.csv"), pd.read_csv(archive / "labels.csv")
    assert all((archive / "images" / name).exists() for name in reports["image"])
    assert set(labels["image"]) == set(reports.loc[reports["view"] != "LATERAL", "image"])
    assert (labels[list(CATEGORIES)].sum(axis=1) >= 1).all()
    assert (labels.groupby("patient_id")["split"].nunique() == 1).all()
    assert set(reports["split"]) == {"train", "val", "test"}
    assert len(pd.read_csv(archive / "queries.csv")) == 40


def test_retrieval_lists_are_exclusive_and_disjoint_by_patient(archive):
    lists = pd.read_csv(archive / "retrieval.csv")
    labels = pd.read_csv(archive / "labels.csv").set_index("image")
    for row in lists.itertuples():
        assert labels.loc[row.image, list(CATEGORIES)].sum() == 1
        assert labels.loc[row.image, row.finding] == 1
        assert labels.loc[row.image, "split"] == "test"
    for _, group in lists.groupby("finding"):
        owners = group.groupby("role")["patient_id"].agg(set)
        if len(owners) == 2:
            assert not owners["query"] & owners["candidate"]


def test_archive_does_not_depend_on_workers(archive, tmp_path):
    again = phantom(tmp_path / "again", patients=60, size=64, seed=9, workers=1)
    for path in sorted(archive.rglob("*.*")):
        assert path.read_bytes() == (again / path.relative_to(archive)).read_bytes(), path


def test_splits_are_by_patient():
    names = [split_of(p, 100) for p in range(100)]
    assert names.count("train") == 70
    assert names.count("val") == 7
    assert names.count("test") == 23


def test_existing_folder_and_small_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        phantom(tmp_path)
    with pytest.raises(InputError, match="patients >= 10"):
        phantom(tmp_path / "new", patients=2)
    assert not list(tmp_path.iterdir())
