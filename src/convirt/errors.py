"""The one exception type that stands for a mistake in what the user gave, and the packages that some verbs need."""

from importlib.util import find_spec


class InputError(ValueError):
    """Bad input: a file, a table, an option or a checkpoint that cannot be used as it is.

    The message is one line that says what is wrong, where, and what to do about it. The command line prints it
    without a traceback and exits with status 2; a library caller catches it as a `ValueError`.
    """


def require(*packages: str, extra: str) -> None:
    """Refuse in one line, before any work, what a missing package would break later.

    Args:
        packages: Names of modules.
        extra: The extra of convirt that brings them.

    Raises:
        InputError: One of them is not installed.
    """
    if missing := [package for package in packages if find_spec(package) is None]:
        raise InputError(f"this needs the package {missing[0]}: pip install 'convirt[{extra}]'")
