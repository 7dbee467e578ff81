"""A small DICOMweb server that can be made to misbehave; what a real one does is tested with Orthanc."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pydicom

from web import Handler, Site

_TAGS = ("0020000D", "00100020", "00080050", "00100040", "00081030")
_INSTANCE_TAGS = ("0020000D", "0020000E", "00080018", "00080016", "00080060")


@dataclass
class FakePacs(Site):
    """Serves DICOM files: QIDO-RS listings of studies and instances, WADO-RS retrieval of one instance."""

    instances: list[tuple[dict[str, Any], bytes]] = field(default_factory=list)
    """DICOM JSON and file of each."""
    page: int = 3
    """Most items of one listing, whatever is asked for."""
    offsets: bool = True
    """Whether `offset` is honoured."""
    syntaxes: bool = True
    """Whether `transfer-syntax=*` is understood."""
    gone: set[str] = field(default_factory=set)
    """UIDs of instances that are listed and cannot be had."""

    def add(self, path: Path) -> None:
        """Store a file."""
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        item = {tag: _json(dataset, tag) for tag in (*_TAGS, *_INSTANCE_TAGS)}
        self.instances.append((item, path.read_bytes()))

    def pulled(self) -> list[str]:
        """UIDs of the instances that were asked for, in order."""
        return [path.rpartition("/")[2] for path, _ in self.requests if "/series/" in path]


def _json(dataset: pydicom.Dataset, tag: str) -> dict[str, Any]:
    value = dataset.get(int(tag, 16))
    return {"vr": value.VR if value else "LO", **({"Value": [str(value.value)]} if value and value.value else {})}


def uid(item: dict[str, Any], tag: str) -> str:
    return str(item[tag]["Value"][0])


class PacsHandler(Handler):
    """Answers as PS3.18 says."""

    site: FakePacs

    def do_GET(self) -> None:
        self.site.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        if self.site.trouble and self.site.trouble.pop(0)(self):
            return
        parts = self.route.strip("/").split("/")
        if parts == ["studies"]:
            self.list("0020000D", self.site.instances)
        elif len(parts) == 3 and parts[2] == "instances":
            self.list("00080018", [i for i in self.site.instances if uid(i[0], "0020000D") == parts[1]])
        else:
            self.retrieve(parts[-1])

    def list(self, key: str, found: "list[tuple[dict[str, Any], bytes]]") -> None:
        """Answer with one page."""
        query = parse_qs(urlsplit(self.path).query)
        items = list({uid(item, key): item for item, _ in found}.values())
        start = int(query["offset"][0]) if self.site.offsets else 0
        page = items[start : start + min(self.site.page, int(query["limit"][0]))]
        self.answer(200 if page else 204, json.dumps(page).encode() if page else b"")

    def retrieve(self, wanted: str) -> None:
        """Answer with one instance as multipart."""
        content = next((file for item, file in self.site.instances if uid(item, "00080018") == wanted), None)
        if content is None or wanted in self.site.gone:
            self.answer(404, b"")
        elif "transfer-syntax=*" in self.headers["Accept"] and not self.site.syntaxes:
            self.answer(406, b"")
        else:
            self.answer(200, *multipart(content))


def multipart(content: bytes, *, closing: bool = True) -> tuple[bytes, dict[str, str]]:
    """Body and headers of an answer with one instance."""
    body = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + content + (b"\r\n--xyz--\r\n" if closing else b"")
    return body, {"Content-Type": 'multipart/related; type="application/dicom"; boundary="xyz"'}
