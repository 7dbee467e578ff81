"""Public data sets and archives of reports and images, each with a verb `convirt prepare NAME`.

A source says which images belong to which report (`PairPlan`s) and how to read one of them; `prepare_corpus` does the
rest for all alike: workers, resumption, audit, the corpus. To add a data set of studies with reports:

1. One new file here, `my_set.py`, that opens with the tree of files and the columns of the tables as published.
2. In it, a function of typed arguments; its docstring becomes the verb's help, and the options that all verbs share
   come as one argument:

       def prepare_my_set(root: Path, out: Path, *, options: SharedOptions = DEFAULTS) -> Path: ...

   It has four steps:
       - `StreamedTable` (`rows.py`) gives the rows of a large CSV one by one, `--where` filters applied; `read_table`
         of `convirt.data.tables` is enough for a small table.
       - Each row becomes a `Row` or is entered in the audit with the reason; `ImageFolders` (`studies.py`) finds its
         image and never leaves the root.
       - `plan_studies` groups rows into pairs. Their texts stay where they are: a plan holds the `place` of its text,
         which `ZipTexts`, `FolderTexts` (`texts.py`) or a class with the same `read(place) -> str` fetches in a worker.
         The split is in the plan: given by the data set, or drawn by `split_by_patient` or `hold_out_pairs`.
       - `prepare_studies` (`counts.py`) reads them all, and sets what came of it beside the published counts.
3. One line in `VERBS` (`convirt/cli.py`), and `python docs/make_cli.py`.
4. One test on a small tree with the exact file names and columns, made by a function in `tests/trees.py`.

What a user may be given in hostile hands (a path in a table, a link, an archive's member) stays inside the root or is
dropped with a reason; mistakes are an `InputError` of one line; memory holds plans (about 1 kB a study), never texts or
images.
"""

from typing import Annotated

import tyro

from convirt.data.preparing.options import Options

SharedOptions = Annotated[Options, tyro.conf.arg(name="")]
"""`Options`, each field of which is an option of the verb."""
DEFAULTS = Options()
