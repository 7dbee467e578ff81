"""The image transformation family T that each view t_v is drawn from (ConVIRT, section 2.3 and appendix A).

Five random transformations in the paper's order: crop (and resize), horizontal flip, affine, brightness and contrast,
Gaussian blur. A whole batch is transformed at once, each image with its own parameters, on whatever device it lies;
the images keep one grey channel. The arithmetic is torchvision's, to rounding.

Shapes: B images, S side of the prepared square image, R side of the view, K side of the blur kernel.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from convirt.config import TransformConfig

DRAWS_PER_IMAGE = 12
ATTEMPTS = 10
"""How often a crop of another shape than a square is drawn until it lies inside the image, as torchvision has it."""
EXTRA_DRAWS = 2 * ATTEMPTS + 2
"""Further draws per image for crops that are not square, and for transformations that are left out at random."""
SMALLEST_SIGMA = 1e-3
"""Below this the Gaussian is one pixel wide in float32; it stands for 0, which would divide by zero."""


@dataclass(frozen=True, kw_only=True)
class TransformParameters:
    """One drawn t_v for each image of a batch; every field is a CPU tensor with first dimension B."""

    top_B: Tensor
    """First row of the crop, int64 pixels of the prepared image."""
    left_B: Tensor
    """First column of the crop, int64 pixels."""
    height_B: Tensor
    """Height of the crop, int64 pixels."""
    width_B: Tensor
    """Width of the crop, int64 pixels."""
    flip_B: Tensor
    """Whether to flip left and right, bool."""
    angle_B: Tensor
    """Rotation about the centre, degrees clockwise, float64 (as all that follow)."""
    translate_B2: Tensor
    """Shift to the right and down, as parts of the view's side."""
    scale_B: Tensor
    brightness_B: Tensor
    contrast_B: Tensor
    sigma_B: Tensor
    """Standard deviation of the blur, pixels of the view."""


def square(image_1HW: Tensor) -> Tensor:
    """Zero-pad an image to a square with the image in its centre (an odd pixel goes right or below)."""
    height, width = image_1HW.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    image_1SS = image_1HW.new_zeros((*image_1HW.shape[:-2], side, side))
    image_1SS[..., top : top + height, left : left + width] = image_1HW
    return image_1SS


def draw_parameters(config: TransformConfig, batch: int, side: int, generator: torch.Generator) -> TransformParameters:
    """Draw one transformation for each image, independently and uniformly in the ranges of `config`.

    Args:
        config: The ranges.
        batch: How many images.
        side: Side S of the prepared images, pixels.
        generator: A CPU generator; the result is a function of its state alone, on every device. Row i takes a fixed
            number of draws after those of the rows before it, so it does not depend on the size of the batch.
    """
    sometimes = config.jitter_probability < 1 or config.blur_probability < 1
    extra = EXTRA_DRAWS if sometimes or config.aspect != (1.0, 1.0) else 0
    unit_BD = torch.rand(batch, DRAWS_PER_IMAGE + extra, generator=generator, dtype=torch.float64)
    unit_BD, extra_BD = unit_BD[:, :DRAWS_PER_IMAGE], unit_BD[:, DRAWS_PER_IMAGE:]

    def uniform(column: int, low: float, high: float) -> Tensor:
        return low + (high - low) * unit_BD[:, column]

    def unless(column: int, probability: float, drawn_B: Tensor, neutral: float) -> Tensor:
        """What was drawn, or with 1 - probability what changes nothing."""
        return drawn_B if probability == 1 else torch.where(extra_BD[:, column] < probability, drawn_B, neutral)

    jitter, blur = config.jitter_probability, config.blur_probability
    if config.aspect == (1.0, 1.0):
        height_B = width_B = _square_sides(unit_BD[:, 0], config.crop, side)
    else:
        height_B, width_B = _rectangles(extra_BD[:, 2:], config, side)
    return TransformParameters(
        top_B=(unit_BD[:, 1] * (side - height_B + 1)).long(),
        left_B=(unit_BD[:, 2] * (side - width_B + 1)).long(),
        height_B=height_B,
        width_B=width_B,
        flip_B=unit_BD[:, 3] < config.flip,
        angle_B=uniform(4, -config.degrees, config.degrees),
        translate_B2=torch.stack([uniform(column, -config.translate, config.translate) for column in (5, 6)], dim=1),
        scale_B=uniform(7, *config.scale),
        brightness_B=unless(0, jitter, uniform(8, *config.brightness), 1.0),
        contrast_B=unless(0, jitter, uniform(9, *config.contrast), 1.0),
        sigma_B=unless(1, blur, uniform(10, *config.blur_sigma), 0.0),
    )


