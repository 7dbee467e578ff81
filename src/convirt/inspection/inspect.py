"""`convirt inspect`: what a corpus holds, what leaks from split to split, and what it shares with another."""

import os
import tempfile
from pathlib import Path

from convirt.atomic import write_json, write_text
from convirt.errors import InputError

LEAKAGE = 1
"""Exit status of `--strict` after leakage."""
UNCHECKED = 3
"""Exit status of `--strict` if none was found, but patients could not be compared."""
DAMAGED = 4
"""Exit status of `--strict` if a corpus does not hold what it was written with: then nothing else counts."""


def inspect(
    corpus: Path,
    *,
    against: Path | None = None,
    out: Path | None = None,
    no_images: bool = False,
    strict: bool = False,
    images: Path | None = None,
    against_images: Path | None = None,
    image_column: str = "image",
    patient_column: str | None = None,
    split_column: str | None = None,
    text_column: str | None = None,
    distinct_patients: bool = False,
    salt_from: Path | None = None,
) -> Path:
    """Audit a corpus, a benchmark folder or a labelled table; with --against, also find what it shares with another.

    Prints a summary and writes inspect.html, one page that fetches nothing, and inspect.json. Looked for: patients,
    source files, identical and near-duplicate images across splits (or on both sides); repeated reports and sentences;
    identifiers left in reports; whether a corpus has the fingerprint that it was written with. The last line is a
    verdict; the exit status is 0 whatever it says, unless --strict.

    Between the two, the first is what a network is pretrained on and --against what it is tested on: what leads from
    train into val or test, or from val into test, is leakage. What lies in train of both is counted by split and judged
    harmless, as is the first one's test. A side without splits counts whole; splits of other names do too.

    Args:
        corpus: Prepared corpus, benchmark folder, or CSV or Parquet table.
        against: Another one; what the two share is leakage from one to the other.
        out: Folder for inspect.html and inspect.json; by default CORPUS-inspect beside the corpus.
        no_images: Give counts and row numbers only: no pixels, no report text, no ids, no file names, so that the page
            and the file can be handed on.
        strict: For scripts: exit with status 1 if there is leakage, and with 3 if none was found but patients could not
            be compared. Equal reports alone are no leakage. Before either, status 4 says that a corpus is damaged: its
            content does not match the fingerprint that it was written with.
        images: Folder that the image paths of a table start from; a benchmark knows its own.
        against_images: The same for --against.
        image_column: Column of a table with the path of the image.
        patient_column: Column of a table with the patient.
        split_column: Column of a table with the split.
        text_column: Column of a table with the report.
        distinct_patients: The two sides are of different people (two archives that both count from 1): do not compare
            their ids, and do not miss it.
        salt_from: Table that a corpus with hashed ids was prepared from (without CONVIRT_SALT): plain ids of the other
            side are hashed alike and compared. Not needed if the other side is that table or a benchmark built of it.

    Returns:
        The page.

    Raises:
        InputError: Nothing to inspect there, not one image can be read, --salt-from is not the table of the corpus, or
            the folder cannot be written.
    """
    from convirt.inspection.audit import audit_collections, compare
    from convirt.inspection.collections import Columns, open_collection
    from convirt.inspection.page import print_audit, render

    columns = Columns(image=image_column, patient=patient_column, split=split_column, text=text_column)
    collection = open_collection(corpus, images, columns)
    size = collection.about.get("image_size")
    other = open_collection(against, against_images or images, columns, size) if against else None
    comparison = compare(collection, other, distinct_patients, salt_from)
    folder = _prepare_folder(Path(out) if out else Path(f"{os.path.abspath(corpus)}-inspect"))
    audit, gallery = audit_collections(collection, other, Path(corpus), not no_images, comparison)
    page = folder / "inspect.html"
    write_text(page, render(audit, gallery))
    write_json(folder / "inspect.json", audit)
    print_audit(audit, page)
    sides = [audit, *([audit["against"]] if other else [])]
    if strict and any(side["integrity"] and not side["integrity"]["intact"] for side in sides):
        raise SystemExit(DAMAGED)
    for failure, status in (("leak", LEAKAGE), ("unchecked", UNCHECKED)):
        if strict and any(side["verdict"][failure] for side in sides):
            raise SystemExit(status)
    return page


def _prepare_folder(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give --out a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror or error}); give another --out") from error
    return folder
