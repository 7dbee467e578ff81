"""`prepare dicomweb` against a real Orthanc, and against a server that misbehaves."""

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian, generate_uid

import orthanc
from convirt.cli import main
from convirt.data.corpora import Corpus
from convirt.data.http import PASSWORD, TOKEN, USER, credentials
from convirt.data.preparing.archive import prepare_archive
from convirt.data.preparing.options import Options
from convirt.data.records import ImageRecord
from convirt.data.sources import dicomweb_server
from convirt.data.sources.dicomweb import parse_query, prepare_dicomweb
from convirt.data.sources.dicomweb_server import read_header
from convirt.errors import InputError
from fake_pacs import FakePacs, PacsHandler, multipart, uid
from web import Handler, Site, serve, status

pytestmark = pytest.mark.timeout(1800)  # seconds on a machine of its own
TINY = Options(image_size=48, ids="plain")
COMPRESSED = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "JPEG-lossy.dcm")
STUDIES = 50


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (USER, PASSWORD, TOKEN, "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "CONVIRT_SALT"):
        monkeypatch.delenv(name, raising=False)


def make_studies(folder: Path, real: list[Path]) -> list[dict[str, str]]:
    """Write 50 studies of 30 patients: generated, compressed and real images; a third have no report of their own.

    Returns:
        For each image its file, study, patient and the text of its report.
    """
    rng = np.random.default_rng(0)
    rows = []
    for number in range(STUDIES):
        about = {
            "patient": f"P{number % 30}",
            "study": generate_uid(entropy_srcs=["study", str(number)]),
            "accession": f"A{number}",
        }
        images = []
        for view in range(1 + number % 2):
            shape = tuple(rng.integers(40, 120, 2))
            if number < len(COMPRESSED):
                image = pydicom.dcmread(str(get_testdata_file(COMPRESSED[number])))
                image.StudyInstanceUID, image.PatientID = about["study"], about["patient"]
                image.AccessionNumber = about["accession"]
                image.SOPInstanceUID = generate_uid(entropy_srcs=[COMPRESSED[number], str(view)])
            elif real and number % 3 == 0:
                from PIL import Image

                grey = np.asarray(Image.open(real[number % len(real)]).convert("L"))
                image = orthanc.image_dataset(grey, bits=8, **about)
            else:
                bits = 12 if number % 4 else 16
                image = orthanc.image_dataset(rng.integers(0, 1 << bits, shape), bits=bits, **about)
                image.PhotometricInterpretation = "MONOCHROME1" if number % 5 == 0 else "MONOCHROME2"
            images.append(orthanc.write(image, folder))
        findings, impression = f"The lungs of study {number} are clear.", "No acute disease."
        if number % 3:
            orthanc.write(orthanc.report_dataset(findings, impression, **about), folder)
        text = f"{findings} {impression}"
        rows += [
            {"file": path.name, "study": about["study"], "patient": about["patient"], "text": text} for path in images
        ]
    return rows


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[orthanc.Orthanc, Path, list[dict[str, str]]]]:
    """A filled Orthanc, the folder of the files stored in it, and what belongs to which."""
    orthanc.require_orthanc()
    folder = tmp_path_factory.mktemp("orthanc")
    real = sorted((Path(__file__).parents[2] / "shared" / "data" / "openi_four" / "images").glob("*.jpg"))
    rows = make_studies(folder / "files", real)
    server = orthanc.Orthanc(folder)
    try:
        server.start()
        server.store(sorted((folder / "files").iterdir()))
        lines = [
            f"A{n},FINDINGS: The lungs of study {n} are clear. IMPRESSION: No acute disease." for n in range(STUDIES)
        ]
        (folder / "reports.csv").write_text("accession,text\n" + "\n".join(lines) + "\n")
        yield server, folder, rows
    finally:
        server.kill()


@pytest.fixture
def _login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, orthanc.PASSWORD)