def _square_sides(unit_B: Tensor, area: tuple[float, float], side: int) -> Tensor:
    """Sides of square crops, uniform in the ratio of area; rounding to whole pixels must not leave the range."""
    smallest = min(math.ceil(math.sqrt(area[0]) * side), side)
    largest = max(math.floor(math.sqrt(area[1]) * side), smallest)
    ratio_B = area[0] + (area[1] - area[0]) * unit_B
    return (ratio_B.sqrt() * side).round().long().clamp(smallest, largest)


def _rectangles(unit_BD: Tensor, config: TransformConfig, side: int) -> tuple[Tensor, Tensor]:
    """Heights and widths of crops, uniform in area and log-uniform in aspect among those that fit into the image."""
    (small, large), (narrow, wide) = config.crop, config.aspect
    area_BA = (small + (large - small) * unit_BD[:, :ATTEMPTS]) * side**2
    aspect_BA = torch.exp(math.log(narrow) + math.log(wide / narrow) * unit_BD[:, ATTEMPTS:])
    sides_2BA = torch.stack([(area_BA / aspect_BA).sqrt(), (area_BA * aspect_BA).sqrt()]).round().long()
    fits_BA = ((sides_2BA > 0) & (sides_2BA <= side)).all(dim=0)
    first_B1 = fits_BA.long().argmax(dim=1, keepdim=True)
    sides_2B = sides_2BA.gather(2, first_B1.expand(2, -1, -1)).squeeze(2)
    # Where none fits: the largest crop of the nearest aspect.
    nearest = min(max(1.0, narrow), wide)
    fallback_21 = torch.tensor([[round(side / max(nearest, 1))], [round(side * min(nearest, 1))]])
    height_B, width_B = torch.where(fits_BA.any(dim=1), sides_2B, fallback_21.clamp_min(1))
    return height_B, width_B


@torch.no_grad()
def apply(images_B1SS: Tensor, parameters: TransformParameters, config: TransformConfig) -> Tensor:
    """Transform a batch of prepared images, each by its own parameters.

    Args:
        images_B1SS: uint8, uint16, or float in [0, 1].
        parameters: As `draw_parameters` gave them for this side S.
        config: Gives the side R of the view and the kernel of the blur.

    Returns:
        images_B1RR, float32 in [0, 1], on the device of the images.
    """
    with torch.autocast(device_type=images_B1SS.device.type, enabled=False):
        images_B1RR = _crop(_to_float(images_B1SS), parameters, config.size)
        if config.degrees or config.translate or config.scale != (1.0, 1.0):
            images_B1RR = _affine(images_B1RR, parameters)
        images_B1RR = _jitter(images_B1RR, parameters)
        return _blur(images_B1RR, parameters.sigma_B, config.blur_kernel)


