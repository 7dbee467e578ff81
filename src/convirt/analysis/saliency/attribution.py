"""Maps of the pixels that a label's score depends on, by captum.

Shape legend: B images, R side of the view, D size of h_v, C classes.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from captum.attr import LayerAttribution, LayerGradCam, Saliency
from numpy.typing import NDArray
from torch import Tensor, nn

from convirt.encoders import ImageEncoder

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
