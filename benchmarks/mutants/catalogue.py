"""The seeded faults: mistakes that a tired engineer would make, each a small replacement in one source file.

They lie in `faults/`, one file an area, as TOML: `name`; `file` below src/convirt; `old`, which occurs there exactly
once; `new`; `breaks`, what goes wrong then; `tests`, the test files that ought to notice, or of a slow file the one
test; and `wide` for the area, further test files that are tried when those do not.

They were written by someone who had not read the tests; where no test noticed, one was written, or `survives` says why.
Where the code changes, change `old` and `new` with it, so that the mistake stays the same one.
"""

import ast
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "faults"
ROOT = Path(__file__).parents[2]
SOURCES = Path("src") / "convirt"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One mistake."""

    name: str
    area: str
    """Stem of the file that it stands in."""
    file: str
    """Source file, below src/convirt."""
    old: str
    new: str
    breaks: str
    """What goes wrong, in one sentence."""
    tests: tuple[str, ...]
    """Test files that ought to notice, or single tests."""
    wide: tuple[str, ...]
    """Further test files for the whole area."""
    survives: str = ""
    """Why no test notices, where that is so."""

    def apply(self, text: str) -> str:
        """The source text with the mistake in it.

        Raises:
            ValueError: The old text does not occur exactly once.
        """
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: the old text occurs {count} times in {self.file}, not once")
        return text.replace(self.old, self.new)


def read_faults(folder: Path = FOLDER) -> list[Fault]:
    """All faults, area by area."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        area = tomllib.loads(path.read_text(encoding="utf-8"))
        wide = tuple(area["wide"])
        found += [
            Fault(**{**fault, "tests": tuple(fault["tests"]), "wide": wide, "area": path.stem})
            for fault in area["fault"]
        ]
    return found


def problems(faults: list[Fault], root: Path = ROOT) -> list[str]:
    """What is wrong with the list: faults that do not fit the sources of today, or name test files that are gone."""
    said = [f"{name}: the name stands twice" for name, n in Counter(f.name for f in faults).items() if n > 1]
    for fault in faults:
        path = root / SOURCES / fault.file
        said += [
            f"{fault.name}: no tests/{name}"
            for name in fault.tests
            if not (root / "tests" / name.partition("::")[0]).is_file()
        ]
        if not path.is_file():
            said.append(f"{fault.name}: no {SOURCES / fault.file}")
            continue
        try:
            changed = fault.apply(path.read_text(encoding="utf-8"))
            ast.parse(changed)
        except ValueError as error:
            said.append(str(error))
        except SyntaxError as error:
            said.append(f"{fault.name}: the changed file is no Python ({error})")
    return said
