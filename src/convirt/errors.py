"""The one exception type that stands for a mistake in what the user gave."""


class InputError(ValueError):
    """Bad input: a file, a table, an option or a checkpoint that cannot be used as it is.

    The message is one line that says what is wrong, where, and what to do about it. The command line prints it
    without a traceback and exits with status 2; a library caller catches it as a `ValueError`.
    """
