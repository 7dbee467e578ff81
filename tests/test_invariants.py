"""Whatever hospitals write, nothing is lost unsaid: invariants of reports, tables and DICOM headers, fuzzed.

`make fuzz` looks for a minute from a seed of its own, which it prints; `make test` from seed 0, and `make slow` for ten
minutes. What was found became tests beside those of its kind.
"""

import csv
import io
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from convirt.data.imaging.dicom import read_dicom
from convirt.data.imaging.pixels import Unreadable
from convirt.data.reports import ENGLISH, parse_report
from convirt.data.reports.parsing import HEADINGS, count_words
from convirt.data.reports.sections import read_line_ends
from convirt.data.splits import canonical_id, respelt
from convirt.data.tables import read_table
from convirt.wording import MISSING
from dicom_files import compressed, dicom, jpeg_2000, lut, ramp, rle, written
from open_i import open_i_reports
from report_styles import STYLES
from test_sections import SECOND_REPORT

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
"""For all fuzzed tests of this file together."""
SEED = int(os.environ.get("FUZZ_SEED", "0"))
FUZZED = 4


@pytest.fixture(
    params=[pytest.param(SECONDS / FUZZED, id="short"), pytest.param(600 / FUZZED, id="long", marks=pytest.mark.slow)]
)
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a test may look."""
    return float(request.param)


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], seconds: float) -> None:
    """Try examples, a hundred at a time, until the time is up; the first that fails is made small and raised."""
    phases = (Phase.explicit, Phase.generate, Phase.target, Phase.shrink)
    quiet = settings(
        max_examples=100, database=None, deadline=None, phases=phases, suppress_health_check=list(HealthCheck)
    )
    end, round_ = time.monotonic() + seconds, SEED
    while True:
        seed(round_)(quiet(given(strategy)(check)))()
        round_ += 1
        if time.monotonic() > end:
            break
    print(f"{100 * (round_ - SEED)} examples from seed {SEED}: {getattr(check, '__name__', check)}")


# Reports

LABELS = sorted(heading for heading, name in ENGLISH.headings.items() if name not in ENGLISH.kept)
KEPT = sorted(heading for heading, name in ENGLISH.headings.items() if name in ENGLISH.kept and " & " not in heading)
VOCABULARY = """the lungs are clear heart size is normal no effusion pneumothorax mild edema stable nodule 2.5 cm 3 mm
T4 vs. e.g. Dr. Smith at 3:45 p.m. ___ XXXX chest views since prior left-sided (see above) a/b grade 1 and/or U.S. 1. 2)
- • ? café µm 50% #3 ~4 don't AP PA RECOMMENDATION Impression findings"""
WORDS = VOCABULARY.split()
LINE_ENDS = (
    "\n",
    "\r\n",
    "\r",
    "\n\n",
    "<br>",
    "<br/>\n",
    "&#13;&#10;",
    "_x000D_\n",
    "\\X0D\\",
    "\u2028",
    "\v",
    "\\.br\\",
)

written_words = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
sentences = st.builds(
    lambda label, words, end: f"{label}{words}{end}",
    st.one_of(
        st.just(""),
        st.sampled_from([*LABELS, *KEPT]).flatmap(
            lambda x: st.sampled_from((f"{x.title()}: ", f"{x.upper()}: ", f"{x}: "))
        ),
    ),
    written_words,
    st.sampled_from((".", ". ", "", "\n", ";", "!", "..", " .", ".\n\n", "?", ":")),
)
bodies = st.lists(st.one_of(sentences, st.text(max_size=12)), max_size=5).map(" ".join)
headings = st.builds(
    lambda label, form, case: form.format(getattr(label, case)()),
    st.sampled_from([*LABELS, *KEPT, "lungs", "chest, two views", "unknown heading"]),
    st.sampled_from(
        ("{}: ", "{}\n", "{}:\n", "**{}:** ", "## {}\n", "{} - ", "1. {}: ", "  {}  ", "__{}__: ", "{}", "[{}] ", "")
    ),
    st.sampled_from(("upper", "title", "lower", "capitalize")),
)
reports = st.builds(
    lambda end, parts: end.join(heading + body for heading, body in parts),
    st.sampled_from((*LINE_ENDS, " ")),
    st.lists(st.tuples(headings, bodies), max_size=6),
)


def check_report(text: str) -> None:
    report = parse_report(text)
    flat = " ".join(read_line_ends(text).split())
    for sentence in report.sentences:
        assert sentence in flat
    assert all(count >= 0 for count in (*report.words_kept.values(), *report.words_cut.values()))
    kept, cut = sum(report.words_kept.values()), sum(report.words_cut.values())
    assert kept + cut == count_words(flat)
    assert count_words(report.text) == kept


def test_every_word_of_a_report_is_accounted_for(seconds: float) -> None:
    fuzz(reports, check_report, seconds)


def words(text: str) -> Counter[str]:
    return Counter(text.split())


