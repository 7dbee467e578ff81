"""What all dataclasses of settings have in common: limits beside the fields they hold for, and reading from JSON."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from convirt.errors import InputError


@dataclass(frozen=True)
class Within:
    """The interval that a setting lies in; of a tuple each number does, and the numbers rise."""

    interval: str
    """As it is written: `[0, 1)` holds 0 and not 1; `[1, inf)` has no upper end."""

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, tuple):
            return all(one in self for one in value) and list(value) == sorted(value)
        low, high = (float(end) for end in self.interval[1:-1].split(","))
        above = value >= low if self.interval[0] == "[" else value > low
        return above and (value <= high if self.interval[-1] == "]" else value < high)

    def __str__(self) -> str:
        low, high = (end.strip() for end in self.interval[1:-1].split(","))
        if high != "inf":
            return f"lie in {self.interval}"
        if self.interval[0] == "[":
            return f"be at least {low}"
        return "be positive" if low == "0" else f"be above {low}"


@dataclass(frozen=True)
class StepsWithin(Within):
    """The interval of a number of steps; a decimal number is a share of the run's steps instead, from 0.0 to 1.0."""

    def __contains__(self, value: Any) -> bool:
        return 0 <= value <= 1 if isinstance(value, float) else super().__contains__(value)

    def __str__(self) -> str:
        return f"{super().__str__()} steps, or a share of the run in [0.0, 1.0]"


Count = Annotated[int, Within("[1, inf)")]
"""A number of things, at least one."""
CountOrNone = Annotated[int | None, Within("[1, inf)")]
Positive = Annotated[float, Within("(0, inf)")]
PositiveOrNone = Annotated[float | None, Within("(0, inf)")]
Share = Annotated[float, Within("[0, 1]")]
"""A share or a probability."""
Range = tuple[float, float]
"""From the lower end to the upper one."""


def require(condition: bool, message: str) -> None:
    """Refuse a setting with one line.

    Raises:
        InputError: The condition does not hold.
    """
    if not condition:
        raise InputError(message)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings whose limits, written as `Within` in the types of the fields, are checked when they are made.

    Raises:
        InputError: A value lies outside its limits; the message names the setting.
    """

    section: ClassVar[str] = ""
    """What the names of the settings begin with in messages, such as `optimiser.`"""

    def __post_init__(self) -> None:
        for name, limit in _limits(type(self)).items():  # type: ignore[arg-type]
            value = getattr(self, name)
            what = f"be a range of rising numbers in {limit.interval}" if isinstance(value, tuple) else str(limit)
            require(value is None or value in limit, f"{self.section}{name} must {what}, got {value}")

    @classmethod
    def types(cls, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """The type of each setting; a subclass may choose one by the value of another setting.

        Args:
            values: The plain values that are being read.
            where: How a message names their place.
        """
        return _types(cls)  # type: ignore[arg-type]


@cache
def _types(kind: type) -> dict[str, Any]:
    return {name: hint for name, hint in get_type_hints(kind).items() if get_origin(hint) is not ClassVar}


@cache
def _limits(kind: type) -> dict[str, Within]:
    hints = get_type_hints(kind, include_extras=True)
    return {
        field.name: limit
        for field in fields(kind)
        for limit in getattr(hints[field.name], "__metadata__", ())
        if isinstance(limit, Within)
    }


S = TypeVar("S", bound="Settings")


def from_dict(kind: type[S], values: Mapping[str, Any], *, where: str = "config") -> S:
    """Rebuild settings from plain JSON values.

    Args:
        kind: Their dataclass.
        values: What `dataclasses.asdict` gave, perhaps through JSON; lists become tuples where a tuple is declared.
        where: How a message names the place.

    Raises:
        InputError: An unknown key, or a value that the dataclass refuses.
    """
    known = kind.types(values, where)
    if unknown := sorted(set(values) - set(known)):
        raise InputError(f"{where}: unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}")
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        hint = known[name]
        if is_dataclass(hint) and isinstance(value, Mapping):
            value = from_dict(hint, value, where=f"{where}.{name}")  # type: ignore[type-var, arg-type]
        elif isinstance(value, list):
            value = tuple(value)
        spelled = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint).replace("typing.", "")
        require(_fits(value, hint), f"{where}.{name}: {value!r} is not a value of type {spelled}")
        arguments[name] = value
    return kind(**arguments)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a declared type, as far as the types of settings go."""
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
