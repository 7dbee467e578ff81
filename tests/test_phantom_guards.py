"""Guards on the phantom exam: generator, exam and baseline come from one hand, so show that the exam is not easy.

The findings must be there to be seen (supervised training finds them), must not be seen without looking closely
(thumbnails miss them), and ImageNet features must leave room. All on the test patients of the archive.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from convirt.data.phantom import CATEGORIES
from convirt.data.phantom.archive import phantom
from convirt.encoders.image_encoder import build_image_encoder
from convirt.recipes import demo
from convirt.transforms import apply, draw_parameters, plain_view

PATIENTS = 1600


class Exam:
    """Images and labels of the demo's archive."""

    def __init__(self, folder: Path) -> None:
        table = pd.read_csv(folder / "labels.csv")
        self.images_N1SS = torch.stack(
            [torch.from_numpy(np.array(Image.open(folder / "images" / name)))[None] for name in table["image"]]
        )
        self.labels_NL = table[list(CATEGORIES)].to_numpy()
        self.train = np.flatnonzero(table["split"] == "train")
        self.test = np.flatnonzero(table["split"] == "test")
        patients = table["patient_id"].to_numpy()
        assert not set(patients[self.train]) & set(patients[self.test])

    def mean_auc(self, scores_NL: np.ndarray) -> float:
        return float(np.mean([roc_auc_score(self.labels_NL[self.test, i], scores_NL[:, i]) for i in range(8)]))

    def logistic(self, features_ND: np.ndarray, c: float) -> float:
        scaled = StandardScaler().fit(features_ND[self.train]).transform(features_ND)
        scores = [
            LogisticRegression(C=c, max_iter=300)
            .fit(scaled[self.train], self.labels_NL[self.train, i])
            .decision_function(scaled[self.test])
            for i in range(8)
        ]
        return self.mean_auc(np.stack(scores, axis=1))


@pytest.fixture(scope="module")
def exam(tmp_path_factory) -> Exam:
    return Exam(phantom(tmp_path_factory.mktemp("guards") / "archive", patients=PATIENTS))


def test_thumbnails_do_not_pass(exam):
    thumbnails = torch.nn.functional.interpolate(exam.images_N1SS.float(), (16, 16), mode="area").flatten(1).numpy()
    # The best of several C on the test set itself: a generous bound.
    best = max(exam.logistic(thumbnails, c) for c in (1e-3, 1e-2, 1e-1))
    print(f"thumbnails: mean AUC {best:.3f}")
    assert best < 0.65


def test_imagenet_features_leave_room(exam):
    config = demo()
    encoder = build_image_encoder(config.image_encoder).eval()
    with torch.inference_mode():
        features = torch.cat(
            [encoder(plain_view(batch, config.transform.size)) for batch in exam.images_N1SS.split(64)]
        ).numpy()
    auc = max(exam.logistic(features, c) for c in (1e-4, 1e-3, 1e-2))
    print(f"ImageNet: mean AUC {auc:.3f}")
    assert 0.70 < auc < 0.85


def test_supervised_training_sees_the_findings(exam):
    config, steps = demo(), 450
    torch.manual_seed(0)
    encoder = build_image_encoder(config.image_encoder).to(memory_format=torch.channels_last)
    head = torch.nn.Linear(encoder.dim, len(CATEGORIES))
    optimiser = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    labels = torch.from_numpy(exam.labels_NL).float()
    order = torch.cat([torch.randperm(len(exam.train), generator=generator) for _ in range(10)])
    for step in range(steps):
        rows = torch.from_numpy(exam.train)[order[32 * step : 32 * (step + 1)]]
        images = exam.images_N1SS[rows]
        parameters = draw_parameters(config.transform, len(rows), images.shape[-1], generator)
        scores = head(encoder(apply(images, parameters, config.transform)))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    encoder.eval()
    with torch.inference_mode():
        test = exam.images_N1SS[torch.from_numpy(exam.test)]
        scores = torch.cat([head(encoder(plain_view(batch, config.transform.size))) for batch in test.split(64)])
    auc = exam.mean_auc(scores.numpy())
    print(f"supervised, {steps} steps: mean AUC {auc:.3f}")
    assert auc > 0.93
