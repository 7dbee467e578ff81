"""The words that a captioner reads and writes: those of the training reports, each with a number.

Shapes: B reports, T words of the longest.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from convirt.data.reports.parsing import words
from convirt.errors import InputError

FILE = "vocabulary.json"
PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unknown>")
"""Their spellings; no word of a report holds `<`."""


def report_words(report: Sequence[str]) -> list[str]:
    """The words of a report's sentences in their order, in lower case and without punctuation."""
    return [word for sentence in report for word in words(sentence)]


@dataclass(frozen=True)
class Vocabulary:
    """Words and their numbers; the first four are special."""

    spellings: tuple[str, ...]
    """The word of each number."""
    _numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_numbers", {word: number for number, word in enumerate(self.spellings)})

    def __len__(self) -> int:
        return len(self.spellings)

    @classmethod
    def of_reports(cls, reports: Iterable[Sequence[str]], min_count: int) -> Self:
        """The words that reports hold at least `min_count` times, the most frequent first.

        Raises:
            InputError: There is no such word.
        """
        counts = Counter(word for report in reports for word in report_words(report))
        kept = sorted((word for word in counts if counts[word] >= min_count), key=lambda word: (-counts[word], word))
        if not kept:
            raise InputError(
                f"no word occurs {min_count} times in the training reports ({len(counts)} words in all); "
                "lower objective.min_count or prepare more pairs"
            )
        return cls((*SPECIAL, *kept))

    def encode(self, reports: Sequence[Sequence[str]], max_words: int) -> tuple[Tensor, Tensor]:
        """What a decoder is given and what it is to say, word by word (teacher forcing).

        Args:
            reports: The sentences of each report.
            max_words: Longer reports are cut; a report that is cut has no end.

        Returns:
            inputs_BT, which begins with `START`, and targets_BT, one word ahead; padded with `PAD`, int64.
        """
        targets = [[*(self._numbers.get(w, UNKNOWN) for w in report_words(r)), END][:max_words] for r in reports]
        length = max(map(len, targets))
        targets_BT = torch.tensor([row + [PAD] * (length - len(row)) for row in targets])
        inputs_BT = targets_BT.roll(1, dims=1).where(targets_BT != PAD, PAD)
        inputs_BT[:, 0] = START
        return inputs_BT, targets_BT

    def decode(self, numbers: Iterable[int]) -> list[str]:
        """The words of numbers, special ones left out."""
        return [self.spellings[number] for number in numbers if number >= len(SPECIAL)]

    def save(self, folder: Path) -> None:
        """Write `vocabulary.json`."""
        text = json.dumps(self.spellings, ensure_ascii=False, indent=0)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `vocabulary.json`.

        Raises:
            InputError: It is missing or damaged.
        """
        path = folder / FILE
        try:
            spellings = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: not a captioner's checkpoint folder, or damaged") from error
        whole = isinstance(spellings, list) and all(isinstance(word, str) for word in spellings)
        if not whole or tuple(spellings[: len(SPECIAL)]) != SPECIAL or len(set(spellings)) != len(spellings):
            raise InputError(f"cannot read {path}: it is not a list of words that begins with {', '.join(SPECIAL)}")
        return cls(tuple(spellings))