@pytest.mark.parametrize("style", STYLES)
def test_all_words_of_open_i_are_kept_and_none_of_the_indication(style: str) -> None:
    """100 % of the words of Findings and Impression; of Indication and Comparison as many as Findings have too."""
    lost: Counter[str] = Counter()
    strange: Counter[str] = Counter()
    total = 0
    for number, report in open_i_reports().items():
        if number == SECOND_REPORT or not report.text:
            continue
        found, wanted = words(parse_report(STYLES[style](report)).text), words(read_line_ends(report.text))
        total += wanted.total()
        lost += wanted - found
        strange += found - wanted
    assert total > 100_000
    assert (lost.total(), strange.total()) == (0, 0), (lost.most_common(5), strange.most_common(5))


INSIDE = (
    "{label}: {words}.",
    "The {words}. {label}: none.",
    "{label}: none. {label2}: {words}.",
    "No {words}; {label}: {words}.",
    "{words}\n{lower} {words}: no change.",
)
SHAPES = ("{}:\n{}\n\n", "{}: {}\n\n", "{}\n{}\n\n", "{}: {}\n", "**{}:** {}\n\n", "   {}:  {}\n\n")


def report_with_labels_inside(rng: random.Random) -> tuple[str, str, str]:
    """A report whose kept sections hold known labels after full stops and directly after the heading; and its texts.

    Returns:
        The report, what it keeps, and what it does not.
    """

    def body() -> str:
        parts = []
        for _ in range(rng.randint(1, 4)):
            label, label2 = (rng.choice(LABELS).capitalize() for _ in range(2))
            plain = " ".join(rng.choices([word for word in WORDS[:24] if "." not in word], k=rng.randint(3, 9)))
            parts.append(rng.choice(INSIDE).format(label=label, label2=label2, lower="then", words=plain))
        return " ".join(parts)

    shape = rng.choice(SHAPES)
    indication, findings, impression = "zebra quagga okapi", body(), body()
    fields = [("INDICATION", indication), ("FINDINGS", findings), ("IMPRESSION", impression)]
    return "".join(shape.format(*field) for field in fields), f"{findings} {impression}", indication


def test_labels_inside_sections_cut_nothing_in_500_reports() -> None:
    rng = random.Random(0)
    wrong = []
    for _ in range(500):
        text, kept, _ = report_with_labels_inside(rng)
        report = parse_report(text)
        if words(report.text) != words(kept):
            wrong.append(text)
        assert report.words_cut.keys() <= {"indication", HEADINGS}, text
    assert not wrong, (len(wrong), wrong[0])


# DICOM headers

