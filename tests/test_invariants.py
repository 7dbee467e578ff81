"""Whatever hospitals write, nothing is lost unsaid: invariants of reports, tables and DICOM headers, fuzzed.

`make fuzz` looks for a minute with a seed of its own, which it prints; `make test` does the same from seed 0, and
`make slow` for ten minutes. What was found became tests beside those of its kind.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from convirt.data.reports import ENGLISH, parse_report
from convirt.data.reports.parsing import HEADINGS, count_words
from convirt.data.reports.sections import read_line_ends
from open_i import open_i_reports
from report_styles import STYLES
from test_sections import SECOND_REPORT

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
"""For all fuzzed tests of this file together."""
SEED = int(os.environ.get("FUZZ_SEED", "0"))
FUZZED = 4


def fuzz(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], seconds: float = SECONDS / FUZZED) -> None:
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


def test_every_word_of_a_report_is_accounted_for() -> None:
    fuzz(reports, check_report)


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
