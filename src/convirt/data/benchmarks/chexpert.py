"""CheXpert: five findings, each present or not, on every image (ConVIRT, appendix B).

The labels were taken from reports by rules: 1 present, 0 absent, -1 uncertain, nothing where the report is silent.

What the paper implies. It calls the task binary, keeps all 223,414 training images (218,414 + 5,000), and does not name
a policy for uncertain labels. So no image is dropped for one. Silence is absence: in the authors' own retrieval lists,
which repeat CheXpert's labels, every empty one has become 0. Uncertain ones do not occur in those lists. For them the
field fixes one value a class (ones for atelectasis, edema and pleural effusion, zeros for cardiomegaly and
consolidation; GLoRIA and its successors compare themselves with ConVIRT so), and that is the default here.

CheXpert 8x200 is the paper's retrieval set, from its authors' lists (appendices C and D). Eight categories, each with
200 candidate images that are positive in it alone, 10 query images and 5 text queries (the lists' own README says ten;
the file, like the paper, has five). The misspellings of the texts stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from convirt.data.benchmarks.building import Source, build_benchmark, build_split
from convirt.data.benchmarks.files import find, find_optional, read_source, unique_images
from convirt.data.benchmarks.folder import Benchmark, Protocol
from convirt.data.benchmarks.splits import Asked, Sizes, SplitRule
from convirt.errors import InputError

CLASSES = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
LABELS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
"""All fourteen label columns."""
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_VALUES = {"1.0": "1", "1": "1", "0.0": "0", "0": "0", "-1.0": "-1", "-1": "-1", "": ""}
KS = (5, 10, 50, 100)  # of CheXpert 8x200; the paper's text says 100 where its tables say 50
POLICIES = {"ones": "1", "zeros": "0", "ignore": ""}
PER_CLASS = {
    "Atelectasis": "ones",
    "Cardiomegaly": "zeros",
    "Consolidation": "zeros",
    "Edema": "ones",
    "Pleural Effusion": "ones",
}
_PAPER = Sizes(train=218414, val=5000, test=234)
RULES = {
    "paper": SplitRule(group="image", sizes=_PAPER, exact=True),
    "images": SplitRule(group="image", sizes=_PAPER),
    "patient": SplitRule(group="patient", sizes=_PAPER),
    "no-8x200": SplitRule(group="image", sizes=_PAPER),
    "no-8x200-patient": SplitRule(group="patient", sizes=_PAPER),
}


def benchmark_chexpert(
    root: Path,
    out: Path,
    *,
    split: Literal["paper", "images", "patient", "no-8x200", "no-8x200-patient"] = "paper",
    uncertain: Sequence[str] = ("per-class",),
    lists: Path | None = None,
    val_images: int | None = None,
    seed: int = 0,
    images: bool = True,
) -> Benchmark:
    """Build the CheXpert benchmark: five findings, scored by mean AUC (ConVIRT, appendix B).

    Splits: `paper` has exactly 218414/5000/234 images, the test images being the released validation set; `patient` has
    the same sizes with no patient in two parts; `no-8x200` is `paper` without the 1,680 images of CheXpert 8x200, and
    `no-8x200-patient` is `patient` without any image of their patients; `images` is `paper` for a part of the data.

    Args:
        root: Folder with train.csv, valid.csv, and the images in train/ and valid/.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        split: Named split.
        uncertain: What the label -1 becomes: `ones`, `zeros`, `ignore` (the label is left out, the image stays), or
            `per-class` (ones for atelectasis, edema and pleural effusion, zeros for cardiomegaly and consolidation);
            `CLASS=POLICY` after it changes one class.
        lists: Folder of the CheXpert 8x200 lists, for the splits that leave them out.
        val_images: Size of the validation part, except for the split `paper`.
        seed: Seed of the split.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable tables, lists, images, policies or sizes.
    """
    rule = RULES[split]
    policies = uncertain_policies(uncertain)
    source = read_chexpert(root, policies)
    left_out: frozenset[str] = frozenset()
    if split.startswith("no-8x200"):
        left_out = _on_lists(source.frame, lists, by_patient=rule.group == "patient")
    asked = Asked(seed=seed, val_images=val_images)
    return build_split(source, out, split, rule, asked, left_out=left_out, images=images)


def uncertain_policies(asked: Sequence[str]) -> dict[str, str]:
    """The policy of each class.

    Raises:
        InputError: An unknown class or policy.
    """
    policies = dict(PER_CLASS)
    for word in (part.strip() for item in asked for part in item.split(",")):
        name, equals, policy = (part.strip() for part in word.rpartition("="))
        if policy == "per-class" and not equals:
            policies = dict(PER_CLASS)
            continue
        if policy not in POLICIES:
            raise InputError(f"uncertain: {policy!r} is no policy; known are per-class, {', '.join(POLICIES)}")
        if equals and name not in CLASSES:
            raise InputError(f"uncertain: {name!r} is no class; classes are {', '.join(CLASSES)}")
        policies |= {name: policy} if equals else dict.fromkeys(CLASSES, policy)
    return policies


def read_chexpert(root: Path, policies: Mapping[str, str]) -> Source:
    """Every image of train.csv and valid.csv, with the five labels."""
    tables = {part: find(root, f"{name}.csv") for part, name in (("train", "train"), ("test", "valid"))}
    frame = pd.concat(
        [read_labels(path).assign(released=part) for part, path in tables.items()],
        ignore_index=True,
    )
    unique_images(frame, str(root))
    uncertain = {name: int((frame[name] == "-1").sum()) for name in CLASSES}
    for name in CLASSES:
        frame[name] = frame[name].replace({"-1": POLICIES[policies[name]], "": "0"})
    return Source(
        name="chexpert",
        kind="multi-label",
        labels=CLASSES,
        root=root,
        frame=frame.drop(columns=[name for name in LABELS if name not in CLASSES]),
        tables=tuple(tables.values()),
        notes=(
            "uncertain labels: " + ", ".join(f"{name} {policies[name]} ({uncertain[name]})" for name in CLASSES),
            "a finding that the report does not mention counts as absent",
        ),
        settings={"uncertain": dict(policies)},
    )


def read_labels(path: Path) -> pd.DataFrame:
    """A table of CheXpert: image, patient, view, sex, age, and fourteen labels of 1, 0, -1 or nothing.

    Raises:
        InputError: No such table, or a label or path that cannot be one of CheXpert's.
    """
    frame = read_source(path, [*COLUMNS, *LABELS])
    images = frame["Path"].map(inside)
    if (odd := images.str.count("/") != 3).any():
        raise InputError(f"{path}: {frame['Path'][odd].iloc[0]!r} is not PART/PATIENT/STUDY/IMAGE")
    labels = {}
    for name in LABELS:
        labels[name] = frame[name].map(_VALUES)
        if unknown := sorted(set(frame[name]) - set(_VALUES)):
            raise InputError(f"{path}: {name} is {unknown[0]!r} in some row; it must be 1, 0, -1 or empty")
    view = frame["AP/PA"].where(frame["Frontal/Lateral"] == "Frontal", "lateral")
    columns = {
        "image": images,
        "patient": images.str.split("/").str[1],
        "view": view,
        "sex": frame["Sex"],
        "age": frame["Age"],
    }
    return pd.DataFrame({**columns, **labels}).reset_index(drop=True)


def inside(path: str) -> str:
    """A path relative to CheXpert's folder (CheXpert-v1.0 or CheXpert-v1.0-small), which tables put before it."""
    first, _, rest = path.partition("/")
    return rest if first.lower().startswith("chexpert") else path


