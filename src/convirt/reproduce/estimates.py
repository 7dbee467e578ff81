"""How long the cells should take, and in how much memory, from a few measured passes of the image encoder."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from convirt.config import PretrainConfig
from convirt.evaluation.protocol import Schedule
from convirt.model import Model, baseline

BATCH = 64
"""Images in a batch of fine-tuning (appendix B)."""
EPOCHS = 20
"""Epochs that fine-tuning may take before it stops by itself: a guess, which the estimate says."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Measured speed of the image encoder on the device, seconds."""

    image: float
    """Encoding one image."""
    trained: float
    """A training step, for each image of its batch."""
    memory: int
    """Peak while measuring, bytes: of the GPU, or of the process."""

    def encoding(self, images: int) -> float:
        """Encoding a list of images, with the reading of their files."""
        return images * (self.image + 1e-3)

    def linear(self, training: int, others: int, seeds: int) -> float:
        """Encoding every image once, and training a head for each seed and share of the labels."""
        return 3 + self.encoding(training + others) + 4e-4 * seeds * training

    def finetuning(
        self, training: int, others: int, seeds: int, fractions: Sequence[float], max_steps: int | None
    ) -> float:
        """A warm-up and then training of everything for each seed and share; validation and test are a half each.

        Where there are fewer images than fill four batches, an epoch is still four steps (`Schedule.least_steps`).
        """
        least = Schedule().least_steps
        total = 3 + self.encoding(training + others)
        for fraction in fractions:
            images = max(1.0, training * fraction)
            an_epoch = max(float(least), images / BATCH)
            steps = an_epoch * EPOCHS if max_steps is None else min(max_steps, an_epoch * EPOCHS)
            scored = images + (steps / an_epoch + 1) * others / 2  # the warm-up trains on features that are made once
            total += seeds * (steps * min(BATCH, images) * self.trained + scored * self.image + 1)
        return total


def measure(config: PretrainConfig, device: str) -> Pace:
    """Time a few batches through the image encoder of a configuration, with random weights."""
    model: Model = baseline("random", config, device=device)
    encoder = model.image_encoder
    assert encoder is not None
    images_B1RR = torch.rand(BATCH // 2, 1, config.transform.size, config.transform.size, device=model.device)

    def passes(train: bool) -> float:
        encoder.train(train).requires_grad_(train)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            with torch.set_grad_enabled(train):
                features = encoder(images_B1RR)
            if train:
                features.square().mean().backward()
            float(features.detach().sum())  # waits for the device
            times.append(time.perf_counter() - started)
        return min(times) / len(images_B1RR)

    image, trained = passes(False), passes(True)
    on_gpu = model.device.type == "cuda"
    return Pace(image=image, trained=trained, memory=torch.cuda.max_memory_allocated() if on_gpu else _resident())


def _resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
