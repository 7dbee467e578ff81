"""Arguments and docstring of a function, read from its source, so that what its module imports is not.

Help, and a mistake among the options, need no more; with PyTorch and its kin it would take seconds to say them.
"""

import ast
import builtins
import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


def signature_of(module: str, name: str) -> tuple[inspect.Signature, str]:
    """The signature, its annotations resolved, and the docstring of a function of this package.

    Names that annotations and defaults are made of are looked up in the source as well. Of this package only a module
    that defines a class or a function among them is imported.

    Args:
        module: Dotted name.
        name: Of a function at the module's top level.
    """
    scope = _Scope(module)
    function = scope.bindings[name]
    assert isinstance(function, ast.FunctionDef), f"{module}:{name} is no function"
    parameters = [
        inspect.Parameter(
            argument.arg,
            kind,
            default=inspect.Parameter.empty if default is None else scope.value(default),
            annotation=inspect.Parameter.empty if argument.annotation is None else scope.value(argument.annotation),
        )
        for argument, default, kind in _arguments(function.args)
    ]
    return inspect.Signature(parameters), ast.get_docstring(function) or ""


def _arguments(given: ast.arguments) -> Iterator[tuple[ast.arg, ast.expr | None, Any]]:
    by_place: list[ast.expr | None] = [None] * (len(given.args) - len(given.defaults))
    for argument, default in zip(given.args, [*by_place, *given.defaults], strict=True):
        yield argument, default, inspect.Parameter.POSITIONAL_OR_KEYWORD
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        yield argument, default, inspect.Parameter.KEYWORD_ONLY


class _Scope(Mapping[str, Any]):
    """The names at a module's top level; each is worked out when it is asked for."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.bindings = _bindings(module)

    def value(self, expression: ast.expr) -> Any:
        """The value of an annotation or a default."""
        return eval(compile(ast.Expression(expression), self.module, "eval"), {"__builtins__": builtins.__dict__}, self)

    def __getitem__(self, name: str) -> Any:
        bound = self.bindings[name]  # a KeyError sends `eval` on to the builtins
        if isinstance(bound, ast.ImportFrom):
            source = next(alias.name for alias in bound.names if (alias.asname or alias.name) == name)
            assert bound.module is not None
            return _Scope(bound.module)[source] if _file(bound.module) else getattr(import_module(bound.module), source)
        if isinstance(bound, ast.Import):
            return import_module(next(alias.name for alias in bound.names if (alias.asname or alias.name) == name))
        if isinstance(bound, ast.Assign | ast.AnnAssign) and bound.value is not None:
            return self.value(bound.value)
        return getattr(import_module(self.module), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.bindings)

    def __len__(self) -> int:
        return len(self.bindings)


def _file(module: str) -> Path | None:
    """Source of a module of this package; None for another's."""
    first, *rest = module.split(".")
    if first != PACKAGE.name:
        return None
    path = PACKAGE.joinpath(*rest)
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _bindings(module: str) -> dict[str, ast.stmt]:
    """The statement that binds each name at a module's top level."""
    path = _file(module)
    assert path is not None
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name: statement for alias in statement.names}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
        elif isinstance(statement, ast.Assign):
            found |= {target.id: statement for target in statement.targets if isinstance(target, ast.Name)}
    return found


def bound_later(module: str, name: str, annotate: Callable[[str, Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """A function with the arguments and the docstring of another, that returns what it is called with.

    Args:
        module: Dotted name.
        name: Of a function at the module's top level.
        annotate: Makes the annotation of a parameter of its name and its annotation.
    """
    signature, doc = signature_of(module, name)
    parameters = [
        parameter.replace(annotation=annotate(parameter.name, parameter.annotation))
        for parameter in signature.parameters.values()
    ]

    def bind(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return args, kwargs

    bind.__name__ = name
    bind.__doc__ = doc
    bind.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bind.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return bind
