"""Which table an evaluation is about, and which of its columns holds what: one set of options for every verb."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tyro

from convirt.errors import InputError

if TYPE_CHECKING:
    from convirt.evaluation.inputs.table import OpenTable

Device = Literal["auto", "cpu", "cuda"]
"""What `--device` takes; `convirt.load` takes any device of PyTorch."""
Setting = Literal["linear", "finetuned"]
"""What trains: a head on the frozen encoder, or both."""
Head = Literal["paper", "logistic"]
"""Heads of linear evaluation."""
Baseline = Literal["random", "imagenet"]
"""Encoders that have not seen a report, to compare runs with."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """A table of images, or a benchmark in its place."""

    table: Path
    """CSV or Parquet, one row per image; or a benchmark folder, which brings its columns, its split or roles, its label
    fractions, its image folder, its text queries and boxes if it has some, and the paper's settings for it."""
    images: Path | None = None
    """Folder that the image paths are relative to; by default the benchmark's."""
    label_column: str | None = None
    """Column with the class of the image (single-label)."""
    image_column: str = "image"
    """Column with the image path."""
    patient_column: str | None = None
    """Column with the patient or case; without it each image counts as a patient of its own."""
    split_column: str | None = None
    """Column with the split: train, val (valid, dev, validation) or test. A verb that trains on labels takes the column
    `split` by default; the others then take all rows."""
    where: Sequence[str] = ()
    """Conditions column=value that rows must meet."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns of a multi-label task."""
        return ()

    def split_by(self, column: str) -> Self:
        """These options with a split column, if none was named."""
        return self if self.split_column else replace(self, split_column=column)

    def open(
        self,
        *,
        pool_column: str | None = None,
        role_column: str | None = None,
        text_column: str | None = None,
        attributes: Mapping[str, str | None] | None = None,
    ) -> "OpenTable":
        """Find out which columns hold, and read the table when it is asked for.

        Args:
            pool_column: Study whose images become one row by the mean of their vectors.
            role_column: `query` or `candidate`, for retrieval.
            text_column: Caption or report of the image.
            attributes: Column of the sex, age, view and source, as far as they are known.

        Raises:
            InputError: There is no such table, or columns are named that a benchmark has of its own.
        """
        from convirt.evaluation.inputs.table import open_table

        named = {role: column for role, column in (attributes or {}).items() if column}
        return open_table(self, pool_column=pool_column, role_column=role_column, text_column=text_column, named=named)

    @classmethod
    def taken_from(cls, arguments: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """Options that stand among the other arguments of a verb, by name, and those others."""
        own = {field.name for field in fields(cls)}
        rest = {name: value for name, value in arguments.items() if name not in own}
        return cls(**{name: value for name, value in arguments.items() if name in own}), rest


@dataclass(frozen=True, kw_only=True)
class LabelledTableOptions(TableOptions):
    """A table of images with one class each, or with several labels."""

    label_columns: Sequence[str] = ()
    """Columns with 1, 0 or nothing, one a label (multi-label); commas may separate them."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label columns of a multi-label task, also of those that commas separate."""
        return tuple(name.strip() for part in self.label_columns for name in part.split(",") if name.strip())


SharedTableOptions = Annotated[TableOptions, tyro.conf.arg(name="")]
"""`TableOptions`, each field of which is an option of the verb."""
SharedLabelledOptions = Annotated[LabelledTableOptions, tyro.conf.arg(name="")]
"""`LabelledTableOptions`, each field of which is an option of the verb."""


def flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a verb as the command line has them, the fields of its table options among them."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        found |= vars(value) if isinstance(value, TableOptions) else {name: value}
    return found


def check_counts(**counts: int | None) -> None:
    """Refuse numbers of things that are below 1, before any work is done; None stands for a default.

    Raises:
        InputError: One is.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")
