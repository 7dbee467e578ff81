"""The cells of a study: configurations that differ from a base in a few settings each."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convirt.config import PretrainConfig, from_dict
from convirt.errors import InputError
from convirt.recipes import RECIPES

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
