"""`retrieve` by the head of Contrastive-Binary, beside the cosine of its projected vectors."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fake_encoders import Oracle, install, write_archive
from flat_verbs import retrieve


class Headed(Oracle):
    """Its projected vectors point away from each other, as if no loss had aligned them; its head sees the class."""

    pair_head = object()

    def __init__(self) -> None:
        super().__init__(name="headed")
        self.compared: list[tuple[int, int]] = []

    def encode_text(self, texts: Any, *, space: str, batch_size: int, normalise: bool) -> np.ndarray:
        vectors = super().encode_text(texts, space=space, batch_size=batch_size, normalise=normalise)
        return -vectors if normalise else vectors

    def match_vectors(self, v_ND: np.ndarray, u_TD: np.ndarray, *, batch_size: int) -> np.ndarray:
        """Takes what is not normalised alone."""
        for vectors in (v_ND, u_TD):
            assert not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
        self.compared.append((len(v_ND), len(u_TD)))
        v_ND, u_TD = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v_ND, u_TD))
        return 9 * v_ND @ u_TD.T - 4


@pytest.fixture
def archive(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "images").mkdir()
    (tmp_path / "queries.csv").write_text("text,finding\nedema of both lungs,edema\nfracture of a rib,fracture\n")
    return {
        "table": write_archive(tmp_path / "images"),
        "images": tmp_path / "images",
        "patient_column": "patient",
        "split_column": "split",
        "out": tmp_path / "out",
        "resamples": 50,
        "label_column": "finding",
        "text_column": "caption",
        "queries": tmp_path / "queries.csv",
        "ks": (5,),
        "recall_ks": (1,),
    }


def figures(rows: list[dict[str, Any]], **keys: Any) -> dict[str, float]:
    return {row["method"]: row["mean"] for row in rows if all(row[key] == value for key, value in keys.items())}


def test_a_method_with_a_head_has_rows_by_it_too(archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    headed, oracle = Headed(), Oracle()
    install(monkeypatch, headed, oracle)
    rows = list(retrieve(["headed", "oracle"], **archive, baselines=()).rows)  # type: ignore[arg-type]
    assert figures(rows, task="text-image", metric="precision@5", scorer="cosine") == {"headed": 0.0, "oracle": 1.0}
    assert figures(rows, task="text-image", metric="precision@5 by the head", scorer="head") == {"headed": 1.0}
    assert {row["space"] for row in rows if row["scorer"] == "head"} == {"shared"}
    for direction in ("text to image", "image to text"):
        task = f"own caption, {direction}"
        by_head = figures(rows, task=task, metric="recall@1 by the head", scorer="head")
        assert by_head["headed"] == figures(rows, task=task, metric="recall@1", scorer="cosine")["oracle"]
        assert "recall@1 one-to-one by the head" in {row["metric"] for row in rows if row["task"] == task}
    assert headed.compared[0] == (40, 2)


def test_views_of_a_study_are_averaged_before_the_head(
    archive: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image is there twice, as two views of one study."""
    headed = Headed()
    install(monkeypatch, headed)
    table = pd.read_csv(archive["table"], dtype=str).assign(study=lambda rows: rows["image"])
    for name in table["image"]:
        shutil.copy(archive["images"] / name, archive["images"] / f"again-{name}")
    pd.concat([table, table.assign(image="again-" + table["image"])]).to_csv(archive["table"], index=False)
    rows = list(retrieve(["headed"], **archive, pool_column="study", baselines=()).rows)  # type: ignore[arg-type]
    assert figures(rows, task="text-image", metric="precision@5 by the head") == {"headed": 1.0}
    assert headed.images_seen == 3 * 80  # features, vectors of length 1, and as they are
    assert headed.compared[0] == (40, 2)
