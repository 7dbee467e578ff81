"""Packages that pictures need and the rest of convirt does not: the extra `[figures]`."""

from importlib.util import find_spec

from convirt.errors import InputError


def require(*packages: str) -> None:
    """Refuse in one line what a missing package would break later.

    Raises:
        InputError: One of them is not installed.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"this needs the package {missing[0]}: pip install 'convirt[figures]'")
