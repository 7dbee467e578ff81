"""`convirt loss-study`: downstream scores against the validation loss along one run (ConVIRT, figure 5)."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from convirt.analysis.studies.correlation import spearman
from convirt.analysis.studies.tasks import read_toml, scores_of, tasks_of
from convirt.atomic import check_out_folder, write_text
from convirt.errors import InputError
from convirt.evaluation.results import Results
from convirt.evaluation.rows import AnyRow as Row
from convirt.jobs import Held, begin, hold
from convirt.training.pretrain import KEPT

LEAST_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Point:
    """One kept checkpoint."""

    step: int
    loss: float
    """Validation loss, nats."""
    scores: Mapping[str, Row]


def loss_study(run: Path, tasks: Path, *, out: Path) -> Results:
    """Score every kept checkpoint of a run and set the scores against its validation loss, with rank correlations.

    A run keeps checkpoints when it is pretrained with --keep-every. Each checkpoint is evaluated in a folder of its
    own. What is done is not done again; a checkpoint that another process works on is left to it.

    Args:
        run: Folder of a pretraining run that kept checkpoints.
        tasks: TOML file with [tasks.classify] and [tasks.retrieve]: the arguments of the verbs of these names, but the
            runs and --out (docs/formats.md). By default 1 % of the labels, the paper's head, and Precision@10.
        out: Folder for the results of each checkpoint, loss-study.png, loss-study.svg, points.csv and metrics.json.

    Raises:
        InputError: The run kept no checkpoints, or the tasks are unusable.
    """
    arguments = dict(locals())
    started = time.monotonic()
    check_out_folder(out)
    wanted = tasks_of(read_toml(Path(tasks)), Path(tasks))
    out = Path(out)
    console = Console()
    losses = validation_losses(Path(run))
    checkpoints = kept_checkpoints(Path(run), losses)
    about = {"run": str(Path(run).resolve()), "tasks": wanted.described()}
    begin(out, about, stamp="study.json", what="a study")
    for step, folder in checkpoints.items():
        own = out / folder.name
        if not wanted.missing(own):
            continue
        try:
            with hold(own):
                console.rule(f"step {step}, validation loss {losses[step]:.4f}", align="left")
                wanted.evaluate(folder, own)
        except Held:
            console.print(f"step {step}: another process is at work", highlight=False)
    done = [step for step, folder in checkpoints.items() if not wanted.missing(out / folder.name)]
    points = [Point(step=s, loss=losses[s], scores=scores_of(out / checkpoints[s].name)) for s in done]
    if len(points) < len(checkpoints):
        console.print(f"{len(points)} of {len(checkpoints)} checkpoints are evaluated; others are at work on the rest")
    if not points:
        raise InputError(f"{out}: no checkpoint is evaluated yet; others are at work, call again when they are done")
    _write_points(out, points)
    _draw(out, points, losses)
    return Results(
        verb="loss-study",
        config=arguments,
        seeds=[0],
        data={"run": str(run), "checkpoints": len(checkpoints), "steps": done, "tasks": wanted.described()},
        rows=correlations(points, Path(run).name),
        comparisons=(),
        wall_seconds=time.monotonic() - started,
        notes=("checkpoints of one run are not independent, so the intervals of its rank correlations are too narrow",),
    ).finish(out)


def validation_losses(run: Path) -> dict[int, float]:
    """Validation loss by step, from the run's log.

    Raises:
        InputError: There is no readable log.
    """
    try:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"{run}: no readable log.jsonl ({error}); give the --out folder of `convirt pretrain`"
        ) from None
    return {row["step"]: row["loss"] for row in rows if row.get("event") == "validation" and "loss" in row}


def kept_checkpoints(run: Path, losses: Mapping[int, float]) -> dict[int, Path]:
    """The kept checkpoints whose validation loss is known, by step.

    Raises:
        InputError: There are too few for a correlation.
    """
    folders = {int(f.name.partition("-")[2]): f for f in sorted((run / KEPT).glob("step-*")) if f.is_dir()}
    known = {step: folder for step, folder in sorted(folders.items()) if step in losses}
    if len(known) < LEAST_POINTS:
        raise InputError(
            f"{run} kept {len(known)} checkpoints, fewer than {LEAST_POINTS}; pretrain with --keep-every 1, or so"
        )
    return known


def correlations(points: Sequence[Point], method: str) -> list[Row]:
    """Spearman's rank correlation of each score with the negative loss, as the paper's panels (b) to (d)."""
    rows: list[Row] = []
    for name in points[0].scores:
        own = [point for point in points if name in point.scores]
        found = spearman([-point.loss for point in own], [point.scores[name]["mean"] for point in own])
        score = own[0].scores[name]
        rows.append(
            {
                "task": name,
                "method": method,
                "space": score["space"],
                "metric": "Spearman's rho",
                "head": None,
                "fraction": None,
                "n_test": found.n,
                "n_patients": score["n_patients"],
                "mean": found.rho,
                "std": None,
                "seeds": [found.rho],
                "ci_low": found.low,
                "ci_high": found.high,
                "chance": 0.0,
                "chance_is": "no relation of score and loss",
                "higher_is_better": True,
                "interval_is": "interval over checkpoints (Bonett and Wright 2000)",
            }
        )
    return rows


def _write_points(out: Path, points: Sequence[Point]) -> None:
    lines: list[dict[str, Any]] = []
    for point in points:
        line: dict[str, Any] = {"step": point.step, "validation_loss": point.loss}
        for name, row in point.scores.items():
            line |= {name: row["mean"], f"{name}, low": row["ci_low"], f"{name}, high": row["ci_high"]}
        lines.append(line)
    write_text(out / "points.csv", pd.DataFrame(lines).to_csv(index=False, lineterminator="\n"))


def _draw(out: Path, points: Sequence[Point], losses: Mapping[int, float]) -> None:
    from convirt.analysis.pictures import write_figure
    from convirt.analysis.studies.drawing import draw_loss_study

    panels = {
        name: [(point.loss, point.scores[name]) for point in points if name in point.scores]
        for name in points[0].scores
    }
    write_figure(draw_loss_study(losses, [point.step for point in points], panels), out / "loss-study")
