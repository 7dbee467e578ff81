"""The cells of the tables of figures: baselines, supervised encoders, classification and retrieval of each method."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from convirt.atomic import latest_complete
from convirt.config import PretrainConfig
from convirt.evaluation.inputs.options import LabelledTableOptions, TableOptions
from convirt.jobs import Job
from convirt.reproduce.estimates import Pace
from convirt.reproduce.fingerprints import table_sha256, weights_sha256
from convirt.reproduce.inputs import RETRIEVAL, Inputs
from convirt.reproduce.tables import BASELINES, SUPERVISED, Column, Table, Task
from convirt.training.checkpoint import read_config

Arguments = Mapping[str, Any]


class Evaluations:
    """Cells for a set of tables, each once, and where their results lie."""

    def __init__(self, inputs: Inputs, cells: Path, pace: Pace, like: PretrainConfig | None = None) -> None:
        """Take the inputs.

        Args:
            inputs: Runs and tables.
            cells: Folder of all cells.
            pace: How fast the encoder is.
            like: Configuration whose image encoder the baselines have; by default that of the first run.
        """
        self.inputs = inputs
        self.folder = cells
        self.pace = pace
        self.like = like

    def of(self, tables: Sequence[Table]) -> list[Job]:
        """The cells of some tables, in the order in which they can be done."""
        wanted: dict[str, Job] = {}
        for table in tables:
            for method in (*table.methods, *table.beside):
                for column in table.columns:
                    for cell in self._needed(method, column):
                        wanted.setdefault(cell.name, cell)
        return list(wanted.values())

    def result(self, method: str, column: Column) -> str | None:
        """Name of the cell that holds a figure; None where its run or benchmark is not given."""
        if self.run(method) is None:
            return None
        if column.setting is None:  # the paper's random row is a guess there
            known = self.inputs.retrieval is not None and method != "random"
            return f"retrieval/{method}" if known else None
        if method in SUPERVISED or column.task not in self.inputs.classification:
            return None
        return f"{column.setting}/{column.task}/{method}"

    def run(self, method: str) -> Path | None:
        """The run folder that a row is evaluated with; None if nothing makes it."""
        if method in BASELINES:
            return self.folder / "baselines" / method if self.inputs.runs or self.like else None
        if method in SUPERVISED:
            possible = "convirt" in self.inputs.runs and self.inputs.supervised is not None
            possible = possible and (method != SUPERVISED[1] or self.inputs.left_out is not None)
            return self.folder / "supervised" / method if possible else None
        return self.inputs.runs.get(method)

    def _needed(self, method: str, column: Column) -> Iterable[Job]:
        name, run = self.result(method, column), self.run(method)
        if name is None or run is None:
            return
        if method in BASELINES:
            yield self._baseline(method, run)
        if method in SUPERVISED:
            yield self._supervised(method, run)
        if column.setting is None:
            yield self._retrieval(name, run)
        else:
            task = next(task for task in self.inputs.tasks if task.name == column.task)
            yield self._classification(name, run, task, column)

    def _baseline(self, kind: str, run: Path) -> Job:
        def config() -> PretrainConfig:
            if self.like is not None:
                return self.like
            first = next(iter(self.inputs.runs.values()))
            return read_config(latest_complete(first / "best") or first)

        def work(folder: Path) -> None:
            from convirt.reproduce.baselines import write_baseline

            write_baseline("random" if kind == "random" else "imagenet", config(), folder)

        encoder = lambda: {"kind": kind, "encoder": str(config().image_encoder)}  # noqa: E731
        return Job(log=True, name=f"baselines/{run.name}", work=work, inputs=encoder, seconds=2)

    def _supervised(self, method: str, run: Path) -> Job:
        supervised = dict(self.inputs.supervised or {})
        if method == SUPERVISED[1]:
            supervised["exclude"] = (self.inputs.left_out,)
        arguments = {**supervised, "max_steps": self.inputs.max_steps, "device": self.inputs.device}
        convirt = self.inputs.runs["convirt"]

        def work(folder: Path) -> None:
            from convirt.evaluation.finetune import finetune

            options, rest = LabelledTableOptions.taken_from(arguments)
            finetune(convirt, options, out=folder, **rest)

        task = "chexpert" if "chexpert" in self.inputs.training_images else next(iter(self.inputs.training_images), "")
        images = self.inputs.training_images.get(task, 0)
        seconds = self.pace.finetuning(images, self.inputs.other_images.get(task, 0), 1, (1.0,), self.inputs.max_steps)
        return Job(
            log=True,
            name=f"supervised/{method}",
            work=work,
            inputs=_inputs("finetune", convirt, arguments),
            seconds=seconds,
        )

    def _classification(self, name: str, run: Path, task: Task, column: Column) -> Job:
        assert column.setting is not None
        seeds = self.inputs.seeds[column.setting]
        arguments: dict[str, Any] = {
            **self.inputs.classification[task.name],
            "settings": (column.setting,),
            "fractions": task.fractions,
            "seeds": seeds,
            "heads": ("paper",),
            "baselines": (),
            "device": self.inputs.device,
        }
        training = self.inputs.training_images.get(task.name, 0)
        others = self.inputs.other_images.get(task.name, 0)
        if column.setting == "finetuned":
            arguments["max_steps"] = self.inputs.max_steps
            seconds = self.pace.finetuning(training, others, seeds, task.fractions, self.inputs.max_steps)
        else:
            seconds = self.pace.linear(training, others, seeds)

        def work(folder: Path) -> None:
            from convirt.evaluation.classify import classify

            options, rest = LabelledTableOptions.taken_from(arguments)
            classify([run], options, out=folder, **rest)

        return Job(log=True, name=name, work=work, inputs=_inputs("classify", run, arguments), seconds=seconds)

    def _retrieval(self, name: str, run: Path) -> Job:
        arguments = {**(self.inputs.retrieval or {}), "baselines": (), "device": self.inputs.device}

        def work(folder: Path) -> None:
            from convirt.evaluation.retrieve import retrieve

            options, rest = TableOptions.taken_from(arguments)
            retrieve([run], options, out=folder, **rest)

        seconds = self.pace.encoding(self.inputs.other_images.get(RETRIEVAL, 1680)) + 2
        inputs = _inputs("retrieve", run, arguments)
        # Cells of an earlier version did not keep the queries' patients, which tests between methods need.
        return Job(log=True, name=name, work=work, inputs=lambda: {**inputs(), "keeps": "queries"}, seconds=seconds)


def _inputs(verb: str, run: Path, arguments: Arguments) -> Any:
    """What a cell that evaluates a run depends on; the device is not among it."""

    def now() -> dict[str, Any]:
        tables = {name: table_sha256(Path(arguments[name])) for name in ("table", "queries") if arguments.get(name)}
        excluded = [table_sha256(Path(path)) for path in arguments.get("exclude", ())]
        rest = {key: value for key, value in arguments.items() if key not in ("table", "queries", "exclude", "device")}
        return {"verb": verb, "run": weights_sha256(run), **tables, "excluded": excluded, "arguments": rest}

    return now
