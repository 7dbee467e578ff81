"""One line on what leaks, which says as plainly what could not be checked."""

from typing import Any

from convirt.inspection.collections import Collection
from convirt.inspection.leakage import Between, Within
from convirt.inspection.naming import Comparison
from convirt.inspection.repeats import is_judged
from convirt.inspection.survey import Survey

_PICTURES = "source file, pixels or near-duplicate image"


def judge_within(within: Within, survey: Survey, collection: Collection) -> dict[str, Any]:
    """Judge what repeats from split to split of a collection.

    Returns:
        `leak`, `unchecked` (whether patients could not be compared) and the `line`.
    """
    caveats = _unread(collection, survey, "")
    if len(survey.splits) < 2:
        line = "One split only: nothing can leak between splits."
        if collection.unnamed_split:
            line = f"No splits were compared: if column {collection.unnamed_split!r} holds them, give --split-column."
        return {"leak": False, "unchecked": False, "line": " ".join([line, *caveats])}
    compared = bool(survey.column("patient_R").any())
    if not compared:
        caveats = ["PATIENTS WERE NOT COMPARED: none are named (--patient-column).", *caveats]
    return _judge("across its splits", within.reasons(), "", compared, not compared, caveats)


def judge_between(
    between: Between, comparison: Comparison, sides: tuple[Survey, Survey], collections: tuple[Collection, Collection]
) -> dict[str, Any]:
    """Judge what leads from one collection, which is trained on, into another, which is tested on.

    Args:
        between: What they share.
        comparison: How patients were compared, or why not.
        sides: Their surveys.
        collections: The collections.

    Returns:
        As `judge_within`.
    """
    caveats = []
    if comparison.declined:
        caveats = [f"Patients were not compared: {comparison.note}."]
    elif between.patients is None:
        caveats = [f"PATIENTS WERE NOT COMPARED: {comparison.note}."]
    elif not all(side.column("patient_R").any() for side in sides):
        caveats = ["PATIENTS WERE NOT COMPARED: one side names none."]
    compared = not caveats
    unchecked = not compared and not comparison.declined
    caveats += _unread(collections[0], sides[0], "") + _unread(collections[1], sides[1], " of the other")
    for collection, which in zip(collections, ("", " of the other"), strict=True):
        if collection.unnamed_split:
            column = collection.unnamed_split
            caveats.append(f"If column {column!r}{which} holds splits, give --split-column: they count.")
    firsts, seconds = between.splits
    if not is_judged(firsts, seconds):
        line = "Nothing leads between the two from what is trained on into what is tested on: see their splits."
        return {"leak": False, "unchecked": unchecked, "line": " ".join([line, *caveats])}
    reasons = between.reasons()
    ways = list(dict.fromkeys(way for kind in ("patients", "files", "pixels", "near") for way in between.ways(kind)))
    where = f" ({', '.join(ways)} of the other)" if ways else ""
    if not reasons and between.harmless():
        caveats = ["What they share leads from no training into testing: see the table of splits.", *caveats]
    return _judge("between the two", reasons, where, compared, unchecked, caveats)


def _judge(
    what: str, reasons: list[str], where: str, compared: bool, unchecked: bool, caveats: list[str]
) -> dict[str, Any]:
    line = f"No leakage found {what}, by {'patient, ' if compared else ''}{_PICTURES}."
    if reasons:
        line = f"LEAKAGE {what}: {'; '.join(reasons)}{where}."
    return {"leak": bool(reasons), "unchecked": unchecked, "line": " ".join([line, *caveats])}


def _unread(collection: Collection, survey: Survey, which: str) -> list[str]:
    if not collection.unreadable:
        return []
    images = collection.unreadable + len(survey.row_I)
    return [f"{collection.unreadable:,} of {images:,} images{which} could not be read and were not compared."]
