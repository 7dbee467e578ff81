'''Public data sets and archives of reports and images, each with a verb `convirt prepare NAME`.

A source plans which images belong to which report and says how one pair is read. Everything else is done for it:
workers, going on after a stop, hashed ids, the audit, the corpus. A new source is one file here. This is a whole one,
for a table with one row for each image (`test_new_source.py` runs it):

    """`convirt prepare my-set`: My Set, as published.

        ROOT/reports.csv                 one row an image: image, patient, study, report
        ROOT/images/p1/s1/frontal.png
    """

    from collections.abc import Iterator
    from functools import partial
    from pathlib import Path

    from convirt.data.preparing.audit import Audit
    from convirt.data.preparing.options import DEFAULTS, SharedOptions
    from convirt.data.preparing.pairs import Row, read_content
    from convirt.data.sources.rows import StreamedTable
    from convirt.data.sources.studies import ImageFolders, check_places, deal_patients, plan_studies, prepare_studies

    def prepare_my_set(
        root: Path, out: Path, *, val_share: float = 0.1, test_share: float = 0.1, options: SharedOptions = DEFAULTS
    ) -> Path:
        """Turn My Set into a prepared corpus: a pair is a study.

        Args:
            root: Folder with reports.csv and images/.
            out: Folder to write the corpus to; it must not exist yet, or be empty.
            val_share: Share of patients for validation.
            test_share: Share of patients for test.
            options: What all sources share.
        """
        root, out = check_places(root, out, "My Set")
        table = StreamedTable(root / "reports.csv", ["image", "patient", "study", "report"])
        audit = Audit(table=table.name, total=0)
        shares = {"seed": options.seed, "val_share": val_share, "test_share": test_share}
        plans = deal_patients(plan_studies(usable_rows(root, table, audit), audit), shares, audit)
        read = partial(read_content, root, options=options)
        settings = {"source": "my-set", "split": shares}
        return prepare_studies(plans, read, out, options=options, settings=settings, audit=audit, salt=table.sha256)

    def usable_rows(root: Path, table: StreamedTable, audit: Audit) -> Iterator[Row]:
        """Yield the rows whose image is there; the others go to the audit."""
        folders = ImageFolders(root)
        for row in table.fitting(audit):
            image, patient, study, report = row.cells
            if source := folders.find(f"images/{patient}/{study}", image, (".png", ".dcm")):
                yield Row(number=row.number, image=image, source=source, text=report, patient=patient, study=study)
            else:
                audit.drop(row.number, "image not found", image=image, failure=True)

Then add one line to `STAGES` in `convirt/cli.py`, run `python docs/make_cli.py`, and test it on a small tree with the
exact file names and columns (`tests/trees.py`). What the published sets need beyond this:

- Many or long reports stay where they are: `plan_studies(..., places=...)` keeps the place of each text, which
  `ZipTexts`, `FolderTexts` (`texts.py`) or a class with the same `read(place)` fetches in a worker (`read_study`).
  Memory holds about 1 kB a study, never texts or images. See `mimic_cxr.py` and `chexpert_plus.py`.
- A published split goes into `Row.split` by `given_split`; `check_patients` refuses one that shares patients.
  `hold_out_pairs` draws so many pairs for validation, as the paper does.
- Published counts (`counts.py`), given to `prepare_studies`, are compared with what was found.

A path in a table, a link or a member of an archive may be hostile: it stays inside the root, or its row is dropped
with a reason. A mistake of the user is an `InputError` of one line. The module of a verb imports nothing heavy at its
top level.
'''
