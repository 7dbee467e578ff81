"""`convirt prepare dicomweb`: studies and reports of a PACS that speaks DICOMweb become a prepared corpus.

Every instance is pulled once, to a folder, as the server stores it; the corpus is then made from that folder as from
any other, so that it is the same, pixel for pixel, as one made from the files themselves.
"""

import os
import re
import shutil
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.progress import track

from convirt.atomic import disk_errors
from convirt.data.http import Patience, check_url, credentials
from convirt.data.imaging.pixels import Choice
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import DEFAULTS, SharedOptions
from convirt.data.preparing.pairs import PairPlan, Row, read_content
from convirt.data.sources.studies import deal_patients, joined_views
from convirt.errors import InputError
from convirt.jobs import hold

if TYPE_CHECKING:
    from convirt.data.sources.dicomweb_server import DicomWebServer, Study
    from convirt.data.sources.dicomweb_study import PulledStudy
    from convirt.data.tables import Table

Problem = tuple[str, str, bool]
"""Reason under which the audit counts it, detail, and whether it is a failure."""


def prepare_dicomweb(
    url: str,
    out: Path,
    *,
    query: Sequence[str] = (),
    reports: Path | None = None,
    key: Literal["accession", "study"] = "accession",
    key_column: str | None = None,
    text_column: str = "text",
    encoding: str = "utf-8",
    cache: Path | None = None,
    connections: int = 4,
    patience: float = 120.0,
    val_share: float = 0.1,
    test_share: float = 0.1,
    frame: int | None = None,
    window: int = 1,
    options: SharedOptions = DEFAULTS,
) -> Path:
    """Turn studies of a DICOMweb server (QIDO-RS, WADO-RS) into a prepared corpus.

    A pair is a study's images and its report: the structured report (DICOM SR), CDA or plain text document that the
    study holds, else a row of the table in --reports. Credentials come from the environment alone:
    CONVIRT_DICOMWEB_USER and CONVIRT_DICOMWEB_PASSWORD, or CONVIRT_DICOMWEB_TOKEN. Certificates are checked;
    REQUESTS_CA_BUNDLE names an authority of your own. Source paths are made of UIDs, by which the server finds a
    patient: they stay in the corpus unless --sources hashed. Stopped or cut off, the same command goes on where it was.

    Args:
        url: Address of the service, for example https://pacs.example.org/dicom-web.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        query: Filters `StudyDate=20200101-20201231` by DICOM keyword, separated by spaces or commas. `Modality` takes
            one modality and also keeps a study's other images out.
        reports: Table (CSV or Parquet) with the reports of studies that hold none.
        key: What the table names a study by: its accession number, or its Study Instance UID.
        key_column: Column with it; default: the column of that name, `accession` or `study`.
        text_column: Column with the report.
        encoding: Text encoding of a CSV table.
        cache: Folder that instances are pulled to, and kept in; without it, a hidden folder beside OUT that is removed
            when the corpus is written. It holds patients' data as the server sent them.
        connections: Requests at the same time.
        patience: Seconds that one request may fail without progress before the command gives up.
        val_share: Share of patients for validation, dealt out by seed.
        test_share: Share of patients for test.
        frame: Which frame of an image with several, from 1; without it such an image is set aside, and with it every
            image that has not so many.
        window: Which window, or VOI LUT, of an image with several, from 1; an image without it is set aside.
        options: What all sources share.

    Returns:
        The corpus folder.

    Raises:
        InputError: The server cannot be used, nothing answers the query, or too many rows are unusable; no corpus is
            written then, and what was pulled stays for the next call.
    """
    from convirt.data.preparing.prepare import check_out, prepare_corpus
    from convirt.data.sources.dicomweb_server import DicomWebServer

    out = Path(out)
    if not 1 <= connections <= 64:
        raise InputError(f"connections must be between 1 and 64, got {connections}")
    choice = Choice.numbered(frame, window)
    check_out(out)
    filters, modality = parse_query(query)
    table = ReportTable.read(reports, key, key_column, text_column, encoding) if reports else None
    server = DicomWebServer(check_url(url), auth=credentials(os.environ), patience=Patience(seconds=patience))
    folder = Path(cache) if cache else out.parent / f".{out.name}.dicomweb"
    shares = {"seed": options.seed, "val_share": val_share, "test_share": test_share}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with hold(folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every value that is not as the standard has it
            plans, audit = plan_pulled(_pull(server, filters, modality, folder, connections), table)
        audit.notes += [f"{note} ({count} times)" for note, count in sorted(server.notes.items())]
        settings: dict[str, Any] = {
            "source": "dicomweb",
            "filters": sorted(filters),
            "modality": modality,
            "split": shares,
        }
        settings |= {"frame": frame, "window": window}
        read = partial(read_content, folder, options=options, choice=choice)
        prepare_corpus(deal_patients(plans, shares, audit), read, out, options=options, settings=settings, audit=audit)
    if not cache:
        shutil.rmtree(folder, ignore_errors=True)
    return out


def parse_query(query: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return QIDO-RS filters, and the one modality that images must have (empty: any).

    Raises:
        InputError: A filter is not `Keyword=value`, or stands twice; servers would silently ignore an unknown keyword.
    """
    from pydicom.datadict import tag_for_keyword

    filters: dict[str, str] = {}
    for condition in (part for given in query for part in re.split(r",(?=\s*\w+\s*=)", given)):
        name, equals, value = (part.strip() for part in condition.partition("="))
        if not (equals and name and value):
            raise InputError(f"--query {condition!r} must read Keyword=value, for example StudyDate=20200101-20201231")
        if tag_for_keyword(name) is None:
            raise InputError(
                f"--query: {name!r} is not a DICOM keyword; known ones are StudyDate, Modality, PatientID ..."
            )
        if name in filters:
            raise InputError(f"--query: {name} stands twice; join its values as the standard has it, a range or a list")
        filters[name] = value
    modality = filters.pop("Modality", "")
    if modality:
        filters.setdefault("ModalitiesInStudy", modality)
    return filters, modality


def _pull(
    server: "DicomWebServer", filters: Mapping[str, str], modality: str, folder: Path, connections: int
) -> "Iterator[PulledStudy]":
    """Yield the studies, in the order of their UIDs, each when all of it is on disk."""
    from convirt.data.sources.dicomweb_study import pull_study

    # A server may list studies in any order, and in another order tomorrow.
    studies: list[Study] = sorted(server.studies(filters), key=lambda study: study.uid)
    if not studies:
        raise InputError(f"{server.url}: no study answers the query {dict(filters)}; widen --query")
    with disk_errors(folder), ThreadPoolExecutor(connections) as pool:
        pull = partial(pull_study, server, modality=modality, folder=folder)
        todo = iter(studies)
        waiting = deque(pool.submit(pull, study) for study in islice(todo, 2 * connections))
        try:
            for _ in track(studies, "pulling studies", transient=True):
                yield waiting.popleft().result()
                waiting.extend(pool.submit(pull, study) for study in islice(todo, 1))
        finally:
            server.stop()
            pool.shutdown(wait=True, cancel_futures=True)


def plan_pulled(pulled: "Iterator[PulledStudy]", table: "ReportTable | None") -> tuple[list[PairPlan], Audit]:
    """Decide which study becomes a pair; the audit explains every other row.

    A row is an instance that is not a report, or a study without any. Plans are in the order of studies, not yet in a
    split.
    """
    audit = Audit(table="the server: images and other objects, and studies without any", total=0)
    notes: Counter[str] = Counter()
    studies: list[tuple[PulledStudy, list[Row]]] = []
    for study in pulled:
        if table is not None:
            table.see(study)
        notes["studies with the text of a report object"] += bool(study.report)
        notes.update(study.report_problems)
        notes["values of sex, age, modality or view that DICOM does not have, left out"] += study.foreign
        studies.append((study, list(_rows(study, audit))))
    plans: list[PairPlan] = []
    for study, rows in studies:
        text, problem = _find_text(study, table)
        if problem:
            for row in rows:
                audit.drop(row.number, problem[0], image=row.image, detail=problem[1], failure=problem[2])
        elif rows:
            plan = PairPlan(
                pair_id=study.uid,
                patient=study.patient,
                split="",
                rows=tuple(rows),
                text=text,
                attributes={**study.attributes, "view": joined_views(rows)},
            )
            plans.append(plan)
    audit.notes += [f"{what}: {count}" for what, count in sorted(notes.items()) if count]
    audit.notes += table.notes() if table else []
    return plans, audit


def _find_text(study: "PulledStudy", table: "ReportTable | None") -> tuple[str, Problem | None]:
    """Return the report of a study: its own, else that of the table; or the reason why it has none."""
    if not study.patient:
        return "", ("no patient", "", True)
    if study.report:
        return study.report, None
    own = "; ".join(dict.fromkeys(study.report_problems)) or "no report object"
    text, problem = table.find(study) if table else ("", ("no report", "no --reports", False))
    return text, problem and (problem[0], f"{own}; {problem[1]}", problem[2])


def _rows(study: "PulledStudy", audit: Audit) -> Iterator[Row]:
    """Yield a row for each image of a study that is on disk; the others go to the audit."""
    if not study.items:
        audit.total += 1
        audit.drop(audit.total, "study without image", image=study.uid)
    for item in study.items:
        audit.total += 1
        if item.problem:
            audit.drop(
                audit.total, item.problem, image=item.uid, detail=item.detail, quoted=item.quoted, failure=item.failure
            )
            continue
        yield Row(
            number=audit.total,
            image=item.uid,
            source=item.file,
            patient=study.patient,
            study=study.uid,
            view=item.view,
        )


class ReportTable:
    """A table of reports for studies that hold none, by accession number or Study Instance UID."""

    def __init__(self, table: "Table", key: str, key_column: str, text_column: str) -> None:
        from convirt.data.tables import require_columns

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
        from convirt.data.tables import read_table

        table = cls(read_table(path, encoding=encoding), key, key_column or key, text_column)
        if not table._texts:
            raise InputError(f"table {table.name} names no study: its column {key_column or key!r} is empty")
        return table

    def see(self, study: "PulledStudy") -> None:
        """Take note of a study; to be called for all of them before any text is asked for."""
        self._patients[self._value(study)].add(study.patient)

    def find(self, study: "PulledStudy") -> tuple[str, Problem | None]:
        """Return the text of a study, or the reason why it has none.

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

    def _value(self, study: "PulledStudy") -> str:
        return study.accession if self._key == "accession" else study.uid
