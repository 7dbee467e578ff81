"""Refusing settings, in one line."""

from convirt.errors import InputError


def require(condition: bool, message: str) -> None:
    """Refuse a setting with one line.

    Raises:
        InputError: The condition does not hold.
    """
    if not condition:
        raise InputError(message)