TOKEN = "ZAPHODBEEBLEBROX"
"""Stands for a name. It is in every text of the header, and must be in nothing that comes of it."""
TEXTS = [
    "PatientName",
    "PatientID",
    "StudyDescription",
    "SeriesDescription",
    "InstitutionName",
    "ImageComments",
    "Manufacturer",
    "StationName",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "BurnedInAnnotation",
    "PresentationLUTShape",
    "Modality",
    "ViewPosition",
    "RescaleType",
    "OperatorsName",
    "ProtocolName",
    "RecognizableVisualFeatures",
    "PhotometricInterpretation",
    "ImageType",
    "LossyImageCompression",
]
numbers = st.one_of(
    st.none(),
    st.just(""),
    st.integers(-70000, 70000),
    st.floats(-1e5, 1e5).map(lambda x: round(x, 3)),
    st.sampled_from([0, 1, 0.5, -1, 1e30, "nan", "inf", "1,5", TOKEN, [40, 400], [], [TOKEN, 3]]),
)
small = st.one_of(st.none(), st.just(""), st.integers(0, 33))
tables = st.one_of(
    st.just([]),
    st.just([Dataset()]),
    st.builds(
        lambda n, first, bits: [lut(list(range(n)), first, bits)],
        st.integers(0, 300),
        st.integers(-50, 50),
        st.integers(0, 20),
    ),
)
headers = st.fixed_dictionaries(
    {},
    optional={
        **{name: st.sampled_from([TOKEN, f"{TOKEN}\\\\OTHER", ""]) for name in TEXTS},
        **dict.fromkeys(
            ("WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "PixelPaddingValue"), numbers
        ),
        **dict.fromkeys(("BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel", "NumberOfFrames"), small),
        **dict.fromkeys(("VOILUTSequence", "ModalityLUTSequence"), tables),
    },
)
pixel_kinds = st.sampled_from(
    (
        ("u1", 8, uid.ExplicitVRLittleEndian),
        ("<u2", 12, uid.ExplicitVRLittleEndian),
        ("<i2", 13, uid.ImplicitVRLittleEndian),
        ("<u2", 16, uid.RLELossless),
        ("u1", 8, uid.JPEG2000Lossless),
    )
)


def dicom_file(kind: tuple[str, int, str], header: dict[str, Any]) -> bytes:
    """A film with this header, its values as they are given, whatever the standard says of them."""
    dtype, bits, syntax = kind
    stored_HW = ramp(0, 200 if dtype == "u1" else 4000, dtype, (9, 7))
    if syntax == uid.RLELossless:
        dataset = pydicom.dcmread(io.BytesIO(compressed(rle(stored_HW), stored_HW, syntax, bits=bits)))
    elif syntax == uid.JPEG2000Lossless:
        dataset = pydicom.dcmread(io.BytesIO(compressed(jpeg_2000(stored_HW, level=0), stored_HW, syntax, bits=bits)))
    else:
        dataset = pydicom.dcmread(io.BytesIO(dicom(stored_HW, bits=bits, syntax=syntax)))
    for name, value in header.items():
        tag = pydicom.datadict.tag_for_keyword(name)
        if isinstance(value, int) and pydicom.datadict.dictionary_VR(tag) != "DS":
            kept = "IS" if pydicom.datadict.dictionary_VR(tag) == "IS" else "US" if value >= 0 else "SS"
            dataset.add_new(tag, kept, value if kept == "IS" else value % 32768)
        elif (isinstance(value, list) and any(isinstance(item, Dataset) for item in value)) or value == []:
            dataset.add_new(tag, "SQ", value)
        else:
            words_ = value if isinstance(value, list) else [value]
            dataset.add_new(tag, "LO", ["" if word is None else str(word) for word in words_])
    return written(dataset)


def outcome(data: bytes) -> tuple[str, bytes]:
    """All that a reader says of a file, and its pixels."""
    try:
        pixels = read_dicom(data)
    except Unreadable as problem:
        return f"{problem.reason} {problem.detail} {problem}", b""
    assert pixels.values_HW.shape == (9, 7)
    assert np.isfinite(pixels.values_HW).all()
    assert 0 <= pixels.values_HW.min() <= pixels.values_HW.max() <= 1
    recipe = json.loads(json.dumps(pixels.recipe))
    assert np.array_equal(read_dicom(data, recipe=recipe).values_HW, pixels.values_HW)
    return json.dumps([pixels.recipe, pixels.repairs]), pixels.values_HW.tobytes()


def check_headers(files: tuple[tuple[Any, Any], tuple[Any, Any]]) -> None:
    one, other = (dicom_file(*file) for file in files)
    alone = outcome(one)
    assert TOKEN not in alone[0]
    outcome(other)
    assert outcome(one) == alone


def test_no_header_leaks_a_name_or_reaches_another_files_pixels(seconds: float) -> None:
    one = st.tuples(pixel_kinds, headers)
    fuzz(st.tuples(one, one), check_headers, seconds)


# Tables

cells = st.one_of(
    st.sampled_from(
        (
            "",
            " ",
            "nan",
            "None",
            "N/A",
            "007",
            "1.0",
            "a,b",
            "a;b",
            'say "x"',
            "two\nlines",
            "'",
            "é",
            "\ttab",
            "=1+1",
            "sep=;",
        )
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0", exclude_categories=("Cs", "Cc")), max_size=8),
)
written_tables = st.fixed_dictionaries(
    {
        "rows": st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8),
        "mark": st.sampled_from((",", ";", "\t", "|")),
        "announced": st.booleans(),
        "spare": st.integers(0, 2),
        "quoting": st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
        "encoding": st.sampled_from(("utf-8", "utf-8-sig", "utf-16")),
        "end": st.sampled_from(("\n", "\r\n")),
    }
)


def test_every_cell_of_a_table_comes_back(tmp_path: Path, seconds: float) -> None:
    """As written, without what says that nothing is there; rows are numbered, or set aside with what is wrong."""

    def check(table: dict[str, Any]) -> None:
        path = tmp_path / "t.csv"
        spare = [""] * table["spare"]
        with path.open("w", encoding=table["encoding"], newline="") as file:
            if table["announced"]:
                file.write(f"sep={table['mark']}{table['end']}")
            writer = csv.writer(file, delimiter=table["mark"], quoting=table["quoting"], lineterminator=table["end"])
            writer.writerow(["image, name", "report", "patient", *spare])
            writer.writerows([*row, *spare] for row in table["rows"])
        read = read_table(path)
        assert not read.malformed
        assert read.header == ["image, name", "report", "patient"]
        wanted = [["" if cell in MISSING else cell for cell in row] for row in table["rows"]]
        assert read.frame.to_numpy().tolist() == wanted

    fuzz(written_tables, check, seconds)


# Identifiers

spellings = st.sampled_from(("{}", " {} ", "{}.0", "00{}", "{}.00", "\u00a0{}", "{}\t"))


def check_spellings(example: tuple[int, str, str, int]) -> None:
    number, one, other, another = example
    left, right = one.format(number), other.format(number)
    assert canonical_id(left) == canonical_id(right) == canonical_id(canonical_id(left))
    assert (canonical_id(left) == canonical_id(other.format(another))) == (number == another)
    taken = respelt([left, right, left])
    assert {taken.get(name, name) for name in (left, right)} <= {left, right}
    assert len({taken.get(name, name) for name in (left, right)}) == 1


def test_spellings_of_one_id_are_one_and_of_two_are_two(seconds: float) -> None:
    ids = st.integers(0, 10**10)
    fuzz(st.tuples(ids, spellings, spellings, ids), check_spellings, seconds)
