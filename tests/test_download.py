"""Downloads from a server that misbehaves, and unpacking of archives that do."""

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from convirt.data.http import Patience, Transient, check_url, persist
from convirt.data.sources import download as downloading
from convirt.data.sources.download import SUMS, download
from convirt.data.sources.unpacking import Limits, unpack
from convirt.errors import InputError
from convirt.jobs import hold
from web import Handler, Site, cut, serve, status, then

CONTENT = np.random.default_rng(0).bytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
SHORT = Patience(seconds=0.5, first_wait=0.01)


@pytest.fixture
def site() -> Iterator[Site]:
    with serve(Site(files={"/a.tgz": CONTENT})) as site:
        yield site


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def fetch(site: Site, folder: Path, **options: object) -> str:
    return download(f"{site.url}/a.tgz", folder / "a.tgz", **{"patience": SHORT, **options})  # type: ignore[arg-type]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_download_is_checked_recorded_and_not_repeated(site: Site, tmp_path: Path) -> None:
    assert fetch(site, tmp_path) == DIGEST
    assert (tmp_path / "a.tgz").read_bytes() == CONTENT
    assert (tmp_path / SUMS).read_text() == f"{DIGEST}  a.tgz\n"
    assert fetch(site, tmp_path) == DIGEST
    assert len(site.requests) == 1
    assert names(tmp_path) == [SUMS, "a.tgz"]


def test_a_cut_connection_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.trouble = [cut(0.4), cut(0.5)]
    assert fetch(site, tmp_path) == DIGEST
    asked = [headers.get("range") for _, headers in site.requests]
    assert asked == [None, "bytes=1200000-", "bytes=2100000-"]
    assert all("if-range" in headers for _, headers in site.requests[1:])


def test_a_second_call_goes_on_where_the_first_gave_up(site: Site, tmp_path: Path) -> None:
    site.trouble = [cut(0.4), *[status(503)] * 100]
    with pytest.raises(InputError, match=r"gave up after .* 503 .*run the same command again"):
        fetch(site, tmp_path)
    assert names(tmp_path) == ["a.tgz.part", "a.tgz.part.json"]
    site.trouble, site.requests = [], []
    assert fetch(site, tmp_path) == DIGEST
    assert [headers.get("range") for _, headers in site.requests] == ["bytes=1200000-"]
    assert names(tmp_path) == [SUMS, "a.tgz"]


def test_a_server_that_ignores_ranges_sends_all_of_it_again(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.trouble = [cut(0.4)]
    assert fetch(site, tmp_path) == DIGEST


def test_without_a_validator_a_part_is_not_trusted(site: Site, tmp_path: Path) -> None:
    site.validators = False
    site.trouble = [cut(0.4)]
    assert fetch(site, tmp_path) == DIGEST
    assert [headers.get("range") for _, headers in site.requests] == [None, None]


@pytest.mark.parametrize("size", [3_000_000, 2_000_000, 500_000])
def test_a_file_that_changes_between_two_tries_is_taken_from_its_start(site: Site, tmp_path: Path, size: int) -> None:
    other = np.random.default_rng(1).bytes(size)
    site.trouble = [cut(0.4), then(lambda site: site.files.update({"/a.tgz": other}))]
    assert fetch(site, tmp_path) == hashlib.sha256(other).hexdigest()
    assert (tmp_path / "a.tgz").read_bytes() == other


def test_a_changed_file_is_noticed_though_the_server_ignores_if_range(site: Site, tmp_path: Path) -> None:
    other = np.random.default_rng(1).bytes(len(CONTENT))

    def stubborn(handler: Handler) -> bool:
        span = f"bytes 1200000-{len(other) - 1}/{len(other)}"
        handler.answer(206, other[1_200_000:], {"Content-Range": span, **handler.tag(other)})
        return True

    site.trouble = [cut(0.4), stubborn, then(lambda site: site.files.update({"/a.tgz": other}))]
    assert fetch(site, tmp_path) == hashlib.sha256(other).hexdigest()


def test_a_shorter_file_than_announced_is_never_taken_for_whole(site: Site, tmp_path: Path) -> None:
    site.trouble = [cut(0.0)] * 200
    with pytest.raises(InputError, match="gave up"):
        fetch(site, tmp_path)
    assert not (tmp_path / "a.tgz").exists()


def test_a_server_that_gives_ranges_piece_by_piece_is_asked_on(site: Site, tmp_path: Path) -> None:
    def piece(handler: Handler) -> bool:
        start = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
        body = CONTENT[start : start + 600_000]
        span = f"bytes {start}-{start + len(body) - 1}/{len(CONTENT)}"
        handler.answer(206, body, {"Content-Range": span, **handler.tag(CONTENT)})
        return True

    site.trouble = [cut(0.4), piece, piece, piece]
    assert fetch(site, tmp_path) == DIGEST
    assert len(site.requests) == 4


def test_404_is_said_at_once(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"b\.tgz: the server answered 404 Not Found; check the address"):
        download(f"{site.url}/b.tgz", tmp_path / "b.tgz", patience=Patience(seconds=60))
    assert names(tmp_path) == []


def test_a_busy_server_is_waited_for_as_long_as_it_says(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.trouble = [status(503, {"Retry-After": "1"}), status(429, {"Retry-After": "0"})]
    waited: list[float] = []
    monkeypatch.setitem(persist.__kwdefaults__, "sleep", waited.append)
    assert fetch(site, tmp_path, patience=Patience(seconds=5, first_wait=30)) == DIGEST
    assert waited == [1, 0]  # what it says, not the first wait of our own


def test_a_wrong_sum_is_one_clear_line_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / SUMS).write_text(f"{'0' * 64}  a.tgz\n")
    with pytest.raises(InputError, match=rf"a\.tgz as downloaded has sha256 {DIGEST}, SHA256SUMS says 0{{64}}; it was"):
        fetch(site, tmp_path)
    assert names(tmp_path) == [SUMS]


def test_a_damaged_file_on_disk_is_found_and_left_to_the_user(site: Site, tmp_path: Path) -> None:
    fetch(site, tmp_path)
    (tmp_path / "a.tgz").write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="remove it to download it again"):
        fetch(site, tmp_path)
    assert (tmp_path / "a.tgz").exists()


