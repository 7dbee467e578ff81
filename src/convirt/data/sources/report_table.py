"""A table of reports for studies that hold none, by accession number or Study Instance UID."""

from collections import defaultdict
from pathlib import Path
from typing import Protocol

from convirt.data.tables import Table, read_table, require_columns
from convirt.errors import InputError

Problem = tuple[str, str, bool]
"""Reason under which the audit counts it, detail, and whether it is a failure."""


class Keyed(Protocol):
    """A study, as far as the table needs to know it."""

    @property
    def uid(self) -> str: ...
    @property
    def patient(self) -> str: ...
    @property
    def accession(self) -> str: ...


class ReportTable:
    """The texts of a table by their key."""

    def __init__(self, table: Table, key: str, key_column: str, text_column: str) -> None:
        require_columns(table, [key_column, text_column])
        self.name, self.sha256 = table.name, table.sha256
        self._key = key
        self._malformed = len(table.malformed)
        texts: dict[str, dict[str, None]] = defaultdict(dict)
        for value, text in zip(table.frame[key_column], table.frame[text_column], strict=True):
            if value.strip():
                texts[value.strip()][text.strip()] = None
        self._texts = {value: "\n\n".join(filter(None, several)) for value, several in texts.items()}
        self._joined = sum(len(list(filter(None, several))) > 1 for several in texts.values())
        self._patients: dict[str, set[str]] = defaultdict(set)
        self._used: set[str] = set()

    @classmethod
    def read(cls, path: Path, key: str, key_column: str | None, text_column: str, encoding: str) -> "ReportTable":
        """Read a table.

        Raises:
            InputError: It cannot be read, or lacks a column, or has no key at all.
        """
        table = cls(read_table(path, encoding=encoding), key, key_column or key, text_column)
        if not table._texts:
            raise InputError(f"table {table.name} names no study: its column {key_column or key!r} is empty")
        return table

    def see(self, study: Keyed) -> None:
        """Take note of a study; to be called for all of them before any text is asked for."""
        self._patients[self._value(study)].add(study.patient)

    def find(self, study: Keyed) -> tuple[str, Problem | None]:
        """Return the text of a study, or why there is none.

        A key that studies of several patients share is not trusted: another patient's report is worse than none.
        """
        value = self._value(study)
        if not value:
            return "", ("no report", f"no {self._key} to look for in {self.name}", False)
        if value not in self._texts:
            return "", ("no report", f"its {self._key} is not in {self.name}", False)
        self._used.add(value)
        if len(self._patients[value]) > 1:
            return "", (f"{self._key} of several patients", f"its report in {self.name} is not trusted", True)
        return self._texts[value], None

    def notes(self) -> list[str]:
        """Say what of the table was not used."""
        unused = len(self._texts) - len(self._used)
        notes = {
            f"{unused} of {len(self._texts)} reports of {self.name} belong to no study that needed one": unused,
            f"{self._joined} studies have several texts in {self.name}; they were joined": self._joined,
            f"{self._malformed} rows of {self.name} do not fit its header": self._malformed,
        }
        return [note for note, count in notes.items() if count]

    def _value(self, study: Keyed) -> str:
        return study.accession if self._key == "accession" else study.uid
