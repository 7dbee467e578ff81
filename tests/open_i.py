"""The reports of Open-i, as the package torchxrayvision ships them."""

import importlib.util
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest


@dataclass(frozen=True)
class OpenIReport:
    """The fields of one report, stripped; images it has."""

    findings: str
    impression: str
    indication: str
    comparison: str
    images: int
    terms: tuple[str, ...]
    """MeSH terms that indexers gave it, such as `Cardiomegaly/mild`."""

    @property
    def text(self) -> str:
        """Findings and Impression, empty ones left out: the text that sentence starts are marked in."""
        return "\n\n".join(field for field in (self.findings, self.impression) if field)


@cache
def open_i_reports() -> dict[str, OpenIReport]:
    """Return all reports by their number, or skip the test where the package is absent."""
    spec = importlib.util.find_spec("torchxrayvision")  # not imported: it brings torch, and downloads
    archive = Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz" if spec and spec.origin else None
    if archive is None or not archive.is_file():
        pytest.skip("torchxrayvision, which ships the reports of Open-i, is not installed")
    reports = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.name.endswith(".xml"):
                file = tar.extractfile(member)
                assert file is not None
                reports[Path(member.name).stem] = _read(ElementTree.fromstring(file.read()))
    return reports


def _read(root: ElementTree.Element) -> OpenIReport:
    fields = {a.get("Label"): "".join(a.itertext()).strip() for a in root.iter("AbstractText")}
    return OpenIReport(
        findings=fields["FINDINGS"],
        impression=fields["IMPRESSION"],
        indication=fields["INDICATION"],
        comparison=fields["COMPARISON"],
        images=sum(1 for _ in root.iter("parentImage")),
        terms=tuple((term.text or "").strip() for term in root.iter("major")),
    )
