"""What a study evaluates each run or checkpoint on: arguments of `classify` and `retrieve`, from a TOML table.

    [tasks.classify]
    table = "benchmarks/rsna"

    [tasks.retrieve]
    table = "benchmarks/chexpert8x200"

Every argument of the verb but the runs and --out may stand there, spelled as in Python; paths are relative to the file.
"""

import inspect
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convirt.errors import InputError
from convirt.evaluation.classify import classify
from convirt.evaluation.inputs.options import LabelledTableOptions, TableOptions
from convirt.evaluation.printing import percent_of_labels
from convirt.evaluation.retrieve import retrieve
from convirt.evaluation.rows import AnyRow as Row

VERBS: Mapping[str, Callable[..., Any]] = {"classify": classify, "retrieve": retrieve}
OPTIONS: Mapping[str, type[TableOptions]] = {"classify": LabelledTableOptions, "retrieve": TableOptions}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # ConVIRT, figure 5 and table 5: linear evaluation with 1 % of the labels, and Precision@10 of both retrievals.
    "classify": {"fractions": (0.01,), "heads": ("paper",), "baselines": ()},
    "retrieve": {"ks": (10,), "baselines": ()},
}


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Arguments by verb."""

    arguments: Mapping[str, Mapping[str, Any]]

    def described(self) -> dict[str, Any]:
        """Plain values, to compare and to keep."""
        return json.loads(json.dumps(self.arguments, default=str))

    def missing(self, folder: Path) -> list[str]:
        """The verbs whose results are not in the folder yet."""
        return [verb for verb in self.arguments if not (folder / verb / "metrics.json").is_file()]

    def evaluate(self, run: Path, folder: Path) -> None:
        """Evaluate a run or checkpoint on what is missing.

        Args:
            run: Folder of a run or a checkpoint.
            folder: Where the results go, a folder for each verb.

        Raises:
            InputError: A task refuses.
        """
        for verb in self.missing(folder):
            options, rest = OPTIONS[verb].taken_from(self.arguments[verb])
            VERBS[verb]([run], options, out=folder / verb, **rest)


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        InputError: There is none, or it is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML ({error}); repair it") from None


def tasks_of(content: Mapping[str, Any], path: Path) -> Tasks:
    """The tasks of a TOML file's content.

    Raises:
        InputError: There is none, or an argument that the verb does not have or that is of another kind.
    """
    given = content.get("tasks")
    if not isinstance(given, dict) or not given:
        raise InputError(f"{path} names no tasks; give [tasks.classify], [tasks.retrieve] or both")
    arguments = {}
    for verb, values in given.items():
        if verb not in VERBS or not isinstance(values, dict):
            raise InputError(f"{path}: unknown task {verb!r}; known are {', '.join(VERBS)}")
        parameters = inspect.signature(VERBS[verb]).parameters
        hints = get_type_hints(OPTIONS[verb]) | {name: one.annotation for name, one in parameters.items()}
        own = [name for name in parameters if name not in ("runs", "options", "out")]
        known = [field.name for field in fields(OPTIONS[verb])] + own
        for name, value in values.items():
            if name not in known:
                raise InputError(f"{path}: tasks.{verb} has no argument {name!r}; known are {', '.join(known)}")
            if not _fits(value, hints[name]):
                raise InputError(f"{path}: tasks.{verb}.{name} cannot be {value!r}; see convirt {verb} --help")
        if "table" not in values:
            raise InputError(f"{path}: tasks.{verb} needs a table; give a file or a benchmark folder")
        converted = {name: _converted(value, hints[name], path.parent) for name, value in values.items()}
        arguments[verb] = {**DEFAULTS[verb], **converted}
    return Tasks(arguments=arguments)


def _options(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a TOML value can be an argument of this type."""
    for option in _options(hint):
        origin = get_origin(option)
        if origin is Literal:
            fits = value in get_args(option)
        elif isinstance(origin, type) and issubclass(origin, Sequence):
            fits = isinstance(value, list) and all(_fits(item, get_args(option)[0]) for item in value)
        elif option is float:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
        elif option in (str, Path):
            fits = isinstance(value, str)
        else:
            fits = isinstance(option, type) and isinstance(value, option)
            fits = fits and (option is bool or not isinstance(value, bool))
        if fits:
            return True
    return False


def _converted(value: Any, hint: Any, base: Path) -> Any:
    if isinstance(value, str) and Path in _options(hint):
        return base / value
    return tuple(value) if isinstance(value, list) else value


def scores_of(folder: Path) -> dict[str, Row]:
    """The figures of one run or checkpoint, by name: linear evaluation for each fraction, both retrievals."""
    found: dict[str, Row] = {}
    for verb in VERBS:
        path = folder / verb / "metrics.json"
        if not path.is_file():
            continue
        for row in json.loads(path.read_text())["rows"]:
            if verb == "classify" and row["metric"] == "auc" and row["head"] == "paper":
                how = "fine-tuned" if row.get("setting") == "finetuned" else "linear"
                found[f"{how}, {percent_of_labels(row['fraction'])} of labels, AUC"] = row
            elif verb == "retrieve" and row["metric"] == "precision@10":
                found[f"{row['task']}, Precision@10"] = row
    return found
