"""Versions of Python and of the packages that a result depends on."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "convirt",
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "scikit-learn",
    "numpy",
    "pandas",
    "pillow",
    "pydicom",
)


def versions() -> dict[str, str]:
    """What every `metrics.json` and `audit.json` records; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
