"""What a study evaluates each run or checkpoint on: arguments of `classify` and `retrieve`, from a TOML table.

    [tasks.classify]
    table = "benchmarks/rsna"

    [tasks.retrieve]
    table = "benchmarks/chexpert8x200"

Every argument of the verb but the runs and --out may stand there, spelled as in Python; paths are relative to the file.
"""

import inspect
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from convirt.config import PretrainConfig, from_dict
from convirt.errors import InputError
from convirt.evaluation.classify import classify
from convirt.evaluation.inputs.options import LabelledTableOptions, TableOptions
from convirt.evaluation.printing import percent_of_labels
from convirt.evaluation.retrieve import retrieve
from convirt.evaluation.rows import AnyRow as Row
from convirt.recipes import RECIPES

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


Overrides = Mapping[str, Any]
"""Values by dotted name of a setting, such as `objective.temperature`."""

TABLE5: Mapping[str, Overrides] = {
    "default": {},
    "tau 0.01": {"objective.temperature": 0.01},
    "tau 1": {"objective.temperature": 1.0},
    "batch 16": {"optimiser.batch_size": 16},
    "batch 128": {"optimiser.batch_size": 128},
    "linear projections": {"projection.linear": True},
}
"""ConVIRT, table 5 and appendix F. It tries one smaller and one larger batch than 32, whose sizes are not in our
sources (silent: half, and four times). The number of steps stays, so a larger batch also sees more pairs."""
GRIDS = {"table5": TABLE5}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One configuration of a study."""

    name: str
    config: PretrainConfig
    overrides: Overrides
    """What distinguishes it, as given."""

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^a-z0-9._]+", "-", self.name.lower()).strip("-.") or "cell"


def cells_of(content: Mapping[str, Any], path: Path) -> list[Cell]:
    """The cells of a study's TOML file: `recipe`, `[overrides]` of all, and `grid` or `[cells.NAME]` with their own.

    Raises:
        InputError: No recipe or cell, an unknown setting or value, or two cells of one folder.
    """
    grid, own = content.get("grid"), content.get("cells", {})
    if grid is not None and grid not in GRIDS:
        raise InputError(f"{path}: unknown grid {grid!r}; known are {', '.join(GRIDS)}")
    cells: dict[str, Any] = {**(GRIDS[grid] if grid else {}), **own} if isinstance(own, dict) else {}
    if not cells:
        raise InputError(f'{path} names no cells; give grid = "table5" or [cells.NAME] with settings')
    common = flat(content.get("overrides", {}))
    found = []
    for name, settings in cells.items():
        if not isinstance(settings, Mapping):
            raise InputError(f"{path}: cell {name!r} must be a table of settings")
        overrides = flat(settings)
        recipe = overrides.pop("recipe", content.get("recipe"))
        if recipe not in RECIPES:
            raise InputError(f"{path}: unknown recipe {recipe!r}; known are {', '.join(RECIPES)}")
        config = override(RECIPES[recipe](), common | overrides, f"{path}, cell {name!r}")
        found.append(Cell(name=name, config=config, overrides=overrides))
    folders = [cell.folder for cell in found]
    if twice := next((cell for cell in found if folders.count(cell.folder) > 1), None):
        raise InputError(f"{path}: two cells would share the folder {twice.folder!r}; rename {twice.name!r}")
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted names; TOML reads an unquoted `objective.temperature = 1` as a table."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def override(config: PretrainConfig, overrides: Overrides, where: str) -> PretrainConfig:
    """A configuration with some settings changed.

    Raises:
        InputError: An unknown setting, or a value that it refuses.
    """
    values = asdict(config)
    for name, value in overrides.items():
        *parts, last = name.split(".")
        place: Any = values
        for part in parts:
            place = place.get(part) if isinstance(place, dict) else None
        if not isinstance(place, dict) or last not in place or isinstance(place[last], dict):
            raise InputError(f"{where}: there is no setting {name!r}; `convirt pretrain RECIPE --help` lists them")
        place[last] = value
    return from_dict(PretrainConfig, values, where=where)