def _on_lists(frame: pd.DataFrame, lists: Path | None, *, by_patient: bool) -> frozenset[str]:
    """Images that stand on the CheXpert 8x200 lists, or all images of their patients."""
    if lists is None:
        raise InputError("the splits no-8x200 need the lists; name the folder of CheXpert 8x200 with --lists")
    listed = read_lists(lists).images
    known = frame["image"].isin(listed)
    if int(known.sum()) != len(listed):
        raise InputError(
            f"{len(listed) - int(known.sum())} of {len(listed)} images on the lists are not in train.csv; they belong "
            "to the whole of CheXpert"
        )
    if by_patient:
        known = frame["patient"].isin(frame.loc[known, "patient"])
    return frozenset(frame.loc[known, "image"])


@dataclass(frozen=True, kw_only=True)
class Lists:
    """The authors' lists."""

    candidates: pd.DataFrame
    """image, patient, view, sex, age and fourteen labels."""
    queries: pd.DataFrame
    """image and label."""
    texts: pd.DataFrame
    """text and label."""
    files: tuple[Path, ...]

    @property
    def categories(self) -> list[str]:
        """The one label of each candidate."""
        return _only_label(self.candidates)

    @property
    def images(self) -> list[str]:
        """Candidates and queries."""
        return [*self.candidates["image"], *self.queries["image"]]


