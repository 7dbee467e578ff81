"""`convirt prepare archive`: a folder of images and one table become a prepared corpus.

This is the way in for any hospital's own archive, and for the paper's bone archive in particular (ConVIRT, section
3.1). Every row of the table ends in the audit as kept, repaired or dropped.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from convirt.data.preparing.audit import Audit
from convirt.data.preparing.identities import table_mark
from convirt.data.preparing.pairing import read_content
from convirt.data.preparing.planning import Columns, plan_pairs
from convirt.data.preparing.prepare import Options, check_out, prepare_corpus
from convirt.data.tables import Table, read_table
from convirt.errors import InputError


def prepare_archive(
    images: Path,
    table: Path,
    image_column: str,
    text_column: str,
    patient_column: str,
    out: Path,
    *,
    study_column: str | None = None,
    split_column: str | None = None,
    view_column: str | None = None,
    id_column: str | None = None,
    keep_columns: Sequence[str] = (),
    where: Sequence[str] = (),
    encoding: str = "utf-8",
    image_size: int = 256,
    seed: int = 0,
    val_share: float = 0.1,
    test_share: float = 0.1,
    max_failures: float = 0.1,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    bits: Literal[8, 16] = 8,
    ids: Literal["hashed", "plain"] = "hashed",
    language: str = "en",
    lexicon: Path | None = None,
    redact: bool = False,
) -> Path:
    """Turn a folder of PNG, JPEG or DICOM files and a CSV or Parquet table into a prepared corpus.

    Of each report, Findings and Impression are kept where they exist, else the whole text; pairs whose text has fewer
    than 3 tokens are dropped. Rows that cannot be used are set aside and listed in OUT/audit.json.

    Args:
        images: Folder that the table's image paths start from.
        table: CSV (also .gz) or Parquet table, one row an image.
        image_column: Column with the path of the image.
        text_column: Column with the report; several columns, separated by commas, are joined in their order.
        patient_column: Column with the patient: no patient is ever in two splits.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        study_column: Column that groups rows (images) into one pair; without it every row is a pair.
        split_column: Column with the given split (train, val, valid, dev, validation, test ...); without it patients
            are dealt out by seed.
        view_column: Column with the view or projection of the image.
        id_column: Column that identifies a row; it must be unique.
        keep_columns: Further columns to keep with each pair.
        where: Filters `column=value1,value2`; a row must pass all of them.
        encoding: Text encoding of a CSV table.
        image_size: Larger side of the prepared images, in pixels.
        seed: Seed of the split by patient.
        val_share: Share of patients for validation, if no split column is given.
        test_share: Share of patients for test, if no split column is given.
        max_failures: Largest share of rows that may be unusable; above it nothing is written.
        workers: Processes that read images; default: one for each processor. The corpus does not depend on it.
        engine: Where they run: `local` on this machine, `ray` on a Ray cluster (extra `convirt[ray]`).
        bits: Depth of the prepared images: 8, or 16 for sources that hold more.
        ids: `hashed` replaces ids of patients and pairs by salted hashes (salt: the environment variable CONVIRT_SALT,
            else the table's content); `plain` keeps them.
        language: Language of the reports: which headings and abbreviations are known.
        lexicon: A TOML file of headings and abbreviations of your own, in place of the language's.
        redact: Mask names, dates, telephone and record numbers that are found in the texts.

    Returns:
        The corpus folder.

    Raises:
        InputError: Bad table, columns, splits or folder, or too many unusable rows; nothing is written then.
    """
    images, out = Path(images), Path(out)
    if not images.is_dir():
        raise InputError(f"{images} is no folder; --images names the folder that image paths start from")
    options = Options(
        image_size=image_size,
        bits=bits,
        seed=seed,
        max_failures=max_failures,
        workers=workers,
        engine=engine,
        ids=ids,
        language=language,
        lexicon=lexicon,
        redact=redact,
    )
    check_out(out)
    source = read_table(table, encoding=encoding)
    columns = Columns(
        image=image_column,
        text=_text_columns(text_column, source),
        patient=patient_column,
        study=study_column,
        split=split_column,
        view=view_column,
        id=id_column,
        keep=tuple(keep_columns),
    )
    audit = Audit(table=source.name, total=len(source) + len(source.malformed), notes=list(source.notes))
    shares = {"seed": seed, "val_share": val_share, "test_share": test_share}
    plans = plan_pairs(source, columns, images, where, shares, audit)
    settings = {
        "table": {"name": source.name, "mark": table_mark(source.sha256), "encoding": encoding},
        "columns": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(columns).items()},
        "where": list(where),
        "split": "given" if split_column else shares,
    }
    read = partial(read_content, images, options=options)
    return prepare_corpus(plans, read, out, options=options, settings=settings, audit=audit, salt=source.sha256)


def _text_columns(text_column: str, table: Table) -> tuple[str, ...]:
    if text_column in table.header:
        return (text_column,)
    return tuple(name.strip() for name in text_column.split(","))
