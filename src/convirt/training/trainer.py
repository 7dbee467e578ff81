"""The one trainer of every method: a method differs only in what its `loss(batch, generator)` returns.

Steps, validation, rate halving, stopping and the best checkpoint are those of ConVIRT, appendix A.
"""

import ctypes
import math
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric

from convirt.config import PretrainConfig
from convirt.data.loading.loader import Batch, ValidationBatches, read_ahead
from convirt.data.splits import derive_seed
from convirt.errors import InputError
from convirt.methods import Method
from convirt.training.checkpoint import (
    OPTIMISER,
    WEIGHTS,
    load_weights,
    read_state,
    read_tensors,
    save_checkpoint,
)
from convirt.training.optimiser import (
    PlateauRule,
    build_optimiser,
    learning_rate,
    optimiser_tensors,
    restore_optimiser,
)

if TYPE_CHECKING:
    from convirt.training.pretrain import StopRequest

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def make_fabric(config: PretrainConfig) -> Fabric:
    """Device and number format of a run.

    Raises:
        InputError: The device is not there, or does not offer the number format.
    """
    gpu = torch.cuda.is_available()
    if config.device == "cuda" and not gpu:
        raise InputError("device 'cuda' was asked for, but PyTorch finds no GPU; take 'cpu' or 'auto'")
    device = "cuda" if config.device == "cuda" or (config.device == "auto" and gpu) else "cpu"
    precision: Any = config.precision
    if precision == "auto" and device == "cuda":
        precision = "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    elif precision == "auto":
        precision = "bf16-mixed" if _fast_bf16_on_cpu() else "32-true"
    if device == "cpu" and precision == "16-mixed":
        raise InputError("precision '16-mixed' needs a GPU; use --precision 32-true or auto")
    if device == "cpu":
        keep_freed_memory()
    return Fabric(accelerator=device, devices=1, precision=precision)


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to reuse freed blocks instead of giving them back to the kernel page by page.

    By default each large tensor is mapped and unmapped anew, and the kernel clears its pages every time. In two pairs
    of dry runs of the `demo` recipe a step took 595 and 570 ms with it, 731 and 818 ms without, at the same peak
    memory; over whole runs, not timed side by side, the gain was smaller. Elsewhere than on glibc nothing is done.

    Returns:
        Whether the allocator was told.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def _fast_bf16_on_cpu() -> bool:
    """Whether the processor multiplies bf16 in hardware; without that, autocast on a CPU is slower than float32."""
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    return any(supported() for supported in asked if supported is not None)


def total_steps(config: PretrainConfig, steps_per_epoch: int | None = None) -> int:
    """Steps of a whole run: as many as the evaluations allow, or what `max_steps` or `max_epochs` says if that is less.

    Args:
        config: The run's configuration.
        steps_per_epoch: Steps in which each training pair is visited once; needed where `max_epochs` is set.
    """
    every = config.validation.every
    limits = [every * config.validation.max_evaluations] if isinstance(every, int) else []
    if config.max_steps is not None:
        limits.append(config.max_steps)
    if config.max_epochs is not None:
        assert steps_per_epoch is not None
        limits.append(config.max_epochs * steps_per_epoch)
    if not limits:
        raise InputError("validation.every is a share of the run, whose length is open; give max_steps or max_epochs")
    return min(limits)


class _Stopped(Exception):
    """An evaluation is given up, as the run is to stop."""


