"""What a run would take, before it is started: parameters, steps, memory and time from a few measured steps."""

import math
import resource
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import torch
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from convirt.data.loading.loader import TrainingBatches, ValidationBatches
from convirt.training.logs import duration
from convirt.training.trainer import Trainer

WARM_UP_STEPS = 2
MEASURED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a run; times in seconds, memory in bytes."""

    parameters: dict[str, tuple[int, int]]
    """Trained and frozen parameters of each part of the model."""
    steps: int
    """Steps until the run ends, if nothing ends it earlier."""
    steps_per_epoch: int
    evaluations: int
    validation_pairs: int
    """Pairs that one evaluation scores."""
    device: str
    precision: str
    seconds_of_steps: tuple[float, ...]
    """What each of the measured steps took."""
    seconds_per_evaluation: float
    matched: str
    """What of a file of initial weights went into the image encoder; empty if there was none."""
    memory: int
    """Peak while measuring: of the GPU, or of the whole process on a CPU."""

    @property
    def seconds_per_step(self) -> float:
        """The mean of the measured steps."""
        return sum(self.seconds_of_steps) / len(self.seconds_of_steps)

    @property
    def seconds(self) -> float:
        """The whole run."""
        return self.steps * self.seconds_per_step + self.evaluations * self.seconds_per_evaluation


def count_parameters(method: nn.Module) -> dict[str, tuple[int, int]]:
    """Trained and frozen parameters of each part, and of the method itself where it has any."""
    parts = {name: list(part.parameters()) for name, part in method.named_children()}
    if own := list(method.parameters(recurse=False)):
        parts["method itself"] = own
    return {
        name: (
            sum(p.numel() for p in parameters if p.requires_grad),
            sum(p.numel() for p in parameters if not p.requires_grad),
        )
        for name, parameters in parts.items()
    }


def make_plan(trainer: Trainer, train: TrainingBatches, validation: ValidationBatches) -> Plan:
    """Take a few real steps, the optimiser's among them, and one validation batch; reckon the rest from them.

    The trainer's weights change: it is of no further use.
    """
    cuda = trainer.fabric.device.type == "cuda"
    for step in range(WARM_UP_STEPS):
        trainer.train_step(train[step])
    marks = [time.perf_counter()]
    for step in range(WARM_UP_STEPS, WARM_UP_STEPS + MEASURED_STEPS):
        trainer.train_step(train[step])
        marks.append(time.perf_counter())
    trainer.validate([validation[0]])
    end = time.perf_counter()
    config = trainer.config.validation
    return Plan(
        parameters=count_parameters(trainer.method),
        steps=trainer.total,
        steps_per_epoch=train.steps_per_epoch,
        evaluations=math.ceil(trainer.total / config.every),
        validation_pairs=validation.batches.size,
        device=str(trainer.fabric.device),
        precision=str(trainer.fabric.strategy.precision.precision),
        seconds_of_steps=tuple(after - before for before, after in pairwise(marks)),
        seconds_per_evaluation=(end - marks[-1]) * len(validation),
        matched=getattr(trainer.method.image_encoder, "matched", ""),
        memory=torch.cuda.max_memory_allocated() if cuda else _peak_resident(),
    )


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def print_plan(plan: Plan) -> None:
    """Print a plan as tables."""
    each_S = plan.seconds_of_steps
    mean, fastest, slowest = (1000 * seconds for seconds in (plan.seconds_per_step, min(each_S), max(each_S)))
    parts = Table("part", title="Parameters")
    for heading in ("trained", "frozen"):
        parts.add_column(heading, justify="right")
    for name, (trained, frozen) in plan.parameters.items():
        parts.add_row(name.replace("_", " "), f"{trained:,}", f"{frozen:,}")
    totals = [sum(counts) for counts in zip(*plan.parameters.values(), strict=True)]
    parts.add_row("all", f"{totals[0]:,}", f"{totals[1]:,}", style="bold")
    first, last = WARM_UP_STEPS + 1, WARM_UP_STEPS + MEASURED_STEPS
    run = Table("plan", Column(overflow="fold"), title="Run", show_header=False)
    memory_of = "GPU memory" if plan.device.startswith("cuda") else "memory of the process"
    for name, value in {
        "device, precision": f"{plan.device}, {plan.precision}",
        "steps": f"{plan.steps:,}, {plan.steps_per_epoch:,} an epoch ({plan.steps / plan.steps_per_epoch:.1f} epochs)",
        "evaluations": f"{plan.evaluations:,} of {plan.validation_pairs:,} pairs",
        "a step": f"{mean:.0f} ms, {fastest:.0f} to {slowest:.0f} ms (measured: steps {first} to {last})",
        "an evaluation": f"{duration(plan.seconds_per_evaluation)} (from one measured batch)",
        memory_of: f"{plan.memory / 2**30:.2f} GiB (peak of the measured steps)",
        "time": f"{duration(plan.seconds)} (estimate)",
    }.items():
        run.add_row(name, value)
    if plan.matched:
        run.add_row("image weights", plan.matched)
    Console().print(parts, run)
