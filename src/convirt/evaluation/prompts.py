"""Prompts: what stands for a label (a positive and a negative side) or for a class, in words.

They are data: a TOML file with a table `pairs` (label -> positive, negative) and a table `classes` (class -> prompts),
or a CSV or Parquet table with the columns `label`, `role` (positive, negative or class) and `text`. Sets that come
with the package lie beside this file.

Zero-shot classification compares the image vector v with prompt vectors u in the shared space, as text-image retrieval
does (ConVIRT, section 3.2); classification from prompts is CLIP's (Radford et al. 2021, section 3.1), a pair of a
positive and a negative prompt for each label is CheXzero's (Tiu et al. 2022).

Shape legend: N images, C labels or classes, D size of the shared space.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from convirt.errors import InputError

if TYPE_CHECKING:
    from convirt.evaluation.inputs.images import Encoder

BUILT_IN = ("chexpert", "phantom")
TEMPERATURE = 0.1  # ConVIRT, appendix A: where a method has no temperature of its own
_ROLES = ("positive", "negative", "class")

Prompts = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Prompts by label and by class."""

    pairs: Mapping[str, tuple[Prompts, Prompts]] = field(default_factory=dict)
    """Label -> positive and negative prompts."""
    classes: Mapping[str, Prompts] = field(default_factory=dict)
    """Class -> prompts."""
    source: str
    """Where they come from, for messages."""
    sha256: str
    """Hash of the file's bytes."""

    def pair_of(self, label: str) -> tuple[Prompts, Prompts]:
        """Positive and negative prompts of a label, whatever its case.

        Raises:
            InputError: There is none.
        """
        return _found(self.pairs, label, f"{self.source} has no positive and negative prompts for label")

    def class_of(self, name: str) -> Prompts:
        """Prompts of a class: its own, or else the positive side of its pair.

        Raises:
            InputError: There is none.
        """
        known = {**{label: positive for label, (positive, _) in self.pairs.items()}, **self.classes}
        return _found(known, name, f"{self.source} has no prompts for class")


def _key(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())


def _found(known: Mapping[str, Any], name: str, problem: str) -> Any:
    found = {_key(given): prompts for given, prompts in known.items()}.get(_key(name))
    if found is None:
        raise InputError(f"{problem} {name!r}; it has {', '.join(known) or 'none'}")
    return found


def read_prompts(source: str | Path) -> PromptSet:
    """Read prompts.

    Args:
        source: Name of a built-in set (`chexpert`, `phantom`), or path of a TOML, CSV or Parquet file.

    Raises:
        InputError: No such file, or it does not hold prompts.
    """
    if str(source) in BUILT_IN:
        return _from_toml(files("convirt.evaluation").joinpath(f"prompts_{source}.toml").read_bytes(), str(source))
    path = Path(source)
    if not path.is_file():
        raise InputError(f"there are no prompts at {path}; give a file, or a built-in set: {', '.join(BUILT_IN)}")
    if path.suffix.lower() == ".toml":
        return _from_toml(path.read_bytes(), str(path))
    from convirt.data.tables import read_frame

    frame, digest = read_frame(path, [("", "label"), ("", "role"), ("", "text")])
    roles = frame["role"].str.lower()
    if unknown := sorted(set(roles) - set(_ROLES)):
        raise InputError(f"{path}: unknown role {unknown[0]!r} of a prompt; known are {', '.join(_ROLES)}")
    content: dict[str, dict[str, Any]] = {"pairs": {}, "classes": {}}
    for label, role, text in zip(frame["label"], roles, frame["text"], strict=True):
        if role == "class":
            content["classes"].setdefault(label, []).append(text)
        else:
            content["pairs"].setdefault(label, {}).setdefault(role, []).append(text)
    return _checked(content, str(path), digest)


def _from_toml(data: bytes, source: str) -> PromptSet:
    try:
        content = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: is not TOML ({error}); repair it") from None
    return _checked(content, source, sha256(data).hexdigest())


def _checked(content: Mapping[str, Any], source: str, digest: str) -> PromptSet:
    if unknown := sorted(set(content) - {"pairs", "classes"}):
        raise InputError(f"{source}: unknown table {unknown[0]!r}; prompts stand under [pairs.LABEL] and [classes]")
    pairs, classes = content.get("pairs", {}), content.get("classes", {})
    if not isinstance(pairs, dict) or not isinstance(classes, dict) or not (pairs or classes):
        raise InputError(f"{source} holds no prompts; they stand under [pairs.LABEL] and [classes]")
    for label, sides in pairs.items():
        if not isinstance(sides, dict) or set(sides) != {"positive", "negative"}:
            raise InputError(f"{source}: label {label!r} needs both positive and negative prompts, and nothing else")
    return PromptSet(
        pairs={
            label: (_texts(sides["positive"], label, source), _texts(sides["negative"], label, source))
            for label, sides in pairs.items()
        },
        classes={name: _texts(texts, name, source) for name, texts in classes.items()},
        source=source,
        sha256=digest,
    )


def _texts(value: Any, label: str, source: str) -> Prompts:
    texts: Sequence[Any] = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InputError(f"{source}: the prompts of {label!r} must be texts, at least one and none empty")
    return tuple(text.strip() for text in texts)


def prompt_vectors(encoder: "Encoder", prompts: Sequence[Prompts], batch_size: int) -> NDArray[np.float64]:
    """One unit vector for each list of prompts: the mean of their unit vectors, scaled to length 1.

    Returns:
        float64 [len(prompts), D].
    """
    flat = [text for texts in prompts for text in texts]
    vectors = encoder.encode_text(flat, space="shared", batch_size=batch_size, normalise=True).astype(np.float64)
    ends = np.cumsum([len(texts) for texts in prompts])
    means = np.stack([part.mean(axis=0) for part in np.split(vectors, ends[:-1])])
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def pair_scores(
    encoder: "Encoder", v_ND: NDArray[np.float32], labels: Sequence[str], prompts: PromptSet, batch_size: int
) -> NDArray[np.float32]:
    """Probability of each label [N, C]: softmax over the similarities to its positive and its negative prompts."""
    from scipy.special import softmax

    pairs = [prompts.pair_of(label) for label in labels]
    positive_CD = prompt_vectors(encoder, [positive for positive, _ in pairs], batch_size)
    negative_CD = prompt_vectors(encoder, [negative for _, negative in pairs], batch_size)
    similarity_NC2 = np.stack([v_ND @ positive_CD.T, v_ND @ negative_CD.T], axis=2)
    return softmax(similarity_NC2 / temperature_of(encoder), axis=2)[..., 0].astype(np.float32)


def class_scores(
    encoder: "Encoder", v_ND: NDArray[np.float32], classes: Sequence[str], prompts: PromptSet, batch_size: int
) -> NDArray[np.float32]:
    """Probability of each class [N, C]: softmax over the similarities to the prompts of all classes."""
    from scipy.special import softmax

    class_CD = prompt_vectors(encoder, [prompts.class_of(name) for name in classes], batch_size)
    return softmax(v_ND @ class_CD.T / temperature_of(encoder), axis=1).astype(np.float32)


def temperature_of(encoder: "Encoder") -> float:
    """The temperature that the run learned, or that of its own objective, where it has one."""
    if (learned := getattr(encoder, "temperature", None)) is not None:
        return float(learned)
    objective = getattr(getattr(encoder, "config", None), "objective", None)
    return float(getattr(objective, "temperature", TEMPERATURE))