class Trainer:
    """A method, its optimiser, and how far they have come."""

    def __init__(
        self, method: Method, config: PretrainConfig, fabric: Fabric, *, steps_per_epoch: int | None = None
    ) -> None:
        """Take up a method.

        Args:
            method: What to train.
            config: Its configuration.
            fabric: Device and number format.
            steps_per_epoch: Of the training batches; needed where the configuration speaks of epochs.
        """
        self.config = config = config.in_steps(total_steps(config, steps_per_epoch))
        self.fabric = fabric
        self.steps_per_epoch = steps_per_epoch
        # Convolutions are fastest on CPU and GPU with channels last; it changes the layout of 4-D weights alone.
        self.method = method.to(device=fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        # The fused kernel unscales half-precision gradients itself, and then they cannot be clipped.
        scaled = getattr(fabric.strategy.precision, "scaler", None) is not None
        clipped_half = scaled and config.optimiser.clip_norm is not None
        self.optimiser = build_optimiser(method, config.optimiser, fused=not clipped_half)
        self._stepper: Any = fabric.setup_optimizers(self.optimiser)
        self.step = 0
        """Steps taken."""
        self.evaluated = 0
        """Steps taken at the last evaluation."""
        self.plateau = PlateauRule(higher_is_better=method.criterion.higher_is_better)
        self.seconds = 0.0
        """Wall time of the run so far, over all its parts."""
        self.training_seconds = 0.0
        """The share of it that went into training steps."""

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return total_steps(self.config, self.steps_per_epoch)

    @property
    def evaluation_due(self) -> bool:
        """Whether the validation loss is to be measured before the next step: at each interval, and at the end."""
        at_mark = self.step % self.config.validation.every == 0 or self.step >= self.total
        return self.step > self.evaluated and at_mark

    @property
    def finished(self) -> bool:
        """Whether all steps or all evaluations are done."""
        return self.step >= self.total or self.plateau.evaluations >= self.config.validation.max_evaluations

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Take one step; its draws depend on the run's seed and the step alone.

        Returns:
            `loss` (nats), `learning_rate`, and what the method adds.

        Raises:
            InputError: The loss is not finite; the weights are as they were before the step.
        """
        seed, optimiser = self.config.seed, self.config.optimiser
        torch.manual_seed(derive_seed(seed, self.step, "dropout"))
        generator = torch.Generator().manual_seed(derive_seed(seed, self.step, "augmentation"))
        rate = learning_rate(self.step, optimiser, self.plateau.factor, steps_per_epoch=self.steps_per_epoch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["rate_share"]
        self.method.train()
        with self.fabric.autocast():
            loss, figures = self.method.loss(batch.to(self.fabric.device), generator)
        value = float(loss.detach())
        self._require_finite(math.isfinite(value), f"the loss is {value} at step {self.step + 1}")
        self.fabric.backward(loss)
        if optimiser.clip_norm is not None:
            self.fabric.clip_gradients(
                self.method, self._stepper, max_norm=optimiser.clip_norm, error_if_nonfinite=False
            )
        self._stepper.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        return {"loss": value, "learning_rate": rate, **figures}

    def _require_finite(self, finite: bool, what: str) -> None:
        if not finite:
            raise InputError(
                f"{what}; the last checkpoint is from before: lower optimiser.learning_rate, "
                "set optimiser.clip_norm, or train with --precision 32-true"
            )

    @torch.no_grad()
    def validate(
        self, batches: Sequence[Batch] | ValidationBatches, stop: "StopRequest | None" = None
    ) -> dict[str, float] | None:
        """The method's figures of fixed batches, without augmentation or dropout; None when asked to stop meanwhile.

        Raises:
            InputError: A figure is not finite.
        """
        self.method.eval()

        def on_device(ahead: Iterator[Batch]) -> Iterator[Batch]:
            for batch in ahead:
                if stop:
                    raise _Stopped
                yield batch.to(self.fabric.device)

        try:
            with read_ahead(batches, range(len(batches)), self.config.workers) as ahead, self.fabric.autocast():
                figures = self.method.evaluate(on_device(ahead))
        except _Stopped:
            return None
        for name, value in figures.items():
            self._require_finite(math.isfinite(value), f"the validation {name} is {value} after step {self.step}")
        return figures

    def save(self, folder: Path, *, resumable: dict[str, Any] | None = None) -> None:
        """Write a checkpoint, with all that resuming needs if `resumable` (further values to keep) is given.

        Raises:
            InputError: A weight is not finite (then nothing is written), or the disk refuses.
        """
        finite = all(bool(p.isfinite().all()) for p in self.method.parameters_to_train().values())
        self._require_finite(finite, f"a weight is not finite after step {self.step}")
        if resumable is None:
            save_checkpoint(folder, self.method, self.config)
            return
        state = {
            "step": self.step,
            "evaluated": self.evaluated,
            "plateau": asdict(self.plateau),
            "seconds": self.seconds,
            "training_seconds": self.training_seconds,
            "precision": self.fabric.strategy.precision.state_dict(),
            **resumable,
        }
        optimiser = optimiser_tensors(self.method, self.optimiser)
        save_checkpoint(folder, self.method, self.config, optimiser=optimiser, state=state)

    def restore(self, folder: Path) -> dict[str, Any]:
        """Take up the state that `save` left in `folder`; gives its JSON values.

        Raises:
            InputError: The checkpoint is damaged.
        """
        state = read_state(folder)
        load_weights(self.method, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
        try:
            restore_optimiser(self.method, self.optimiser, read_tensors(folder / OPTIMISER))
            self.step, self.evaluated = state["step"], state["evaluated"]
            self.plateau = PlateauRule(**state["plateau"])
            self.seconds, self.training_seconds = state["seconds"], state["training_seconds"]
            self.fabric.strategy.precision.load_state_dict(state["precision"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{folder}: damaged checkpoint ({error!r}); take another or train anew") from None
        return state
