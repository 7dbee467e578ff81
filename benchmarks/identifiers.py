"""How many planted identifiers the rules mask, and what they find in real reports.

    python benchmarks/identifiers.py
    python benchmarks/identifiers.py --texts ../shared/data/covid_notes/manifest.csv:text

Planted texts come from tests/identifier_texts.py. Real reports are the 3,955 of Open-i in the package torchxrayvision,
which were de-identified (`XXXX`), and any column of any table that is named: every finding is printed, to be judged.
"""

import argparse
import importlib.util
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd
from defusedxml import ElementTree

from convirt.data.identifiers.finding import find_identifiers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from identifier_texts import planted_texts, score


def open_i() -> list[str]:
    """The reports of Open-i, with all their sections."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or spec.origin is None:
        return []
    texts = []
    with tarfile.open(Path(spec.origin).parent / "data" / "NLMCXR_reports.tgz") as archive:
        for member in archive:
            if member.name.endswith(".xml") and (file := archive.extractfile(member)):
                parts = ElementTree.parse(file).getroot().iter("AbstractText")
                texts.append("\n".join(f"{part.get('Label')}: {part.text}" for part in parts if part.text))
    return texts


def look(name: str, texts: list[str]) -> None:
    """Print what is found in real reports."""
    start = time.process_time()
    found = [(text, item) for text in texts for item in find_identifiers(text)]
    each = (time.process_time() - start) / max(len(texts), 1)
    counts = dict(Counter(item.kind for _, item in found))
    print(f"{name}: {len(texts)} texts, {len(found)} findings {counts}, {1e6 * each:.0f} microseconds a text")
    for text, item in found:
        before, after = text[max(0, item.start - 40) : item.start], text[item.end : item.end + 30]
        print(f"  {item.kind:12} {' '.join(before.split())} [{text[item.start : item.end]}] {' '.join(after.split())}")


def main() -> None:
    """Run both measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", nargs="*", default=[], help="TABLE:COLUMN")
    parser.add_argument("--count", type=int, default=300, help="planted texts of each part")
    arguments = parser.parse_args()
    for part in ("dev", "first", "test"):
        result = score(planted_texts(part, arguments.count), find_identifiers)
        masked, planted = sum(result.masked.values()), sum(result.planted.values())
        print(f"{part}: {masked} of {planted} identifiers masked whole, {result.wrong} findings beside them")
        print("  " + ", ".join(f"{kind} {result.masked[kind]}/{count}" for kind, count in result.planted.items()))
    look("Open-i", open_i())
    for given in arguments.texts:
        table, column = given.rsplit(":", 1)
        look(given, list(dict.fromkeys(pd.read_csv(table, keep_default_na=False)[column])))


if __name__ == "__main__":
    main()
