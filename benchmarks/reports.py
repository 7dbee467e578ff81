"""Reports parsed a second on one core, the longest time that a megabyte of hostile text takes; or two trees compared.

    python benchmarks/reports.py
    python benchmarks/reports.py --before TREE [--tables medpix2/manifest.csv:text ...] [--examples 20]

The reports are Open-i's 3,955 (package torchxrayvision), written out in the layout of MIMIC-CXR. The second form parses
them, and the texts of tables, by the package of another tree too, and lists the sentences that were gained and lost.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
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


PARSE = """
import json, sys
from convirt.data.reports import parse_report
print(json.dumps([list(parse_report(text).sentences) for text in json.load(sys.stdin)]))
"""


def sentences_by(tree: Path, texts: list[str]) -> list[list[str]]:
    """Sentences of each text, as the package of a tree parts them."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    command = [sys.executable, "-c", PARSE]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def compare(before: Path, tables: list[str], examples: int) -> None:
    """Print how many reports and sentences changed, and examples."""
    reports = open_i_reports().values()
    sources = {f"Open-i, {style}": list(map(write, reports)) for style, write in STYLES.items()}
    for table in tables:
        path, _, column = table.rpartition(":")
        with open(path, newline="", encoding="utf-8") as file:
            sources["/".join(Path(path).parts[-2:-1]) + f", {column}"] = [row[column] for row in csv.DictReader(file)]
    print("| source | texts | sentences before | after | texts changed | sentences gained | lost |")
    print("|---|---|---|---|---|---|---|")
    shown: list[str] = []
    for name, texts in sources.items():
        old, new = sentences_by(before, texts), sentences_by(Path(__file__).parents[1], texts)
        changed = [(text, a, b) for text, a, b in zip(texts, old, new, strict=True) if a != b]
        gained = sum((Counter(b) - Counter(a)).total() for _, a, b in changed)
        lost = sum((Counter(a) - Counter(b)).total() for _, a, b in changed)
        counts = (len(texts), sum(map(len, old)), sum(map(len, new)), len(changed), gained, lost)
        print(f"| {name} | {' | '.join(f'{count:,}' for count in counts)} |")
        for text, a, b in changed:
            less, more = list((Counter(a) - Counter(b)).elements()), list((Counter(b) - Counter(a)).elements())
            shown.append(f"{name}\n  lost: {less}\n  gained: {more}\n  text: {text[:300]!r}")
    print("\n".join(shown[:: max(len(shown) // examples, 1)][:examples]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path)
    parser.add_argument("--tables", nargs="*", default=[])
    parser.add_argument("--examples", type=int, default=20)
    asked = parser.parse_args()
    if asked.before:
        compare(asked.before, asked.tables, asked.examples)
        return
    texts = [STYLES["MIMIC-CXR"](report) for report in open_i_reports().values()]
    print(f"{len(texts)} reports of {sum(map(len, texts)) / len(texts):.0f} characters")
    for parse in (parse_report, parse_sections, split_sentences, count_tokens):
        needed = median(seconds(lambda parse=parse: parse_all(parse, texts)) for _ in range(ROUNDS))
        print(f"{parse.__name__:16} {len(texts) / needed:8.0f} a second")
    slowest = max((seconds(lambda unit=unit: parse_report(unit * (1_000_000 // len(unit)))), unit) for unit in HOSTILE)
    print(f"slowest megabyte {slowest[0]:8.1f} s ({slowest[1]!r} repeated)")


if __name__ == "__main__":
    main()
