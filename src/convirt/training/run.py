"""The loop that fills the folder of a run: `last/` to resume from, `best/` with the lowest validation loss."""

import time
from pathlib import Path

from convirt.data.loading.loader import TrainingBatches, ValidationBatches, read_ahead
from convirt.training.interrupt import Interrupted, StopRequest
from convirt.training.logs import Display, RunLog
from convirt.training.trainer import Trainer

KEPT = "checkpoints"
"""Folder of the checkpoints that `PretrainConfig.keep_every` keeps."""


def kept_checkpoint(run: Path, step: int) -> Path:
    """Where the checkpoint of a step is kept."""
    return run / KEPT / f"step-{step:06d}"


class Run:
    """A trainer at work: steps, evaluations, checkpoints, logs, and an orderly stop at any moment."""

    def __init__(self, folder: Path, trainer: Trainer, log: RunLog, display: Display) -> None:
        self.folder = folder
        self.trainer = trainer
        self.log = log
        self.display = display
        self._saved = trainer.step, trainer.evaluated
        self._seconds_before = trainer.seconds
        self._start = time.monotonic()

    def fit(self, train: TrainingBatches, validation: ValidationBatches) -> None:
        """Train until the rules say stop, saving on the way.

        Raises:
            Interrupted: After SIGINT or SIGTERM, once `last/` is saved.
            InputError: The loss is not finite, or a checkpoint cannot be written.
        """
        trainer, config = self.trainer, self.trainer.config
        pin = trainer.fabric.device.type == "cuda"
        ahead = read_ahead(train, range(trainer.step, trainer.total), config.workers, pin=pin)
        with StopRequest() as stop, ahead as batches, self.display:
            while not stop:
                if trainer.evaluation_due:
                    self._evaluate(validation, stop)
                elif trainer.finished:
                    break
                else:
                    before = time.monotonic()
                    batch = next(batches)
                    figures = trainer.train_step(batch)
                    self._note_step(figures, len(batch), time.monotonic() - before)
                    if trainer.step % config.checkpoint_every == 0 and not trainer.evaluation_due:
                        self.save_last()
            self.save_last()
        if stop.signal is not None and (trainer.evaluation_due or not trainer.finished):
            raise Interrupted(stop.signal, trainer.step)

    def _note_step(self, figures: dict[str, float], pairs: int, seconds: float) -> None:
        self.trainer.training_seconds += seconds
        speed = pairs / seconds
        self.log.row("step", self.trainer.step, {**figures, "pairs_per_s": round(speed, 1)})
        self.display.step(self.trainer.step, figures["loss"], speed)

    def _evaluate(self, validation: ValidationBatches, stop: StopRequest) -> None:
        trainer = self.trainer
        before = time.monotonic()
        figures = trainer.validate(validation, stop)
        if figures is None:
            return  # asked to stop: the evaluation is still due, and comes first when the run goes on
        config, criterion, plateau = trainer.config, trainer.method.criterion, trainer.plateau
        figure, extreme = figures[criterion.name], "highest" if criterion.higher_is_better else "lowest"
        best = plateau.update(figure, trainer.step, trainer.config.validation)
        trainer.evaluated = trainer.step
        assert plateau.best is not None
        row = {**figures, extreme: plateau.best, "best": best, "rate_factor": plateau.factor}
        self.log.row("validation", trainer.step, {**row, "seconds": round(time.monotonic() - before, 3)})
        self.display.line(
            f"step {trainer.step}: validation {criterion.name} {figure:.4f}"
            + (f", the {extreme} so far" if best else f" ({extreme} {plateau.best:.4f} at step {plateau.best_step})")
        )
        if best:
            trainer.save(self.folder / "best")
        if config.keep_every is not None and plateau.evaluations % config.keep_every == 0:
            trainer.save(kept_checkpoint(self.folder, trainer.step))
        self.save_last()

    def save_last(self) -> None:
        """Write `last/`, unless nothing has happened since it was written."""
        trainer = self.trainer
        if self._saved == (trainer.step, trainer.evaluated):
            return
        trainer.seconds = self._seconds_before + time.monotonic() - self._start
        trainer.save(self.folder / "last", resumable={"log_size": self.log.sync()})
        self._saved = trainer.step, trainer.evaluated
