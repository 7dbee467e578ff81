"""Recipes: functions that return whole configurations; a docstring says in its first line what the recipe is for.

Beside them stand the constants of each method's equations. A new method is a file here (constants and recipes, which
help must read without PyTorch), a class in `convirt.methods`, and a word in each of the two tables.
"""

from collections.abc import Callable

from convirt.config import PretrainConfig
from convirt.recipes import captioning, convirt, image_and_text, image_only, siglip
from convirt.recipes.convirt import demo, paper_bone, paper_chest, small

_FILES = (convirt, image_and_text, siglip, captioning, image_only)
_ORDER = ("paper", "small", "demo")
_FOUND: dict[str, Callable[[], PretrainConfig]] = {
    name: function
    for file in _FILES
    for name, function in vars(file).items()
    if name.startswith(_ORDER) and getattr(function, "__module__", None) == file.__name__
}
RECIPES = {name: _FOUND[name] for kind in _ORDER for name in _FOUND if name.startswith(kind)}
"""Every recipe by its name: the functions of the files above whose names begin so; a new file is a word in `_FILES`."""

__all__ = ["RECIPES", "demo", "paper_bone", "paper_chest", "small"]