def test_a_login_page_is_not_an_archive(site: Site, tmp_path: Path) -> None:
    site.files["/a.tgz"] = b"<html>please log in</html>"
    with pytest.raises(InputError, match="does not begin as such a file does"):
        fetch(site, tmp_path, magic=b"\x1f\x8b")
    assert names(tmp_path) == []


def test_a_full_disk_is_one_clear_line(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(downloading.shutil, "disk_usage", lambda _: usage(10, 9, 1))
    with pytest.raises(InputError, match=r"a\.tgz needs 0\.00 GB more.*free some space"):
        fetch(site, tmp_path)
    monkeypatch.undo()

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloading, "_copy", fail)
    with pytest.raises(InputError, match=r"no space left on device; make room"):
        fetch(site, tmp_path)


def test_a_kill_in_the_middle_loses_nothing(site: Site, tmp_path: Path) -> None:
    def stall(handler: Handler) -> bool:
        handler.send_response(200)
        for name, value in {"Content-Length": str(len(CONTENT)), **handler.tag(CONTENT)}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(CONTENT[:2_500_000])
        handler.wfile.flush()
        time.sleep(2)
        return True

    site.trouble = [stall]
    call = "import sys; from pathlib import Path; from convirt.data.sources.download import download; "
    call += "download(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", call, f"{site.url}/a.tgz", str(tmp_path / "a.tgz")])
    part = tmp_path / "a.tgz.part"
    for _ in range(600):
        if part.exists() and part.stat().st_size >= 2_000_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    have = part.stat().st_size
    assert have >= 2_000_000
    assert fetch(site, tmp_path) == DIGEST
    assert site.requests[-1][1]["range"] == f"bytes={have}-"


def test_two_downloads_of_one_file_do_not_mix(site: Site, tmp_path: Path) -> None:
    with hold(tmp_path / "a.tgz"), pytest.raises(InputError, match="another process is writing"):
        fetch(site, tmp_path)


def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/a\.tgz: gave up.*refused"):
        download("http://127.0.0.1:9/a.tgz", tmp_path / "a.tgz", patience=SHORT)


def test_the_proxy_of_the_environment_is_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    site.files["http://archive.example/a.tgz"] = CONTENT
    assert download("http://archive.example/a.tgz", tmp_path / "a.tgz", patience=SHORT) == DIGEST
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="the proxy does not answer"):
        download("http://archive.example/b.tgz", tmp_path / "b.tgz", patience=SHORT)


