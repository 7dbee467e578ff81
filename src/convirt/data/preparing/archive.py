"""`convirt prepare archive`: a folder of images and one table become a prepared corpus.

This is the way in for any hospital's own archive, and for the paper's bone archive in particular (ConVIRT, section
3.1). Every row of the table ends in the audit as kept, repaired or dropped.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from convirt.data.imaging.pixels import Choice
from convirt.data.preparing.audit import Audit
from convirt.data.preparing.identities import table_mark
from convirt.data.preparing.options import DEFAULTS, SharedOptions
from convirt.data.preparing.pairs import read_content
from convirt.data.preparing.planning import Columns, plan_pairs
from convirt.data.preparing.prepare import check_out, prepare_corpus
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
    val_share: float = 0.1,
    test_share: float = 0.1,
    frame: int | None = None,
    window: int = 1,
    options: SharedOptions = DEFAULTS,
) -> Path:
    """Turn a folder of PNG, JPEG or DICOM files and a CSV or Parquet table into a prepared corpus.

    Of each report, Findings and Impression are kept where they exist, else the whole text; pairs whose text has fewer
    than 3 tokens are dropped. Rows that cannot be used are set aside and listed in OUT/audit.json. Paths of image files
    stay in the corpus, with whatever ids of patients they hold, unless --sources hashed.

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
        val_share: Share of patients for validation, if no split column is given.
        test_share: Share of patients for test, if no split column is given.
        frame: Which frame of a DICOM file with several, from 1; without it such a file is set aside, and with it every
            DICOM file that has not so many.
        window: Which window, or VOI LUT, of a DICOM file with several, from 1; a file without it is set aside.
        options: What all sources share.

    Returns:
        The corpus folder.

    Raises:
        InputError: Bad table, columns, splits or folder, or too many unusable rows; nothing is written then.
    """
    images, out = Path(images), Path(out)
    if not images.is_dir():
        raise InputError(f"{images} is no folder; --images names the folder that image paths start from")
    choice = Choice.numbered(frame, window)
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
    shares = {"seed": options.seed, "val_share": val_share, "test_share": test_share}
    plans = plan_pairs(source, columns, images, where, shares, audit)
    settings = {
        "table": {"name": source.name, "mark": table_mark(source.sha256), "encoding": encoding},
        "columns": {name: list(value) if isinstance(value, tuple) else value for name, value in vars(columns).items()},
        "where": list(where),
        "split": "given" if split_column else shares,
        "frame": frame,
        "window": window,
    }
    read = partial(read_content, images, options=options, choice=choice)
    return prepare_corpus(plans, read, out, options=options, settings=settings, audit=audit, salt=source.sha256)


def _text_columns(text_column: str, table: Table) -> tuple[str, ...]:
    if text_column in table.header:
        return (text_column,)
    return tuple(name.strip() for name in text_column.split(","))