@torch.no_grad()
def plain_view(images_B1SS: Tensor, size: int) -> Tensor:
    """The whole image, antialiased and bilinear, at `size` x `size`: the view of validation and inference.

    Returns:
        images_B1RR, float32 in [0, 1], on the device of the images.
    """
    images_B1SS = _to_float(images_B1SS)
    if images_B1SS.shape[-1] == size:
        return images_B1SS
    return F.interpolate(images_B1SS, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def _to_float(images: Tensor) -> Tensor:
    if images.is_floating_point():
        return images.float()
    return images.float() / torch.iinfo(images.dtype).max


def _crop(images_B1SS: Tensor, parameters: TransformParameters, size: int) -> Tensor:
    """Crop, resize and flip: antialiased bilinear resizing is linear and separable, so two matrices an image do it."""
    device, source = images_B1SS.device, images_B1SS.shape[-1]
    rows_BRS = _resize_matrices(parameters.top_B.to(device), parameters.height_B.to(device), source, size)
    columns_BRS = _resize_matrices(parameters.left_B.to(device), parameters.width_B.to(device), source, size)
    flip_B11 = parameters.flip_B.to(device)[:, None, None]
    columns_BRS = torch.where(flip_B11, columns_BRS.flip(1), columns_BRS)
    return (rows_BRS @ images_B1SS[:, 0] @ columns_BRS.transpose(1, 2))[:, None]


def _resize_matrices(start_B: Tensor, side_B: Tensor, source: int, size: int) -> Tensor:
    """Weights of the source pixels (last dimension) in each target pixel, for a crop [start, start + side)."""
    start_B11, side_B11 = start_B[:, None, None].float(), side_B[:, None, None].float()
    step_B11 = side_B11 / size
    target_R1 = torch.arange(size, device=start_B.device)[:, None] + 0.5
    source_S = torch.arange(source, device=start_B.device) + 0.5
    distance_BRS = (source_S - (start_B11 + target_R1 * step_B11)).abs()
    # When it shrinks the image the triangle widens with the step, which is the antialiasing.
    weights_BRS = (1 - distance_BRS / step_B11.clamp_min(1)).clamp_min(0)
    inside_B1S = (source_S > start_B11) & (source_S < start_B11 + side_B11)
    weights_BRS = weights_BRS * inside_B1S
    return weights_BRS / weights_BRS.sum(dim=2, keepdim=True)


def _affine(images_B1RR: Tensor, parameters: TransformParameters) -> Tensor:
    """Rotate, scale and shift about the centre; what comes from outside is black."""
    device, size = images_B1RR.device, images_B1RR.shape[-1]
    angle_B = torch.deg2rad(parameters.angle_B)
    # Each target pixel is looked up at rotate(-angle) (pixel - shift) / scale; coordinates run from -1 to 1.
    cos_B11 = (angle_B.cos() / parameters.scale_B).to(device, torch.float32)[:, None, None]
    sin_B11 = (angle_B.sin() / parameters.scale_B).to(device, torch.float32)[:, None, None]
    shift_B2 = (2 * parameters.translate_B2).to(device, torch.float32)
    axis_R = (2 * torch.arange(size, device=device) + 1) / size - 1
    x_B1R = axis_R[None, None, :] - shift_B2[:, 0, None, None]
    y_BR1 = axis_R[None, :, None] - shift_B2[:, 1, None, None]
    grid_BRR2 = torch.empty(len(images_B1RR), size, size, 2, device=device)
    torch.add(cos_B11 * x_B1R, sin_B11 * y_BR1, out=grid_BRR2[..., 0])
    torch.sub(cos_B11 * y_BR1, sin_B11 * x_B1R, out=grid_BRR2[..., 1])
    return F.grid_sample(images_B1RR, grid_BRR2, mode="bilinear", padding_mode="zeros", align_corners=False)


def _jitter(images_B1RR: Tensor, parameters: TransformParameters) -> Tensor:
    """Brightness, then contrast about the mean grey of the image."""
    device = images_B1RR.device
    brightness_B111 = parameters.brightness_B.to(device, torch.float32)[:, None, None, None]
    contrast_B111 = parameters.contrast_B.to(device, torch.float32)[:, None, None, None]
    images_B1RR = (images_B1RR * brightness_B111).clamp_(0, 1)
    mean_B111 = images_B1RR.mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean_B111, images_B1RR, contrast_B111).clamp_(0, 1)


def _blur(images_B1RR: Tensor, sigma_B: Tensor, kernel: int) -> Tensor:
    """Separable Gaussian, mirrored at the border; a convolution with one group an image, the fastest way measured."""
    offset_K = torch.arange(kernel, dtype=torch.float64) - kernel // 2
    gaussian_BK = torch.softmax(-((offset_K / sigma_B.clamp_min(SMALLEST_SIGMA)[:, None]) ** 2) / 2, dim=1)
    gaussian_BK = gaussian_BK.to(images_B1RR.device, torch.float32)
    padded_1BPP = F.pad(images_B1RR, (kernel // 2,) * 4, mode="reflect").transpose(0, 1)
    blurred = F.conv2d(padded_1BPP, gaussian_BK[:, None, None, :], groups=len(gaussian_BK))
    blurred = F.conv2d(blurred, gaussian_BK[:, None, :, None], groups=len(gaussian_BK))
    return blurred.transpose(0, 1)
