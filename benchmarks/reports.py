"""Reports parsed a second on one core, and the longest time that a megabyte of hostile text takes.

    python benchmarks/reports.py

The reports are Open-i's 3,955 (package torchxrayvision), written out in the layout of MIMIC-CXR.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from convirt.data.reports import count_tokens, parse_report, parse_sections, split_sentences
from open_i import open_i_reports
from report_styles import STYLES

HOSTILE = ("\n", "\n \n", "a\nB\n", "A:", "FINDINGS\n", "1. ", "1. A 2. ", "- \n", ". ", "a.b", "I. ", "(", "_", "\x85")
ROUNDS = 3


def seconds(act: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    act()
    return time.process_time() - start


def parse_all(parse: Callable[[str], object], texts: list[str]) -> None:
    for text in texts:
        parse(text)


def main() -> None:
    texts = [STYLES["MIMIC-CXR"](report) for report in open_i_reports().values()]
    print(f"{len(texts)} reports of {sum(map(len, texts)) / len(texts):.0f} characters")
    for parse in (parse_report, parse_sections, split_sentences, count_tokens):
        needed = median(seconds(lambda parse=parse: parse_all(parse, texts)) for _ in range(ROUNDS))
        print(f"{parse.__name__:16} {len(texts) / needed:8.0f} a second")
    slowest = max((seconds(lambda unit=unit: parse_report(unit * (1_000_000 // len(unit)))), unit) for unit in HOSTILE)
    print(f"slowest megabyte {slowest[0]:8.1f} s ({slowest[1]!r} repeated)")


if __name__ == "__main__":
    main()