def benchmark_chexpert8x200(root: Path, out: Path, *, lists: Path | None = None, images: bool = True) -> Benchmark:
    """Build the CheXpert 8x200 retrieval benchmark from its authors' lists (ConVIRT, appendices C and D).

    Where ROOT holds CheXpert's train.csv, every listed image is looked up in it: it must be there and be positive in
    the label that it stands for, and in no other.

    Args:
        root: CheXpert's folder, with the images in train/.
        out: Benchmark folder to write; it must not exist yet, or be empty.
        lists: Folder with image-retrieval/ and text-retrieval/; by default ROOT.
        images: Check that every image file exists. With --no-images the lists are built from the tables alone.

    Returns:
        The benchmark.

    Raises:
        InputError: Missing or unusable lists or images.
    """
    found = read_lists(lists or root)
    tables = list(found.files)
    if train := find_optional(root, "train.csv"):
        check_against(found, read_labels(train))
        tables.append(train)
    candidates = found.candidates.assign(role="candidate", label=found.categories)
    queries = found.queries.assign(role="query", patient=[_patient(name) for name in found.queries["image"]])
    frame = pd.concat([candidates, queries], ignore_index=True)[["image", "patient", "label", "role", "view"]]
    frame = frame.fillna({"view": ""}).assign(split="test")
    source = Source(
        name="chexpert8x200",
        kind="retrieval",
        labels=("label",),
        root=root,
        frame=frame,
        tables=tuple(tables),
        notes=_notes(frame, found.texts),
        protocol=Protocol(ks=KS, own_patient=True),  # the paper ranks all candidates
    )
    extra = {"queries.csv": found.texts.to_csv(index=False, lineterminator="\n")}
    return build_benchmark(source, frame, out, split={"name": "official"}, images=images, extra=extra)


def read_lists(folder: Path) -> Lists:
    """Read and check the authors' lists.

    Raises:
        InputError: A list is missing, or a candidate is not positive in exactly one label.
    """
    files = [find(folder / "image-retrieval", name) for name in ("candidate.csv", "query.csv")]
    files.append(find(folder / "text-retrieval", "query.csv"))
    candidates = read_labels(files[0])
    positive_N = (candidates[list(LABELS)] == "1").sum(axis=1)
    if (wrong := positive_N != 1).any():
        raise InputError(f"{files[0]}: {candidates['image'][wrong].iloc[0]} must be positive in exactly one label")
    queries = read_source(files[1], ["Variable", "Path"])
    texts = read_source(files[2], ["Variable", "Text"])
    for path, frame in ((files[1], queries), (files[2], texts)):
        if unknown := sorted(set(frame["Variable"]) - set(_only_label(candidates))):
            raise InputError(f"{path}: category {unknown[0]!r} has no candidate")
    lists = Lists(
        candidates=candidates,
        queries=pd.DataFrame({"image": queries["Path"].map(inside), "label": queries["Variable"]}),
        texts=pd.DataFrame({"text": texts["Text"], "label": texts["Variable"]}),
        files=tuple(files),
    )
    if len(set(lists.images)) < len(lists.images):
        raise InputError(f"{folder}: an image stands twice on the lists; copy them again")
    return lists


def check_against(lists: Lists, train: pd.DataFrame) -> None:
    """Hold the lists against CheXpert's own table.

    Raises:
        InputError: A listed image is not there, or is positive in another label, in several, or uncertain in one.
    """
    known = train.set_index("image")[list(LABELS)]
    if missing := [name for name in lists.images if name not in known.index]:
        raise InputError(f"{len(missing)} listed images are not in train.csv, the first is {missing[0]}")
    labels = [*lists.categories, *lists.queries["label"]]
    rows = known.loc[lists.images]
    alone = (rows == "1").sum(axis=1).eq(1) & (rows != "-1").all(axis=1)
    for name, label, exclusive in zip(lists.images, labels, alone, strict=True):
        if not exclusive or rows.at[name, label] != "1":
            raise InputError(f"{name} is not positive in {label} alone in train.csv; is it CheXpert's own?")


def _only_label(candidates: pd.DataFrame) -> list[str]:
    positive = candidates[list(LABELS)].to_numpy() == "1"
    return [LABELS[place] for place in positive.argmax(axis=1)]


def _patient(image: str) -> str:
    return image.split("/")[1]


def _notes(frame: pd.DataFrame, texts: pd.DataFrame) -> tuple[str, ...]:
    by_role = {role: set(rows["patient"]) for role, rows in frame.groupby("role")}
    both = len(by_role["query"] & by_role["candidate"])
    counts = texts["label"].value_counts()
    return (
        f"{both} patients have both a query and a candidate; as in the paper every candidate is ranked",
        f"{counts.min()} to {counts.max()} text queries a category"
        if counts.nunique() > 1
        else f"{counts.min()} text queries a category",
    )
