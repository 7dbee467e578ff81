"""Images as people have them, PIL images, arrays or tensors of many kinds, as the one kind that the encoders take.

Shape legend: H W sides of an image.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from convirt.errors import InputError

# ITU-R BT.601, what PIL's "L" mode uses.
LUMA = (0.299, 0.587, 0.114)


def grey_image(image: Any) -> Tensor:
    """One image in any accepted form as float32 [1, H, W] in [0, 1].

    Raises:
        InputError: Another type, shape or range.
    """
    if isinstance(image, Image.Image):
        image = np.array(image if image.mode in ("L", "I;16", "I;16B", "I;16L", "F", "RGB") else _plain_mode(image))
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="), copy=False)))
    if not isinstance(image, Tensor):
        raise InputError(f"encode_image takes PIL images, arrays and tensors, got {type(image).__name__}")
    image = image.detach().cpu()
    if image.dim() == 2:
        image = image[None]
    elif image.dim() == 3 and image.shape[0] not in (1, 3) and image.shape[2] in (1, 3):
        image = image.permute(2, 0, 1)
    if image.dim() != 3 or image.shape[0] not in (1, 3) or image.numel() == 0:
        raise InputError(f"an image has 1 or 3 channels and two sides, got shape {tuple(image.shape)}")
    if image.dtype in (torch.uint8, torch.uint16, torch.bool):
        image = image.to(torch.float32) / (1 if image.dtype == torch.bool else torch.iinfo(image.dtype).max)
    elif image.is_floating_point():
        image = image.to(torch.float32)
        # Written so that NaN is refused too.
        if not bool(((image >= 0) & (image <= 1)).all()):
            low, high = float(image.min()), float(image.max())
            raise InputError(f"floating-point images lie in [0, 1], got values from {low:g} to {high:g}")
    else:
        raise InputError(f"images are uint8, uint16 or floats in [0, 1], got {image.dtype}")
    if image.shape[0] == 3:
        image = torch.einsum("chw,c->hw", image, torch.tensor(LUMA))[None]
    return image


def _plain_mode(image: Image.Image) -> Image.Image:
    """Palettes, transparency and 32-bit integers (how PIL opens some 16-bit PNG files) as a mode that is read here."""
    if image.mode == "I":
        return Image.fromarray(np.array(image).clip(0, 65535).astype(np.uint16))
    return image.convert("L" if image.mode in ("1", "LA") else "RGB")


def as_many(images: Any) -> Iterable[Any]:
    """One image as a list of one; a batch as what it holds."""
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim == 4:
            return images
        if images.ndim == 2 or (images.ndim == 3 and (images.shape[0] in (1, 3) or images.shape[2] in (1, 3))):
            return [images]
        raise InputError(
            f"one array is one image or N x C x H x W, got shape {tuple(images.shape)}; give a list of images"
        )
    if not isinstance(images, Iterable) or isinstance(images, str | bytes | dict):
        raise InputError(f"encode_image takes PIL images, arrays and tensors, got {type(images).__name__}")
    return images
