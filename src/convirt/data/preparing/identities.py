"""Ids of patients and pairs that tell nobody who they are: salted hashes.

Whoever holds the source table can make them again; whoever holds only the corpus cannot try out hospital numbers, as
long as the salt stays a secret.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import Literal

from convirt.data.preparing.options import Options
from convirt.data.records import Pair
from convirt.data.splits import canonical_id

SALT = "CONVIRT_SALT"
"""Environment variable: the salt of hashed ids. Corpora made with the same one know a patient by the same id."""


def default_salt(content: str) -> str:
    """Return the salt where the user gives none, made of the hash of the source's content."""
    return hashlib.sha256(f"convirt salt {content}".encode()).hexdigest()


def table_mark(digest: str) -> str:
    """Return what a corpus may say of its source table: a hash of the hash, which the default salt is made of."""
    return hashlib.sha256(f"convirt table {digest}".encode()).hexdigest()


def names_patient(source: str, patient: str) -> bool:
    """Whether a path holds the id of a patient, as `p10/p10000032/s50414267/x.jpg` holds 10000032.

    Ids of one or two characters stand in any path; they are not looked for.
    """
    digits = patient.isdigit()  # which may stand there with other leading zeros than in the table
    edge, name = (r"\d", f"0*{patient.lstrip('0')}") if digits else (r"[^\W_]", re.escape(patient))
    return len(patient) > 2 and re.search(f"(?<!{edge}){name}(?!{edge})", source) is not None


@dataclass(frozen=True)
class Identities:
    """Replaces ids; an empty salt keeps them."""

    salt: str = field(repr=False)
    sources: bool = False
    """Whether paths of source files are replaced too."""
    as_written: bool = False
    """Whether a patient's id is hashed as it is written, as version 0.1 did: spellings of one id (1001, 1001.0) then
    have different hashes. Otherwise it is hashed in its canonical form (`splits.canonical_id`)."""

    @classmethod
    def choose(cls, options: Options, content: str) -> "Identities":
        """Take the salt from the environment or, if it has none, from the hash of the source's content."""
        if options.ids == "plain":
            return cls("")
        salt = os.environ.get(SALT) or default_salt(content)
        return cls(salt, sources=options.sources == "hashed")

    def of(self, kind: Literal["patient", "pair", "source"], name: str) -> str:
        """Return the id for a patient, pair or file: 16 hexadecimal digits, or `name` itself where ids are plain."""
        if not self.salt:
            return name
        if kind == "patient" and not self.as_written:
            name = canonical_id(name)
        return hashlib.sha256(f"{self.salt}\0{kind}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def hide(self, pair: Pair) -> Pair:
        """Return the pair under its ids."""
        if not self.salt:
            return pair
        images = tuple(replace(image, source=self.file(image.source)) for image in pair.images)
        patient, own = self.of("patient", pair.patient_id), self.of("pair", pair.pair_id)
        return replace(pair, pair_id=own, patient_id=patient, images=images)

    def file(self, source: str) -> str:
        """Return what the path of a source file is called."""
        return self.of("source", source) if self.sources and source else source

    def mark(self) -> str:
        """Return what tells one salt, and way of hashing, from another without giving it away; empty for plain ids."""
        kind = "mark" if self.as_written else "canonical mark"
        return hashlib.sha256(f"convirt {kind} {self.salt}".encode()).hexdigest() if self.salt else ""
