"""`convirt prepare open-i`: the Indiana University collection of Open-i becomes a prepared corpus.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval" (2016): chest
radiographs as PNG and reports as XML, one examination a patient, `XXXX` where text was removed. Every image, and every
report without one, is a row of the audit.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from convirt.data.http import Patience, check_url
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.options import DEFAULTS, Options, SharedOptions
from convirt.data.preparing.pairs import PairContent, PairPlan, Row, make_content, read_image
from convirt.data.sources.counts import Figure
from convirt.data.sources.download import download as fetch
from convirt.data.sources.studies import deal_patients, prepare_studies
from convirt.data.sources.unpacking import unpack
from convirt.errors import InputError

BASE = "https://openi.nlm.nih.gov/imgs/collections"
IMAGES, REPORTS = "NLMCXR_png.tgz", "NLMCXR_reports.tgz"
_SOURCE = "the whole collection"
FIGURES = (
    Figure(what="reports", count="reports", published=3955, source=_SOURCE),
    Figure(what="reports without findings and impression", count="without text", published=28, source=_SOURCE),
    Figure(what="reports without image", count="without image", published=104, source=_SOURCE),
    Figure(what="usable reports", count="usable", published=3826, source=_SOURCE),
    Figure(what="images that reports name", count="images named", published=7470, source=_SOURCE),
    Figure(what="pairs", count="pairs", published=3826, source=_SOURCE),
)
"""Counts of the published collection, taken from all of its reports."""
NO_TEXT, NO_IMAGE = "report without findings and impression", "report without image"
_MAX_XML = 2**20  # the largest of the collection has 9 kB
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class OpenIReport:
    """What one XML report says."""

    name: str
    """`CXR1` ...: it stands for the patient as well."""
    findings: str
    impression: str
    images: tuple[str, ...]
    """Ids of its images; the file of `CXR1_1_IM-0001-3001` is `CXR1_1_IM-0001-3001.png`."""
    attributes: Mapping[str, str]
    """Indication and the MeSH terms, those given by people (`mesh_major`) and by a program (`mesh_automatic`)."""


@dataclass(frozen=True, kw_only=True)
class OpenIPlan(PairPlan):
    """A planned pair with its text in two fields in place of `text`: no heading is looked for in them."""

    findings: str
    impression: str


def prepare_open_i(
    root: Path,
    out: Path,
    *,
    download: bool = False,
    url: str = BASE,
    patience: float = 120.0,
    val_share: float = 0.1,
    test_share: float = 0.1,
    options: SharedOptions = DEFAULTS,
) -> Path:
    """Turn the Open-i chest collection of Indiana University into a prepared corpus.

    Public, no credentials. A pair is a report (its Findings and Impression) with its images. The audit compares what
    is there with the published counts: 3,955 reports, 28 of them without text, 104 without image, 3,826 usable.
    Paths of the images stay in the corpus, unless --sources hashed.

    Args:
        root: Folder with NLMCXR_png.tgz and NLMCXR_reports.tgz, which are unpacked there, or with what they hold.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        download: Fetch both archives to `root` first (1.4 GB), or what is missing of them. Sums are checked against
            the SHA256SUMS in `root`; on the first download they are recorded there, as none are published.
        url: Address of the folder that holds the two archives; a mirror, for example.
        patience: Seconds that a download may fail without progress before it is given up.
        val_share: Share of patients for validation, dealt out by seed: the collection has no split of its own.
        test_share: Share of patients for test.
        options: What all sources share.

    Returns:
        The corpus folder.

    Raises:
        InputError: Nothing to read in `root`, a failed download, or too many unusable rows; nothing is written then.
    """
    from convirt.data.preparing.prepare import check_out

    root, out = Path(root), Path(out)
    check_out(out)
    notes = _download(root, url, Patience(seconds=patience)) if download else []
    files = _find_files(root)
    shares = {"seed": options.seed, "val_share": val_share, "test_share": test_share}
    plans, audit, listed = plan_open_i(root, files)
    audit.notes = notes + audit.notes
    settings = {"source": "open-i", "split": shares}
    read = partial(read_pair, root, options)
    plans = deal_patients(plans, shares, audit)
    return prepare_studies(
        plans, read, out, options=options, settings=settings, audit=audit, figures=FIGURES, listed=listed
    )


def read_pair(root: Path, options: Options, plan: PairPlan) -> PairContent:
    """Read a planned pair, whose images are below `root`."""
    assert isinstance(plan, OpenIPlan)
    return make_content(plan, (plan.findings, plan.impression), partial(read_image, root, options), options)


def _download(root: Path, url: str, patience: Patience) -> list[str]:
    base = check_url(url)
    return [
        f"{name} has sha256 {fetch(f'{base}/{name}', root / name, magic=_GZIP, patience=patience)}, as {root.name}/"
        "SHA256SUMS says"
        for name in (REPORTS, IMAGES)
    ]


@dataclass(frozen=True, kw_only=True)
class _Files:
    reports: tuple[str, ...]
    """Paths below the root of the XML files, in the order of their numbers."""
    images: Mapping[str, str]
    """Paths below the root of the PNG files, by the id of the image."""
    notes: tuple[str, ...]


def _find_files(root: Path) -> _Files:
    """List reports and images below the root, unpacked first if need be.

    Raises:
        InputError: One of the two is not there.
    """
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; --root names the folder with {IMAGES} and {REPORTS} (or --download)")
    for archive, suffix in ((REPORTS, ".xml"), (IMAGES, ".png")):
        if (root / archive).is_file():
            unpack(root / archive, root / archive.removesuffix(".tgz"), suffix)
    reports: list[str] = []
    images: dict[str, str] = {}
    twice = 0
    for path in _walk(root):
        stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
        if dot and suffix.lower() == "xml" and stem.isdigit():
            reports.append(path)
        elif dot and suffix.lower() == "png" and images.setdefault(stem, path) != path:
            twice += 1
    for found, what, archive in ((reports, "XML report (1.xml ...)", REPORTS), (images, "PNG image", IMAGES)):
        if not found:
            raise InputError(f"{root} holds no {what}; put {archive} or its content there, or add --download")
    reports.sort(key=lambda path: (int(Path(path).stem), path))
    notes = (f"{twice} images stand twice; the first of each by path is used",) if twice else ()
    return _Files(reports=tuple(reports), images=images, notes=notes)


def _walk(root: Path) -> Iterator[str]:
    """Yield the paths of plain files at most three folders deep; no link is followed, nothing hidden is entered."""
    for folder, below, names in os.walk(root):
        relative = Path(folder).relative_to(root)
        below[:] = sorted(name for name in below if not name.startswith(".")) if len(relative.parts) < 3 else []
        for name in sorted(names):
            if not name.startswith(".") and not (Path(folder) / name).is_symlink():
                yield (relative / name).as_posix()


def read_report(data: bytes) -> OpenIReport:
    """Read one XML report; entities, external files and document types are refused, not followed.

    Raises:
        ValueError: It is not such a report; the message says why.
    """
    if len(data) > _MAX_XML:
        raise ValueError(f"more than {_MAX_XML} bytes")
    try:
        tree = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise ValueError(f"declares what a report does not need ({type(error).__name__})") from error
    except (ParseError, LookupError, RecursionError) as error:
        raise ValueError(f"not XML: {error}") from error
    name = tree.find("uId")
    if name is None or not re.fullmatch(r"[\w-]{1,64}", name.get("id", "")):
        raise ValueError("no <uId> that names the report")
    sections: dict[str, list[str]] = {}
    for element in tree.iter("AbstractText"):
        sections.setdefault(element.get("Label", "").upper(), []).append(_text(element))
    return OpenIReport(
        name=name.get("id", ""),
        findings=" ".join(filter(None, sections.get("FINDINGS", []))),
        impression=" ".join(filter(None, sections.get("IMPRESSION", []))),
        images=tuple(dict.fromkeys(image.get("id", "") for image in tree.iter("parentImage"))),
        attributes={
            "indication": " ".join(filter(None, sections.get("INDICATION", []))),
            "mesh_major": "; ".join(_text(term) for term in tree.findall("MeSH/major")),
            "mesh_automatic": "; ".join(_text(term) for term in tree.findall("MeSH/automatic")),
        },
    )


def _text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def plan_open_i(root: Path, files: _Files) -> tuple[list[PairPlan], Audit, dict[str, float]]:
    """Decide which report becomes a pair with which images; the audit explains every other.

    Returns:
        The plans in the order of the reports' numbers, not yet in a split, the audit, and counts under the names of
        `FIGURES`.
    """
    audit = Audit(table="Open-i: images, and reports without image", total=0, notes=list(files.notes))
    listed: dict[str, float] = dict.fromkeys(("reports", "without text", "without image", "usable", "images named"), 0)
    used: dict[str, str] = {}
    unnamed = dict(files.images)
    plans: list[PairPlan] = []
    for path in files.reports:
        listed["reports"] += 1
        try:
            report = read_report((root / path).read_bytes())
            if (first := used.setdefault(report.name, path)) != path:
                raise ValueError(f"the report {report.name} stands in {first}, too")
        except (OSError, ValueError) as error:
            audit.total += 1
            audit.drop(audit.total, "report that cannot be used", image=path, quoted=str(error)[:200], failure=True)
            continue
        _count(listed, report)
        for image in report.images:
            unnamed.pop(image, None)
        if rows := _rows(report, files.images, audit):
            plan = OpenIPlan(
                pair_id=report.name,
                patient=report.name,
                split="",
                rows=tuple(rows),
                text="",
                findings=report.findings,
                impression=report.impression,
                attributes=dict(report.attributes),
            )
            plans.append(plan)
    if unnamed:
        audit.notes.append(f"{len(unnamed)} images are named by no report")
    return plans, audit, listed


def _count(listed: dict[str, float], report: OpenIReport) -> None:
    has_text = bool(report.findings or report.impression)
    listed["without text"] += not has_text
    listed["without image"] += not report.images
    listed["usable"] += has_text and bool(report.images)
    listed["images named"] += len(report.images)


def _rows(report: OpenIReport, images: Mapping[str, str], audit: Audit) -> list[Row]:
    """Give every image of a report, or the report itself, a row; return those that can be used."""
    rows: list[Row] = []
    for image in report.images or ("",):
        audit.total += 1
        if not (report.findings or report.impression):
            audit.drop(audit.total, NO_TEXT, image=image, quoted=report.name)
        elif not report.images:
            audit.drop(audit.total, NO_IMAGE, quoted=report.name)
        elif image not in images:
            quoted = f"no {image}.png below the folder"[:200]
            audit.drop(audit.total, "image not found", image=image[:200], quoted=quoted, failure=True)
        else:
            number, source = audit.total, images[image]
            rows.append(Row(number=number, image=image, source=source, patient=report.name, study=report.name))
    return rows
