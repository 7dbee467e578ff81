"""Maps of the pixels that a label's score depends on, by captum.

Shape legend: B images, R side of the view, D size of h_v, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from numpy.typing import NDArray
from torch import Tensor, nn

from convirt.encoders import ImageEncoder
from convirt.evaluation.inputs.images import Encoder, LabelledFeatures, encode_images
from convirt.evaluation.inputs.table import LabelledTable
from convirt.evaluation.linear import LinearHeads, train_heads
from convirt.evaluation.protocol import Schedule

Attribution = Literal["gradient", "grad-cam"]


class _Grid(nn.Module):
    """The encoder up to its last feature map, as a module that captum can hook."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images_B1RR: Tensor) -> Tensor:
        return self.encoder.grid(images_B1RR)


class Classifier(nn.Module):
    """A frozen encoder and one linear head: views to logits."""

    def __init__(self, encoder: ImageEncoder, weight_CD: Tensor, bias_C: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.weight_CD = weight_CD
        self.bias_C = bias_C

    def forward(self, images_B1RR: Tensor) -> Tensor:
        return F.linear(self.encoder(images_B1RR), self.weight_CD, self.bias_C)


class GridClassifier(Classifier):
    """The same with its last feature map as a part of its own."""

    def __init__(self, encoder: ImageEncoder, weight_CD: Tensor, bias_C: Tensor) -> None:
        super().__init__(encoder, weight_CD, bias_C)
        self.grid = _Grid(encoder)

    def forward(self, images_B1RR: Tensor) -> Tensor:
        backbone = self.encoder.backbone
        features_BD = backbone.forward_head(self.grid(images_B1RR), pre_logits=True)  # type: ignore[operator]
        return F.linear(features_BD, self.weight_CD, self.bias_C)


def saliency_maps(
    kind: Attribution,
    encoder: ImageEncoder,
    weight_CD: Tensor,
    bias_C: Tensor,
    images_B1RR: Tensor,
    targets_B: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The map of one label's logit for each image, float32 [B, R, R], nowhere negative.

    `gradient`: the absolute gradient of the logit by each pixel (Simonyan et al. 2014, section 3; what ConVIRT's figure
    4 shows). The grey pixel feeds all channels alike, so the maximum over channels falls away. `grad-cam`: the last
    feature map weighted by its mean gradient, positive part, brought to the view's size (Selvaraju et al. 2017).

    Args:
        kind: Which map.
        encoder: Frozen, in evaluation mode.
        weight_CD: The head's weights.
        bias_C: Its biases.
        images_B1RR: Views in [0, 1].
        targets_B: The label of each image.

    Raises:
        InputError: Grad-CAM of an encoder without a spatial feature map.
    """
    device = next(encoder.parameters()).device
    views = images_B1RR.to(device).detach().clone().requires_grad_()
    targets = torch.from_numpy(np.asarray(targets_B, dtype=np.int64)).to(device)
    weight_CD, bias_C = weight_CD.to(device), bias_C.to(device)
    with torch.enable_grad():
        if kind == "gradient":
            maps = Saliency(Classifier(encoder, weight_CD, bias_C)).attribute(views, target=targets, abs=True)
        else:
            model = GridClassifier(encoder, weight_CD, bias_C)
            coarse = LayerGradCam(model, model.grid).attribute(views, target=targets, relu_attributions=True)
            maps = LayerAttribution.interpolate(coarse, views.shape[-2:], interpolate_mode="bilinear")
    return maps[:, 0].detach().float().cpu().numpy()


def train_explained_heads(
    encoders: Mapping[str, Encoder],
    table: LabelledTable,
    fraction: float,
    seeds: Sequence[int],
    schedule: Schedule,
    *,
    batch_size: int,
) -> dict[str, LinearHeads]:
    """The paper's head of each encoder and seed; only the images of the subsets and of validation are encoded."""
    train = table.rows("train")
    subsets = [table.training_subset(fraction, seed) for seed in seeds]
    used = np.unique(np.concatenate(subsets))
    rows = np.concatenate([train[used], table.rows("val")])
    encoded = encode_images(
        [(encoder, "features") for encoder in encoders.values()],
        [table.paths[row] for row in rows],
        normalise=False,
        batch_size=batch_size,
        label="encoding images to train heads",
    )
    positions = [np.searchsorted(used, subset) for subset in subsets]
    heads = {}
    for name, features_ND in zip(encoders, encoded.vectors, strict=True):
        everything = LabelledFeatures(
            features_ND=features_ND, targets_NC=table.targets_NC[rows], multi_label=table.multi_label
        )
        known, val = (everything.take(part) for part in np.split(np.arange(len(rows)), [len(used)]))
        heads[name] = train_heads(known, val, positions, seeds, schedule)
    return heads


def pointing_game(map_RR: NDArray, mask_RR: NDArray[np.bool_]) -> float:
    """1 if the largest value lies inside the box, else 0 (Zhang et al. 2018, "Top-down neural attention", section 4.2).

    Without the tolerance of 15 pixels of that paper, whose images are larger. Of equal largest values the expected
    value of a draw among them, so that a constant map scores the box's share of the area.
    """
    return float(mask_RR[map_RR == map_RR.max()].mean())


def energy_inside(map_RR: NDArray, mask_RR: NDArray[np.bool_]) -> float:
    """The share of the map's sum that lies inside the box (Wang et al. 2020, "Score-CAM", section 4.3).

    A map of zeros (Grad-CAM can give one) says nothing: it scores the box's share of the area, as any constant map.
    """
    total = map_RR.sum(dtype=np.float64)
    return float(map_RR[mask_RR].sum(dtype=np.float64) / total) if total > 0 else float(mask_RR.mean())
