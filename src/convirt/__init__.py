"""convirt: contrastive learning of medical visual representations from paired images and reports.

The method is ConVIRT (Zhang, Jiang, Miura, Manning, Langlotz, MLHC 2022). Public names are imported on first use, so
that `import convirt` stays fast.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_EXPORTS = {
    "InputError": "convirt.errors",
    "load": "convirt.model",
    "Model": "convirt.model",
    "bidirectional_contrastive_loss": "convirt.objectives",
    "Corpus": "convirt.data.corpora",
}

__all__ = ["Corpus", "InputError", "Model", "__version__", "bidirectional_contrastive_loss", "load"]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'convirt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