def test_patience_starts_anew_with_progress() -> None:
    tries = iter([True] * 6)

    def work() -> str:
        if next(tries, None):
            time.sleep(0.15)
            raise Transient("cut", progress=True)
        return "done"

    assert persist(work, "it", Patience(seconds=0.3, first_wait=0.01)) == "done"


@pytest.mark.parametrize(
    "url", ["ftp://a.org/x", "a.org", "http://", "https://user:secret@a.org", "https://a.org:x", ""]
)
def test_an_address_that_is_none_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(InputError) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def tgz(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(data))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode, info.uid = 0o4777, 12345
    return info


def test_files_are_unpacked_once_and_anew_when_the_archive_changes(tmp_path: Path) -> None:
    archive = tgz(tmp_path / "x.tgz", [(member("a/1.xml"), b"one"), (member("a/readme"), b"no")])
    folder = unpack(archive, tmp_path / "x", ".xml")
    assert [path.name for path in folder.rglob("*") if path.is_file()] in (
        ["1.xml", ".unpacked.json"],
        [".unpacked.json", "1.xml"],
    )
    assert (folder / "a/1.xml").stat().st_mode & 0o7000 == 0
    (folder / "a/1.xml").write_text("touched")
    unpack(archive, folder, ".xml")
    assert (folder / "a/1.xml").read_text() == "touched"
    tgz(archive, [(member("a/2.xml"), b"two, longer")])
    unpack(archive, folder, ".xml")
    assert [path.name for path in folder.rglob("*.xml")] == ["2.xml"]


@pytest.mark.parametrize(
    "evil",
    [
        member("../out.xml"),
        member("/tmp/out.xml"),
        member("a/../../out.xml"),
        member("..\\out.xml"),
        member("link.xml", tarfile.SYMTYPE, "/etc/passwd"),
        member("link.xml", tarfile.LNKTYPE, "1.xml"),
        member("device.xml", tarfile.CHRTYPE),
        member("pipe.xml", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type.decode()}",
)
def test_an_evil_archive_is_refused_whole(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    (tmp_path / "in").mkdir()
    archive = tgz(tmp_path / "in" / "x.tgz", [(member("1.xml"), b"a"), (evil, b"b")])
    with pytest.raises(InputError, match="not to be trusted"):
        unpack(archive, tmp_path / "in" / "x", ".xml")
    assert names(tmp_path) == ["in"]
    assert names(tmp_path / "in") == ["x.tgz"]


def test_bombs_are_refused(tmp_path: Path) -> None:
    many = tgz(tmp_path / "many.tgz", [(member(f"{number}.xml"), b"") for number in range(60)])
    with pytest.raises(InputError, match="more than 50 files"):
        unpack(many, tmp_path / "x", ".xml", Limits(members=50))
    large = tgz(tmp_path / "large.tgz", [(member("1.xml"), bytes(3_000_000))])
    with pytest.raises(InputError, match="3000000 bytes; it is not to be trusted"):
        unpack(large, tmp_path / "x", ".xml", Limits(file_bytes=1_000_000))
    with pytest.raises(InputError, match="not to be trusted"):
        unpack(large, tmp_path / "x", ".xml", Limits(total_bytes=1_000_000))
    # A header that asks for gigabytes would be read into memory whole.
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 4 * 2**30
    with gzip.open(tmp_path / "header.tgz", "wb") as file:
        file.write(header.tobuf() + bytes(1_000_000))
    with pytest.raises(InputError, match="header of"):
        unpack(tmp_path / "header.tgz", tmp_path / "x", ".xml")
    assert not (tmp_path / "x").exists()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    archive = tgz(tmp_path / "x.tgz", [(member(f"{number}.xml"), rng.bytes(5000)) for number in range(20)])
    whole = archive.read_bytes()
    for size in (0, 1, 10, 100, 5000, len(whole) // 2, len(whole) - 4):
        archive.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"not a complete \.tgz archive"):
            unpack(archive, tmp_path / "x", ".xml")
    for place in rng.integers(10, len(whole) - 8, 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        archive.write_bytes(damaged)
        with pytest.raises(InputError):
            unpack(archive, tmp_path / "x", ".xml")
        assert names(tmp_path) == ["x.tgz"]
    archive.write_bytes(b"<html></html>")
    with pytest.raises(InputError, match=r"not a complete \.tgz archive"):
        unpack(archive, tmp_path / "x", ".xml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(site: Site, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="choose a folder that can be written to"):
        fetch(site, tmp_path)
