"""Pictures on disk: each as PNG and SVG, whole or not at all."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from convirt.atomic import atomic_file
from convirt.errors import InputError

DPI = 160


def write_figure(figure: Figure, path: Path) -> None:
    """Write `path`.png and `path`.svg, and close the figure.

    Raises:
        InputError: The folder cannot be written.
    """
    details: dict[str, dict[str, Any]] = {"png": {"dpi": DPI}, "svg": {"metadata": {"Date": None}}}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for kind, options in details.items():
            with atomic_file(path.with_name(f"{path.name}.{kind}")) as file:
                figure.savefig(file, format=kind, bbox_inches="tight", **options)
    except OSError as error:
        raise InputError(f"cannot write the picture to {path.parent}: {error.strerror or error}") from error
    finally:
        plt.close(figure)
