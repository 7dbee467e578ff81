"""Ids of patients and pairs that tell nobody who they are: salted hashes.

Whoever holds the source table can make them again; whoever holds only the corpus cannot try out hospital numbers, as
long as the salt stays a secret.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace
from typing import Literal

from convirt.data.records import Pair

SALT = "CONVIRT_SALT"
"""Environment variable: the salt of hashed ids. Corpora made with the same one know a patient by the same id."""


def table_mark(digest: str) -> str:
    """Return what a corpus may say of its source table: a hash of the hash, which the default salt is made of."""
    return hashlib.sha256(f"convirt table {digest}".encode()).hexdigest()


@dataclass(frozen=True)
class Identities:
    """Replaces ids; an empty salt keeps them."""

    salt: str = field(repr=False)

    @classmethod
    def choose(cls, ids: Literal["hashed", "plain"], content: str) -> "Identities":
        """Take the salt from the environment or, if it has none, from the hash of the source's content."""
        if ids == "plain":
            return cls("")
        return cls(os.environ.get(SALT) or hashlib.sha256(f"convirt salt {content}".encode()).hexdigest())

    def of(self, kind: Literal["patient", "pair"], name: str) -> str:
        """Return the id for a patient or a pair: 16 hexadecimal digits, or `name` itself where ids are plain."""
        if not self.salt:
            return name
        return hashlib.sha256(f"{self.salt}\0{kind}\0{name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def hide(self, pair: Pair) -> Pair:
        """Return the pair under its ids."""
        if not self.salt:
            return pair
        return replace(pair, pair_id=self.of("pair", pair.pair_id), patient_id=self.of("patient", pair.patient_id))

    def mark(self) -> str:
        """Return what tells one salt from another without giving it away; empty where ids are plain."""
        return hashlib.sha256(f"convirt mark {self.salt}".encode()).hexdigest() if self.salt else ""