def records(corpus: Corpus) -> dict[str, tuple[str, str, str, ImageRecord]]:
    """Each image by the name of its file, with its pair's text, patient and split."""
    pairs = map(corpus.pair, range(len(corpus)))
    return {
        Path(image.source).name: (pair.text, pair.patient_id, pair.split, image)
        for pair in pairs
        for image in pair.images
    }


@pytest.mark.usefixtures("_login")
def test_a_corpus_from_the_server_is_that_from_the_files(
    pacs: tuple[orthanc.Orthanc, Path, list[dict[str, str]]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server, folder, rows = pacs
    out = prepare_dicomweb(server.url, tmp_path / "web", reports=folder / "reports.csv", options=TINY)
    table = "\n".join(",".join(row.values()) for row in rows)
    (tmp_path / "table.csv").write_text(f"file,study,patient,text\n{table}\n")
    disk = prepare_archive(
        folder / "files",
        tmp_path / "table.csv",
        "file",
        "text",
        "patient",
        tmp_path / "disk",
        study_column="study",
        options=TINY,
    )
    from_web, from_disk = records(Corpus.open(out)), records(Corpus.open(disk))
    assert len(from_web) == len(rows) == 75
    assert from_web.keys() == from_disk.keys()
    for name, (text, patient, split, image) in from_web.items():
        expected = from_disk[name]
        assert (text, patient, split) == expected[:3]
        assert image.encoded == expected[3].encoded
        assert image.sha256 == expected[3].sha256, "the server sent other bytes than were stored"
        assert image.recipe == expected[3].recipe
    corpus = Corpus.open(out)
    assert len(corpus) == STUDIES
    sexes = {corpus.pair(index).attributes.get("sex") for index in range(STUDIES)}
    assert "F" in sexes
    assert not list(tmp_path.glob(".*")), "the hidden folder with patients' data is removed"
    printed = "".join(capfd.readouterr())
    assert orthanc.PASSWORD not in printed
    for file in out.iterdir():
        assert orthanc.PASSWORD.encode() not in file.read_bytes()


COMMAND = [sys.executable, "-c", "from convirt.cli import main; main()", "prepare", "dicomweb"]


@contextmanager
def running(server: orthanc.Orthanc, folder: Path, out: Path, cache: Path) -> "Iterator[subprocess.Popen[str]]":
    """Run the command, with one connection, in a process of its own, and end it with the block."""
    environment = {**os.environ, USER: orthanc.USER, PASSWORD: orthanc.PASSWORD}
    arguments = ["--url", server.url, "--out", str(out), "--reports", str(folder / "reports.csv")]
    arguments += ["--cache", str(cache), "--connections", "1", "--image-size", "48", "--ids", "plain"]
    process = subprocess.Popen(
        [*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(cache: Path, count: int, process: "subprocess.Popen[str]") -> set[Path]:
    """Wait until so many instances are there."""
    for _ in range(60_000):
        if len(found := set(cache.glob("*/*.dcm"))) >= count:
            return found
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.001)
    raise AssertionError("nothing is pulled")


@pytest.mark.usefixtures("_login")
def test_a_server_killed_midway_and_restarted_is_waited_for(
    pacs: tuple[orthanc.Orthanc, Path, list[dict[str, str]]], tmp_path: Path
) -> None:
    server, folder, _ = pacs
    with running(server, folder, tmp_path / "a", tmp_path / "cache") as process:
        try:
            before = wait_for(tmp_path / "cache", 12, process)
            server.kill()
            time.sleep(1)
        finally:
            server.start()
        assert len(before) < 100
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said
    whole = prepare_dicomweb(server.url, tmp_path / "b", reports=folder / "reports.csv", options=TINY)
    assert Corpus.open(tmp_path / "a").fingerprint == Corpus.open(whole).fingerprint


@pytest.mark.usefixtures("_login")
def test_a_killed_command_asks_only_for_what_is_missing(
    pacs: tuple[orthanc.Orthanc, Path, list[dict[str, str]]], tmp_path: Path
) -> None:
    server, folder, _ = pacs
    cache = tmp_path / "cache"
    with running(server, folder, tmp_path / "a", cache) as process:
        wait_for(cache, 12, process)
        process.send_signal(signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in cache.glob("*/*.dcm")}
    assert len(before) < 100
    with running(server, folder, tmp_path / "a", cache) as process:
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(cache.glob("*/*.dcm"))) == 75 + 33
    assert not list(cache.glob("*/.*.part")), "what the killed command left half done is swept away"
    whole = prepare_dicomweb(server.url, tmp_path / "b", reports=folder / "reports.csv", options=TINY)
    assert Corpus.open(tmp_path / "a").fingerprint == Corpus.open(whole).fingerprint


@pytest.mark.usefixtures("_login")
def test_queries_choose_studies_and_the_study_uid_is_a_key(
    pacs: tuple[orthanc.Orthanc, Path, list[dict[str, str]]], tmp_path: Path
) -> None:
    server, _, rows = pacs
    texts = {row["study"]: row["text"] for row in rows if row["patient"] == "P6"}
    lines = [f'{study},"{text}"' for study, text in texts.items()]
    (tmp_path / "t.csv").write_text("study,text\n" + "\n".join(lines) + "\n")
    out = prepare_dicomweb(
        server.url,
        tmp_path / "c",
        query=["PatientID=P6", "Modality=CR"],
        reports=tmp_path / "t.csv",
        key="study",
        options=TINY,
    )
    assert {Corpus.open(out).pair(index).text for index in range(len(texts))} == set(texts.values())
    with pytest.raises(InputError, match="no study answers the query"):
        prepare_dicomweb(server.url, tmp_path / "d", query=["PatientID=nobody"], options=TINY)


def test_wrong_credentials_are_said_without_showing_them(
    pacs: tuple[orthanc.Orthanc, Path, list[dict[str, str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(USER, orthanc.USER)
    monkeypatch.setenv(PASSWORD, "wrong-secret")
    with pytest.raises(SystemExit):
        main(["prepare", "dicomweb", "--url", pacs[0].url, "--out", str(tmp_path / "c")])
    said = "".join(capfd.readouterr())
    assert "401" in said
    assert PASSWORD in said
    assert "wrong-secret" not in said
    assert said.count("\n") == 1


# From here on, a server of our own.


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakePacs]:
    """Seven studies of four patients, each with one image and one report, listed three at a time."""
    site = FakePacs()
    rng = np.random.default_rng(0)
    for number in range(7):
        about = {"patient": f"P{number % 4}", "study": f"1.2.{number}", "accession": f"A{number}"}
        image = orthanc.image_dataset(rng.integers(0, 4096, (30, 20)), bits=12, **about)
        image.SOPInstanceUID = f"1.2.{number}.1"
        report = orthanc.report_dataset(f"Clear lungs in study {number}.", "Normal.", **about)
        report.SOPInstanceUID = f"1.2.{number}.2"
        for dataset in (image, report):
            site.add(orthanc.write(dataset, tmp_path / "files"))
    with serve(site, PacsHandler):
        yield site


def prepare(site: Site, tmp_path: Path, **options: object) -> Corpus:
    given = {"options": TINY, "patience": 0.8, "cache": tmp_path / "cache", **options}
    return Corpus.open(prepare_dicomweb(site.url, tmp_path / "c", **given))  # type: ignore[arg-type]


def test_all_pages_are_read(fake: FakePacs, tmp_path: Path) -> None:
    assert len(prepare(fake, tmp_path)) == 7
    assert all("offset" in path for path, _ in fake.requests if "?" in path)


def test_a_frame_or_window_may_be_asked_for(fake: FakePacs, tmp_path: Path) -> None:
    corpus = prepare(fake, tmp_path, frame=1, window=1)
    assert (len(corpus), corpus.settings["frame"], corpus.settings["window"]) == (7, 1, 1)
    for name in ("frame", "window"):
        with pytest.raises(InputError, match=f"DICOM without the {name} asked for"):
            prepare_dicomweb(fake.url, tmp_path / name, options=TINY, cache=tmp_path / "cache", **{name: 2})
        with pytest.raises(InputError, match=f"--{name} counts from 1"):
            prepare_dicomweb(fake.url, tmp_path / name, options=TINY, **{name: 0})


def test_a_server_without_paging_does_not_keep_us_forever(fake: FakePacs, tmp_path: Path) -> None:
    fake.offsets = False
    assert len(prepare(fake, tmp_path)) == 3


def test_a_second_call_pulls_only_what_is_missing(fake: FakePacs, tmp_path: Path) -> None:
    prepare(fake, tmp_path)
    assert len(fake.pulled()) == 14
    kept = sorted((tmp_path / "cache").glob("*/*.dcm"))
    kept[3].unlink()
    kept[5].write_bytes(kept[5].read_bytes()[:100])
    fake.requests = []
    prepare_dicomweb(fake.url, tmp_path / "again", options=TINY, cache=tmp_path / "cache")
    assert sorted(fake.pulled()) == sorted([kept[3].stem, kept[5].stem])
    assert Corpus.open(tmp_path / "again").fingerprint == Corpus.open(tmp_path / "c").fingerprint


def broken(answer: Callable[[bytes], tuple[bytes, dict[str, str]]]) -> Callable[[Handler], bool]:
    """Answer the next request for an image with something else."""

    def act(handler: Handler) -> bool:
        assert isinstance(handler.site, FakePacs)
        if not handler.path.endswith(".1"):
            handler.site.trouble.insert(0, act)
            return False
        content = next(
            c for item, c in handler.site.instances if uid(item, "00080018") == handler.path.rpartition("/")[2]
        )
        handler.answer(200, *answer(content))
        return True

    return act


@pytest.mark.parametrize(
    "answer",
    [
        lambda content: multipart(content[: len(content) // 2], closing=False),
        lambda content: multipart(content, closing=False),
        lambda content: (b"", multipart(b"")[1]),
        lambda content: (b"--xyz\r\n", multipart(b"")[1]),
    ],
)
def test_an_instance_cut_off_is_asked_for_again(fake: FakePacs, tmp_path: Path, answer: Callable) -> None:
    fake.trouble = [broken(answer)]
    assert len(prepare(fake, tmp_path, connections=1)) == 7
    assert len(fake.pulled()) == 15


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (lambda content: multipart(b"no DICOM at all"), "not a DICOM file"),
        (lambda content: (b"<html>", {"Content-Type": "text/html"}), "text/html"),
        (
            lambda content: multipart(content.replace(b"1.2.0.1\0", b"1.2.6.1\0")),
            "the server gave the instance 1.2.6.1",
        ),
        (lambda content: multipart(content.replace(b"1.2.0\0", b"1.2.1\0")), "of study 1.2.1"),
    ],
)
def test_an_answer_that_is_another_thing_is_set_aside(
    fake: FakePacs, tmp_path: Path, answer: Callable, detail: str
) -> None:
    fake.trouble = [broken(answer)]
    corpus = prepare(fake, tmp_path, connections=1, options=Options(image_size=48, ids="plain", max_failures=0.2))
    assert len(corpus) == 6
    audit = (corpus.path / "audit.json").read_text()
    assert "instance that the server does not give" in audit
    assert detail in audit


def test_a_plain_answer_without_multipart_is_taken(fake: FakePacs, tmp_path: Path) -> None:
    fake.trouble = [broken(lambda content: (content, {"Content-Type": "application/dicom"}))]
    assert len(prepare(fake, tmp_path)) == 7


def test_a_server_that_only_transcodes_is_asked_in_its_way(fake: FakePacs, tmp_path: Path) -> None:
    fake.syntaxes = False
    assert len(prepare(fake, tmp_path)) == 7


def test_an_instance_that_is_gone_costs_its_row_alone(fake: FakePacs, tmp_path: Path) -> None:
    fake.gone = {"1.2.3.1"}
    with pytest.raises(InputError, match="1 of 7 rows cannot be used, more than --max-failures"):
        prepare(fake, tmp_path, options=Options(image_size=48, max_failures=0.1))
    corpus = prepare(fake, tmp_path, options=Options(image_size=48, ids="plain", max_failures=0.2))
    assert len(corpus) == 6


def test_a_busy_server_is_waited_for_and_a_dead_one_given_up(fake: FakePacs, tmp_path: Path) -> None:
    fake.trouble = [status(503, {"Retry-After": "0"}), status(429, {"Retry-After": "0"}), status(502)]
    assert len(prepare(fake, tmp_path, patience=60)) == 7
    fake.trouble = [status(503)] * 1000
    with pytest.raises(InputError, match=r"gave up after .*503.*run the same command again"):
        prepare_dicomweb(fake.url, tmp_path / "d", options=TINY, patience=0.8)
    assert len(fake.trouble) > 900  # it asked a few times, not for ever


@pytest.mark.parametrize("body", [b"<html></html>", b"[1, 2]", b'{"a": 1}', b"[" * 100_000, b"\xff\xfe"])
def test_an_answer_that_is_no_listing_is_one_line(fake: FakePacs, tmp_path: Path, body: bytes) -> None:
    def act(handler: Handler) -> bool:
        handler.answer(200, body)
        return True

    fake.trouble = [act]
    with pytest.raises(InputError, match="not DICOM JSON; check that --url is a DICOMweb service"):
        prepare(fake, tmp_path)


def test_uids_that_are_paths_are_never_used(fake: FakePacs, tmp_path: Path) -> None:
    for item, _ in fake.instances[:4]:
        item["00080018"]["Value"] = ["../../../evil"]
    fake.instances[4][0]["0020000D"]["Value"] = ["../evil"]
    fake.instances[5][0]["0020000D"]["Value"] = [None]
    corpus = prepare(fake, tmp_path)
    assert len(corpus) == 4
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "c", "files"}


@contextmanager
def only_no_pair() -> Iterator[None]:
    """Let no error pass but the one that says that no pair is left."""
    try:
        yield
    except InputError as error:
        if "no pair" not in str(error):
            raise


def test_mutated_listings_never_crash(fake: FakePacs, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    junk = [None, 1, [], {}, "", "x" * 100, {"Value": None}, {"Value": [{}]}, {"Value": "1.2"}, {"vr": 1}]
    original = [dict(item) for item, _ in fake.instances]
    for number in range(6):
        for (item, _), clean in zip(fake.instances, original, strict=True):
            item.clear()
            item.update(clean)
        for item, _ in fake.instances:
            tag = str(rng.choice(list(item)))
            if tag not in ("0020000D", "00080018"):  # these the fake server itself needs
                item[tag] = junk[rng.integers(len(junk))]  # type: ignore[assignment]
        # Either a corpus, or one line that says that nothing is left.
        with only_no_pair():
            prepare_dicomweb(
                fake.url, tmp_path / f"m{number}", options=Options(image_size=16, max_failures=1), patience=0.1
            )


def test_credentials_do_not_follow_a_redirect_to_another_host(
    fake: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "s3cret")
    with serve(Site(files={"/studies": b"[]"})) as thief:
        target = thief.url.replace("localhost", "127.0.0.1")

        def act(handler: Handler) -> bool:
            handler.answer(302, b"", {"Location": f"{target}/studies"})
            return True

        fake.trouble = [act]
        with pytest.raises(InputError):
            prepare(fake, tmp_path)
        assert fake.requests[0][1]["authorization"] == "Bearer s3cret"
        assert thief.requests
        assert all("authorization" not in headers for _, headers in thief.requests)


def test_netrc_is_not_read(fake: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine localhost login a password b\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    prepare(fake, tmp_path)
    assert all("authorization" not in headers for _, headers in fake.requests)


def test_certificates_are_checked(fake: FakePacs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    key, certificate = tmp_path / "key.pem", tmp_path / "own.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs openssl to make a certificate: {error}")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with serve(FakePacs(instances=fake.instances), PacsHandler, tls) as secure:
        with pytest.raises(InputError, match=r"certificate cannot be trusted \(.*\); set REQUESTS_CA_BUNDLE"):
            prepare(secure, tmp_path)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert len(prepare(secure, tmp_path)) == 7


def test_reports_of_several_patients_under_one_number_are_not_trusted(fake: FakePacs, tmp_path: Path) -> None:
    fake.instances = [(item, file) for item, file in fake.instances if uid(item, "00080060") != "SR"]
    for (item, _), accession in zip(fake.instances, ["X", "X", "B", "C", "D", "", "C"], strict=True):
        item["00080050"] = {"vr": "SH", "Value": [accession]} if accession else {"vr": "SH"}
    (tmp_path / "t.csv").write_text(
        "acc,report\n" + "".join(f"{n},Report of {n} here.\n" for n in "XBCZ") + "B,More of it.\n"
    )
    corpus = prepare(
        fake,
        tmp_path,
        reports=tmp_path / "t.csv",
        key_column="acc",
        text_column="report",
        options=Options(image_size=48, ids="plain", max_failures=1),
    )
    texts = {corpus.pair(index).pair_id: corpus.pair(index).text for index in range(len(corpus))}
    assert texts == {"1.2.2": "Report of B here. More of it."}
    audit = (corpus.path / "audit.json").read_text()
    for said in (
        "accession of several patients",
        "its accession is not in t.csv",
        "no accession to look for",
        "1 of 4 reports",
    ):
        assert said in audit, said


def test_studies_without_images_reports_or_patients_are_explained(fake: FakePacs, tmp_path: Path) -> None:
    instances = fake.instances
    fake.instances = [pair for number, pair in enumerate(instances) if number not in (0, 3)]  # no image; no report
    for item, _ in instances[4:6]:
        item["00100020"] = {"vr": "LO"}
    instances[6][0]["00080016"] = {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.11.1"]}
    corpus = prepare(fake, tmp_path, options=Options(image_size=48, ids="plain", max_failures=1))
    assert {corpus.pair(index).pair_id for index in range(len(corpus))} == {"1.2.4", "1.2.5", "1.2.6"}
    audit = (corpus.path / "audit.json").read_text()
    for said in (
        "study without image",
        "no report",
        "no patient",
        "not an image",
        "Grayscale Softcopy Presentation State",
    ):
        assert said in audit, said


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], ({}, "")),
        (
            ["StudyDate=20200101-20210101,Modality=CR"],
            ({"StudyDate": "20200101-20210101", "ModalitiesInStudy": "CR"}, "CR"),
        ),
        (["StudyDate=20200101-", "PatientName=A^B, C"], ({"StudyDate": "20200101-", "PatientName": "A^B, C"}, "")),
    ],
)
def test_queries_are_parsed(given: list[str], expected: object) -> None:
    assert parse_query(given) == expected


@pytest.mark.parametrize("given", ["StudyDat=2020", "StudyDate", "=x", "StudyDate=", "StudyDate=1,StudyDate=2"])
def test_a_bad_query_is_one_line(given: str) -> None:
    with pytest.raises(InputError, match="--query"):
        parse_query([given])


@pytest.mark.parametrize(
    "environment", [{USER: "a"}, {PASSWORD: "b"}, {USER: "a", PASSWORD: "b", TOKEN: "c"}, {TOKEN: "a\nb"}]
)
def test_half_or_double_credentials_are_refused(environment: dict[str, str]) -> None:
    with pytest.raises(InputError):
        credentials(environment)


def test_a_header_that_inflates_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = orthanc.report_dataset("Clear. " * 10_000, "Normal.", patient="P", study="1.2.3", accession="A")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    path = orthanc.write(dataset, tmp_path)
    assert path.stat().st_size < 5_000
    assert read_header(path).StudyInstanceUID == "1.2.3"
    monkeypatch.setattr(dicomweb_server, "_MAX_INFLATED", 50_000)
    with pytest.raises(ValueError, match="deflated DICOM of more than 50000 bytes"):
        read_header(path)
