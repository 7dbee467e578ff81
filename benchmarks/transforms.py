"""Time the augmentation of a batch beside torchvision's functions one image at a time.

    python benchmarks/transforms.py

Prints the median of several rounds, milliseconds an image, on one thread.
"""

import statistics
import time
from collections.abc import Callable

import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from convirt.config import TransformConfig
from convirt.transforms import TransformParameters, apply, draw_parameters

BATCH, SIDE, ROUNDS = 32, 256, 9


def one_by_one(images_B1SS: torch.Tensor, drawn: TransformParameters, config: TransformConfig) -> None:
    """The same transformations with torchvision's functions."""
    for i, image in enumerate(images_B1SS):
        top, left, side = int(drawn.top_B[i]), int(drawn.left_B[i]), int(drawn.height_B[i])
        view = F.resized_crop(
            image, top, left, side, side, [config.size] * 2, InterpolationMode.BILINEAR, antialias=True
        )
        view = F.horizontal_flip(view) if drawn.flip_B[i] else view
        shift = [float(part) * config.size for part in drawn.translate_B2[i]]
        view = F.affine(
            view, float(drawn.angle_B[i]), shift, float(drawn.scale_B[i]), [0.0], InterpolationMode.BILINEAR
        )
        view = F.adjust_contrast(F.adjust_brightness(view, float(drawn.brightness_B[i])), float(drawn.contrast_B[i]))
        F.gaussian_blur(view, [config.blur_kernel] * 2, [float(drawn.sigma_B[i])] * 2)


def milliseconds(run: Callable[[], object]) -> float:
    """Median time an image."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - start) / BATCH)
    return statistics.median(times)


def main() -> None:
    """Measure both side by side."""
    torch.set_num_threads(1)
    config = TransformConfig()
    generator = torch.Generator().manual_seed(0)
    images_B1SS = torch.rand(BATCH, 1, SIDE, SIDE, generator=generator)
    drawn = draw_parameters(config, BATCH, SIDE, generator)
    print(f"batched:     {milliseconds(lambda: apply(images_B1SS, drawn, config)):.2f} ms an image")
    print(f"torchvision: {milliseconds(lambda: one_by_one(images_B1SS, drawn, config)):.2f} ms an image")


if __name__ == "__main__":
    main()
