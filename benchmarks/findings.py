"""Agreement of the findings extractor with people's index terms on real reports, and with what phantoms have.

    python benchmarks/findings.py [--errors FINDING]

Real: the 3,955 reports of Open-i (package torchxrayvision), each with the MeSH terms that indexers gave it. Terms say
what a report is about, not what it denies or doubts, and follow other borders than CheXpert's classes, so that neither
side is the truth of the other. Rules were looked after on reports of odd number alone: figures of the even ones are
the fair ones. Phantom: 2,000 studies whose findings are known.
"""

import argparse
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from convirt.data.findings import FindingsLexicon, extract_findings, load_findings_lexicon
from convirt.data.phantom.report import write_report
from convirt.data.phantom.study import draw_study
from convirt.data.reports import fields_report, parse_report
from open_i import open_i_reports

TERMS = {
    "Enlarged Cardiomediastinum": r"Mediastinum/.*(prominent|enlarged)",
    "Cardiomegaly": r"Cardiomegaly|Cardiac Shadow/.*(enlarged|borderline)",
    "Lung Lesion": r"Nodule|Mass\b|Granuloma|Calcified Granuloma|Cavitation",
    "Lung Opacity": r"Opacity|Infiltrate|Markings/(?!bronchov)|Density/(lung|retroc)|Cicatrix/lung|Lung/interstitial",
    "Edema": r"Pulmonary Edema|Pulmonary Congestion|Heart Failure",
    "Consolidation": r"Consolidation|Airspace Disease",
    "Pneumonia": r"Pneumonia",
    "Atelectasis": r"Pulmonary Atelectasis|Volume Loss",
    "Pneumothorax": r"Pneumothorax|Hydropneumothorax",
    "Pleural Effusion": r"Pleural Effusion|Costophrenic Angle/.*(blunted|obscured)|Hydropneumothorax|Hemothorax",
    "Pleural Other": r"Thickening/pleura|Pleura/",
    "Fracture": r"Fractures, Bone",
    "Support Devices": r"Catheters|Implanted|Tube, Ins|Surgical Instr|Medical Device|Stents|Sutures",
}
"""What terms a class of CheXpert is compared with, at the start of a term."""
PHANTOM = {
    "atelectasis": ("Atelectasis",),
    "cardiomegaly": ("Cardiomegaly",),
    "edema": ("Edema",),
    "fracture": ("Fracture",),
    "pleural effusion": ("Pleural Effusion",),
    "pneumonia": ("Pneumonia", "Consolidation"),
    "pneumothorax": ("Pneumothorax",),
}
"""A phantom's pneumonia is also worded as consolidation."""

Case = tuple[str, Mapping[str, int | None], frozenset[str]]
"""Text, what was extracted, and which classes it should have."""


def open_i(lexicon: FindingsLexicon) -> Iterator[tuple[int, Case]]:
    """Number and case of each report of Open-i that has text."""
    for number, given in open_i_reports().items():
        report = fields_report(given.findings, given.impression)
        if report.text and "No Indexing" not in given.terms:
            found = extract_findings(report.sentences, lexicon)
            wanted = {name for name, term in TERMS.items() if any(re.match(term, t) for t in given.terms)}
            yield int(number), (report.text, found, frozenset(wanted))


def agreement(cases: Sequence[Case], names: Mapping[str, tuple[str, ...]]) -> None:
    """Print precision, recall and F1 of each class."""
    print(f"{'':28}{'have it':>8}{'found':>8}{'uncertain':>10}{'precision':>11}{'recall':>9}{'F1':>8}")
    for name, classes in names.items():
        statuses = [[found[c] for c in classes] for _, found, _ in cases]
        taken = [1 in status or -1 in status for status in statuses]
        wanted = [name in truth for _, _, truth in cases]
        both = sum(t and w for t, w in zip(taken, wanted, strict=True))
        precision, recall = both / max(1, sum(taken)), both / max(1, sum(wanted))
        score = 2 * both / max(1, sum(taken) + sum(wanted))
        unsure = sum(-1 in status and 1 not in status for status in statuses)
        print(f"{name:28}{sum(wanted):8}{sum(taken):8}{unsure:10}{precision:11.3f}{recall:9.3f}{score:8.3f}")


def phantom(lexicon: FindingsLexicon, count: int = 2000) -> list[Case]:
    """Cases of phantom reports."""
    cases: list[Case] = []
    for patient in range(count):
        study = draw_study(7, patient, 0)
        text = write_report(study)
        found = extract_findings(parse_report(text).sentences, lexicon)
        cases.append((text, found, frozenset(study.categories)))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--errors", help="print reports of odd number in which this class disagrees")
    errors = parser.parse_args().errors
    lexicon = load_findings_lexicon("en")
    start = time.process_time()
    cases = list(open_i(lexicon))
    each = (time.process_time() - start) / len(cases)
    print(f"{len(cases)} reports of Open-i, {1000 * each:.1f} ms each with parsing")
    if errors:
        for number, (text, found, truth) in cases:
            if number % 2 and (found[errors] in (1, -1)) != (errors in truth):
                print(f"--- {number}: extracted {found[errors]}, terms say {errors in truth}\n{text}")
        return
    for title, parity in (("even numbers", 0), ("odd numbers (rules were looked after on these)", 1)):
        print(f"\nOpen-i, {title}")
        agreement([case for number, case in cases if number % 2 == parity], {name: (name,) for name in TERMS})
    print("\nphantom")
    agreement(phantom(lexicon), PHANTOM)


if __name__ == "__main__":
    main()
