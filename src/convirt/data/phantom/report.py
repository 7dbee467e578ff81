"""The report of a phantom study: Findings and Impression in varied wording, with negations and unrelated normals."""

import numpy as np

from convirt.data.phantom import wording
from convirt.data.phantom.study import CATEGORIES, Finding, Study, study_generator

HEADINGS = (
    ("FINDINGS:", "IMPRESSION:"),
    ("Findings:", "Impression:"),
    ("FINDINGS", "CONCLUSION:"),
)


def _choose(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(0, len(options)))]


def _fill(template: str, finding: Finding, rng: np.random.Generator) -> str:
    size = _choose(wording.SEVERITY[finding.severity], rng)
    side = finding.side if finding.side != "none" else "left"
    words = {"side": side, "Side": side.capitalize(), "size": size, "Size": size.capitalize(), "zone": finding.zone}
    return template.format(**words).replace("A extensive", "An extensive").replace("a extensive", "an extensive")


def _findings_section(study: Study, rng: np.random.Generator) -> list[str]:
    present = set(study.categories)
    sentences = []
    for finding in study.findings:
        templates = wording.FINDINGS[finding.category]
        order = rng.permutation(len(templates))[: 2 if rng.random() < 0.3 else 1]
        sentences += [_fill(templates[i], finding, rng) for i in order]
    absent = [name for name in CATEGORIES[:-1] if name not in present]
    keep = rng.permutation(len(absent))[: int(rng.integers(1, 4))]
    sentences += [_choose(wording.NEGATIONS[absent[i]], rng) for i in keep]
    if not study.findings:
        sentences.append(_choose(wording.NORMAL_FINDINGS, rng))
    if rng.random() < 0.45:
        sentences.append(_choose(wording.UNRELATED, rng))
    if study.device and rng.random() < 0.8:
        sentences.append(_choose(wording.DEVICE, rng))
    return [sentences[i] for i in rng.permutation(len(sentences))]


def write_report(study: Study) -> str:
    """The report of a study, as free text with headings: a function of the study alone."""
    rng = study_generator(study.seed, study.patient, 1 + study.number, 0)
    findings = _findings_section(study, rng)
    if study.findings:
        impression = [_fill(_choose(wording.IMPRESSIONS[f.category], rng), f, rng) for f in study.findings]
    else:
        impression = [_choose(wording.NORMAL_IMPRESSIONS, rng)]
    if len(impression) > 1 and rng.random() < 0.5:
        impression = [f"{i + 1}. {sentence}" for i, sentence in enumerate(impression)]
    head, tail = _choose_headings(rng)
    parts = []
    if rng.random() < 0.6:
        parts.append(f"INDICATION: {_choose(wording.INDICATIONS, rng)}")
    if rng.random() < 0.3:
        parts.append("COMPARISON: None.")
    parts.append(f"{head}\n{' '.join(findings)}")
    parts.append(f"{tail}\n{' '.join(impression)}")
    return "\n\n".join(parts)


def _choose_headings(rng: np.random.Generator) -> tuple[str, str]:
    return HEADINGS[int(rng.integers(0, len(HEADINGS)))]
