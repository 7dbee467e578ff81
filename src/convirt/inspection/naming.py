"""Whether the patients of two collections can be compared, and how: plain ids, hashed ids, and salts."""

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from convirt.data.preparing.identities import SALT, Identities, default_salt, table_mark
from convirt.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How patients are named, which decides whether two collections can be compared by patient."""

    kind: str
    """`hashed`, `plain`, or `unknown` where there are no patients."""
    mark: str = ""
    """Tells one salt from another; empty if ids are plain."""
    table_mark: str = ""
    """What a corpus says of its source table; empty if it was made of none."""
    tables: tuple[str, ...] = ()
    """Hashes of a table that is inspected, or of those of a benchmark: one may be the source of the other side."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Whether, and how, the patients of two collections can be compared."""

    possible: bool
    note: str
    hash_first: Identities | None = None
    """Applied to the ids of the first collection before."""
    hash_second: Identities | None = None
    """Applied to the ids of the second."""
    declined: bool = False
    """Whether the user has said that they need no comparison."""


@dataclass(frozen=True, kw_only=True)
class Salt:
    """A salt that may be the one of a corpus; a corpus' mark tells."""

    value: str
    origin: str
    """Where it comes from, for the reader."""
    digest: str = ""
    """Hash of the table whose content it is made of."""


def known_salts(salt_from: Path | None, *sides: Naming) -> list[Salt]:
    """Gather the salts that can be known here: the user's own, and those made of the content of a table at hand.

    Args:
        salt_from: Table that a corpus was prepared from.
        sides: The two sides; one that is a table may be the source of the other.

    Raises:
        InputError: That table cannot be read.
    """
    salts = [Salt(value=own, origin=f"{SALT}, the salt of the other side")] if (own := os.environ.get(SALT)) else []
    if salt_from is not None:
        salts += [
            Salt(value=default_salt(digest), origin="the salt made of the table of --salt-from", digest=digest)
            for digest in _digests(Path(salt_from))
        ]
    return salts + [
        Salt(value=default_salt(digest), origin="the salt made of the table that both come from")
        for side in sides
        for digest in side.tables
    ]


def check_salt_from(salt_from: Path | None, salts: list[Salt], *sides: Naming) -> None:
    """Raise an `InputError` if `--salt-from` was given and explains the ids of neither side."""
    digests = [salt.digest for salt in salts if salt.digest]
    marks = {side.mark for side in sides if side.mark}
    if salt_from is None or any(way.mark() in marks for salt in salts if salt.digest for way in _ways(salt)):
        return
    if not marks:
        raise InputError("no ids are hashed here; leave --salt-from out")
    if any(side.table_mark in map(table_mark, digests) for side in sides if side.table_mark):
        raise InputError(f"the corpus was prepared from {salt_from}, but with a {SALT} of its own; set {SALT} to that")
    raise InputError(f"no corpus here has ids hashed by the content of {salt_from}; name the table it was made from")


def _ways(salt: Salt) -> tuple[Identities, Identities]:
    """How patients may have been hashed with a salt: today, and by version 0.1."""
    return Identities(salt.value), Identities(salt.value, as_written=True)


def _digests(path: Path) -> list[str]:
    """Hashes of a table that salts are made of: of the file and, for large tables that are packed, of what it holds."""
    try:
        with path.open("rb") as file:
            digests = [hashlib.file_digest(file, "sha256").hexdigest()]
        if path.suffix.lower() == ".gz":
            unpacked = hashlib.sha256()
            for block in _unpack(path):
                unpacked.update(block)
            digests.append(unpacked.hexdigest())
    except (OSError, EOFError, zlib.error) as error:
        said = getattr(error, "strerror", None) or error
        raise InputError(f"--salt-from {path} cannot be read ({said}); check the path") from error
    return digests


def _unpack(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as file:
        while block := file.read(2**20):
            yield block


def compare_naming(first: Naming, second: Naming, salts: list[Salt]) -> Comparison:
    """Decide whether patient ids of two collections mean the same.

    Args:
        first: How one names patients.
        second: How the other does.
        salts: With which plain ids can be hashed like those of a corpus, if its mark says so.
    """
    kinds = {first.kind, second.kind}
    if "unknown" in kinds:
        return Comparison(possible=False, note="one side names no patients (--patient-column)")
    if kinds == {"plain"}:
        note = (
            "ids compared without regard to case, leading zeros and a final .0: if the two come from other archives, "
            "give --distinct-patients"
        )
        return Comparison(possible=True, note=note)
    if kinds == {"hashed"}:
        if first.mark and first.mark == second.mark:
            return Comparison(possible=True, note="ids hashed with the same salt")
        note = (
            "ids are hashed with different salts, or one side by version 0.1, which hashed spellings apart; prepare "
            f"both anew with the same {SALT} to compare them"
        )
        return Comparison(possible=False, note=note)
    hashed = first if first.kind == "hashed" else second
    for known, identities in ((salt, way) for salt in salts for way in _ways(salt)):
        if identities.mark() == hashed.mark:
            plain_first = first.kind == "plain"
            return Comparison(
                possible=True,
                note=f"plain ids hashed with {known.origin}",
                hash_first=identities if plain_first else None,
                hash_second=None if plain_first else identities,
            )
    remedy = f"set {SALT} to the one it was prepared with" if hashed.mark else f"prepare it again with {SALT} set"
    if hashed.mark and hashed.table_mark:
        remedy = f"give --salt-from the table that it was prepared from, or set {SALT} if it was prepared with one"
    return Comparison(possible=False, note=f"ids are hashed on one side only; {remedy}")
