"""Configurations from plain JSON values, as checkpoints keep them."""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from convirt.config.checking import require
from convirt.config.objectives import OBJECTIVES
from convirt.config.pretraining import PretrainConfig
from convirt.errors import InputError

T = TypeVar("T")


def from_dict(cls: type[T], values: dict[str, Any], *, where: str = "config") -> T:
    """Rebuild a configuration dataclass from plain JSON values.

    Args:
        cls: A dataclass of this module.
        values: What `dataclasses.asdict` gave, perhaps through JSON; lists become tuples where a tuple is declared.
        where: How the error message names the place.

    Raises:
        InputError: An unknown key, or a value that the dataclass refuses.
    """
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise InputError(f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(cls)
    if cls is PretrainConfig:  # the class of the objective is the method's
        method = values.get("method", PretrainConfig.method)
        require(method in OBJECTIVES, f"{where}: method {method!r} is unknown; known are {', '.join(OBJECTIVES)}")
        hints["objective"] = OBJECTIVES[method]
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(hints[name], type) and is_dataclass(hints[name]):
            value = from_dict(hints[name], value, where=f"{where}.{name}")
        elif isinstance(value, list):
            value = tuple(value)
        require(_fits(value, hints[name]), f"{where}.{name}: {value!r} is no {_spelled(hints[name])}")
        arguments[name] = value
    return cls(**arguments)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a declared type, as far as this module's types go."""
    origin, options = get_origin(hint), get_args(hint)
    if origin is Literal:
        return value in options
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is tuple:
        if isinstance(value, tuple) and options[1:] == (Ellipsis,):
            options = (options[0],) * len(value)
        return isinstance(value, tuple) and len(value) == len(options) and all(map(_fits, value, options))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
