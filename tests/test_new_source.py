"""The source that the guide of `convirt.data.sources` shows in full works as it stands there."""

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Literal

import pytest

import trees
from convirt.data import sources
from convirt.data.corpora import Corpus
from convirt.data.preparing.options import Options


@pytest.fixture(scope="module")
def my_set(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the module of the guide defines."""
    lines = str(sources.__doc__).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith('    """'))
    stop = next(number for number, line in enumerate(lines) if line.startswith("Then add"))
    path = tmp_path_factory.mktemp("guide") / "my_set.py"
    path.write_text(textwrap.dedent("\n".join(lines[start:stop])))
    module: dict[str, Any] = {"__name__": "my_set"}
    exec(compile(path.read_text(), str(path), "exec"), module)
    return module


def test_the_guide_is_a_whole_source(my_set: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "root"
    rows = []
    for number in range(6):
        for view in ("frontal", "lateral"):
            trees.write_jpg(root / f"images/p{number}/s{number}/{view}.png", len(rows))
            rows.append((view, f"p{number}", f"s{number}", "The lungs are clear today."))
    rows.append(("missing", "p0", "s0", "The lungs are clear today."))
    rows.append(("../../../secret", "p0", "s0", "The lungs are clear today."))
    trees.write_csv(root / "reports.csv", ("image", "patient", "study", "report"), rows)
    options = Options(image_size=24, ids="plain", workers=1, max_failures=0.5)
    corpus = Corpus.open(my_set["prepare_my_set"](root, tmp_path / "corpus", options=options))
    assert len(corpus) == 6
    assert set(corpus.splits.tolist()) == {"train", "val", "test"}
    assert [image.source for image in corpus.pair(0).images] == ["images/p0/s0/frontal.png", "images/p0/s0/lateral.png"]
    assert corpus.pair(0).sentences == ("The lungs are clear today.",)
    dropped = trees.audit_of(corpus)["dropped"]
    assert {reason: entry["count"] for reason, entry in dropped.items()} == {"image not found": 2}


@pytest.mark.parametrize("ids", ["plain", "hashed"])
@pytest.mark.parametrize("spelt", ["0{}", "{}.0"])
def test_spellings_of_one_patient_are_dealt_together(
    my_set: dict[str, Any], tmp_path: Path, spelt: str, ids: Literal["plain", "hashed"]
) -> None:
    """And a row without a patient is no patient."""
    root = tmp_path / "root"
    rows = [("x", "", "s99", "The lungs are clear today.")]
    trees.write_jpg(root / "images" / "s99" / "x.png", 99)
    trees.write_jpg(root / f"images/{spelt.format(1000)}/s0/lateral.png", 98)  # one study under two spellings
    rows.append(("lateral", spelt.format(1000), "s0", "The lungs are clear, case 0."))
    for number in range(24):
        patient = ("{}", spelt)[number % 2].format(1000 + number // 2)
        trees.write_jpg(root / f"images/{patient}/s{number}/frontal.png", number)
        rows.append(("frontal", patient, f"s{number}", f"The lungs are clear, case {number}."))
    trees.write_csv(root / "reports.csv", ("image", "patient", "study", "report"), rows)
    options = Options(image_size=24, ids=ids, workers=1, max_failures=0.5)
    corpus = Corpus.open(my_set["prepare_my_set"](root, tmp_path / "corpus", options=options))
    splits: dict[str, set[str]] = {}
    for patient, split in zip(corpus.patient_ids, corpus.splits, strict=True):
        splits.setdefault(patient, set()).add(split)
    assert len(splits) == 12
    assert len(corpus) == 24
    assert corpus.column_lengths("images").sum() == 25
    assert all(len(some) == 1 for some in splits.values())
    audit = trees.audit_of(corpus)
    assert audit["repaired"]["another spelling of a patient's id"]["count"] == 12
    assert "11 patients have ids in several spellings; each is one patient" in audit["notes"]
    assert audit["dropped"]["no patient"]["count"] == 1


@pytest.mark.parametrize("name", ["mimic_cxr", "chexpert_plus", "open_i", "dicomweb"])
def test_the_module_of_a_verb_imports_nothing_heavy(name: str) -> None:
    heavy = "{'torch', 'pandas', 'pyarrow', 'scipy', 'sklearn', 'matplotlib', 'PIL', 'pydicom', 'transformers', 'timm'}"
    code = f"import sys; import convirt.data.sources.{name}; sys.exit(' '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
