"""What every `prepare ...` verb shares: how images and texts become a corpus, whatever they come from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from convirt.data.reports import load_lexicon
from convirt.errors import InputError

LARGEST = 10_000
"""Largest side of prepared images, pixels: a square of it has as many pixels as a source image may have."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a corpus is made; what is not about its content is how the work is done."""

    image_size: int = 256
    """Larger side of the prepared images, pixels (A: 256)."""
    bits: Literal[8, 16] = 8
    """Depth of the prepared images."""
    seed: int = 0
    """Seed of what is drawn, such as a split by patient."""
    max_failures: float = 0.1
    """Largest share of rows that may be unusable; above it nothing is written."""
    workers: int | None = None
    """Processes that read images; None: one for each processor. The corpus does not depend on it."""
    engine: Literal["local", "ray"] = "local"
    """Where these processes run: on this machine, or on a Ray cluster. The corpus does not depend on it."""
    ids: Literal["hashed", "plain"] = "hashed"
    """Whether ids of patients and pairs are replaced by salted hashes. The salt is the environment variable
    CONVIRT_SALT, else made of the source's content: then who holds the source's table, or its sha256 (a benchmark of
    the same table names it), can recompute them. Set CONVIRT_SALT to a secret before a corpus leaves the house."""
    sources: Literal["plain", "hashed"] = "plain"
    """Whether paths of source files are replaced by salted hashes as well, in the corpus and its audit. Plain paths are
    what `prepare remake` needs, but they often hold ids of patients (MIMIC-CXR) or UIDs (DICOMweb); hashed ones cannot
    be followed back."""
    language: str = "en"
    """Language of the reports, which chooses the lexicon of headings and abbreviations."""
    lexicon: Path | None = None
    """A lexicon of the user's own, in place of the language's."""
    unsectioned: Literal["keep", "drop"] = "keep"
    """What becomes of a report with neither Findings nor Impression: its whole text is kept, or its pair is dropped, as
    the paper has it (appendix A)."""
    redact: bool = False
    """Whether identifiers found in texts are masked."""

    def __post_init__(self) -> None:
        if self.image_size < 16:
            raise InputError(f"image_size must be at least 16, got {self.image_size}")
        if self.image_size > LARGEST:
            memory = 4 * self.image_size**2 / 2**30
            raise InputError(
                f"image_size {self.image_size} would take {memory:,.1f} GiB of memory for one square image; "
                f"choose at most {LARGEST}"
            )
        if self.bits not in (8, 16):
            raise InputError(f"bits must be 8 or 16, got {self.bits}")
        if not 0 <= self.max_failures <= 1:
            raise InputError(f"max_failures is a share between 0 and 1, got {self.max_failures}")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers must be at least 1, got {self.workers}")
        if self.engine not in ("local", "ray"):
            raise InputError(f"engine must be local or ray, got {self.engine!r}")
        if self.ids not in ("hashed", "plain"):
            raise InputError(f"ids must be hashed or plain, got {self.ids!r}")
        if self.sources not in ("plain", "hashed"):
            raise InputError(f"sources must be plain or hashed, got {self.sources!r}")
        if self.sources == "hashed" and self.ids == "plain":
            raise InputError("--sources hashed hides nothing beside --ids plain; leave one of the two out")
        if self.unsectioned not in ("keep", "drop"):
            raise InputError(f"unsectioned must be keep or drop, got {self.unsectioned!r}")
        load_lexicon(self.lexicon or self.language)  # now, not in a worker

    def settings(self) -> dict[str, Any]:
        """Return what of this decides the content of a corpus, as JSON values."""
        settings = {name: value for name, value in vars(self).items() if name not in ("workers", "engine")}
        if self.lexicon is not None:
            settings["lexicon"] = {"name": self.lexicon.name, "sha256": self._lexicon_digest()}
        return settings

    def _lexicon_digest(self) -> str:
        assert self.lexicon is not None
        try:
            return hashlib.sha256(self.lexicon.read_bytes()).hexdigest()
        except OSError as error:
            raise InputError(f"lexicon {self.lexicon} cannot be read ({error.strerror}); check the path") from error


SharedOptions = Annotated[Options, tyro.conf.arg(name="")]
"""`Options`, each field of which is an option of the verb."""
DEFAULTS = Options()
