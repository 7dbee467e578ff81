"""The index of a corpus: vectors of its images in half precision, and what is said of each.

    INDEX/
        index.json          the model (run, sha256 of its weights), the calibration, pairs that are gone
        parts/00000/        vectors.npy (float16 [N, D], of length 1) and rows.parquet, one row an image
        words/              BM25 over the reports of the pairs that are there

A part is written whole, never changed, and holds the digests of its pairs. So an indexing that was cut off goes on
where it was: nothing is lost or double. Shapes: N images, D size of a vector.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from convirt.atomic import atomic_folder, write_json
from convirt.data.corpora import Corpus, decode
from convirt.data.records import Pair
from convirt.data.reports.parsing import words
from convirt.data.shards import file_sha256
from convirt.errors import InputError
from convirt.jobs import hold
from convirt.model import Model, load
from convirt.training.checkpoint import WEIGHTS

FORMAT = 1
PAIRS_A_PART = 256
"""What a kill costs at most."""
CALIBRATED = 1000
"""Images and sentences whose scores by chance the calibration is made of."""
NEEDS = "searching needs FAISS and bm25s; install them with `pip install 'convirt[search]'`"

_ROW = pa.schema(
    [
        *(
            (name, pa.string())
            for name in ("digest", "pair_id", "patient_id", "split", "view", "source", "sha256", "text")
        ),
        ("look", pa.binary(16)),
        ("sentences", pa.list_(pa.string())),
        ("attributes", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index, opened for searching.

    Attributes:
        folder: Where it lies.
        about: What `index.json` holds.
        rows: One row an image, the columns of `_ROW`.
        vectors_ND: float16, in the order of the rows.
    """

    folder: Path
    about: dict[str, Any]
    rows: pa.Table
    vectors_ND: np.ndarray

    @classmethod
    def open(cls, folder: str | Path, *, unfinished: bool = False) -> "Index":
        """Open an index; `unfinished`: even one that is being changed, whose words and calibration are not its own.

        Raises:
            InputError: There is none, it is empty, damaged or unfinished, or another version wrote it.
        """
        folder = Path(folder)
        about = _about(folder)
        if about is None:
            raise InputError(f"{folder} is no index; make one with `convirt index RUN CORPUS --out {folder}`")
        if about["unfinished"] and not unfinished:
            raise InputError(f"{folder} is being changed, or was cut off; give the same `convirt index` again")
        try:
            rows = pa.concat_tables(
                [_ROW.empty_table(), *(pq.read_table(part / "rows.parquet") for part in _parts(folder))]
            )
            vectors = [np.load(part / "vectors.npy") for part in _parts(folder)]
        except (OSError, ValueError, pa.ArrowException) as error:
            raise InputError(f"{folder} is a damaged index ({type(error).__name__}); make it again") from error
        if not len(rows) or len(rows) != sum(map(len, vectors)):
            raise InputError(f"{folder} is an index without images, or damaged; give the same `convirt index` again")
        there = ~np.isin(rows.column("digest").to_numpy(zero_copy_only=False).astype(str), about["gone"] or [""])
        return cls(folder=folder, about=about, rows=rows.filter(there), vectors_ND=np.concatenate(vectors)[there])

    def model(self, run: str | Path | None = None) -> Model:
        """Load the model that the index was made with.

        Args:
            run: Where it lies now, if not where it lay then.

        Raises:
            InputError: It is not there, or is another one.
        """
        run = Path(run or self.about["run"])
        if not run.exists():
            raise InputError(f"the run {run} of this index is not there; name it with --run")
        if weights_of(run) != self.about["weights"]:
            raise InputError(
                f"{run} has other weights than {self.folder} was made with; index the corpus again with it"
            )
        return load(run)


def weights_of(run: Path) -> str:
    """The sha256 of a run's weights: what tells one model from another."""
    from convirt.atomic import latest_complete

    path = (latest_complete(run / "best") or run) / WEIGHTS
    if not path.is_file():
        raise InputError(f"{run} has no weights; give the --out folder of `convirt pretrain`")
    return file_sha256(path)


def index_corpus(run: Path, corpus: Path, out: Path, *, prune: bool = False) -> dict[str, int]:
    """Bring an index in line with a corpus: new pairs are added, changed ones replaced.

    Args:
        run: The encoder.
        corpus: The corpus.
        out: The index, which may be there already.
        prune: Take out pairs that the corpus does not have.

    Returns:
        How many pairs were `added`, `changed`, `removed` and were `there`.

    Raises:
        InputError: The index was made with another model, or a part cannot be written.
    """
    import_engines()
    source, weights = Corpus.open(corpus), weights_of(run)
    with hold(out):
        about = _about(out) or {"format": FORMAT, "gone": []}
        if about.get("weights", weights) != weights:
            raise InputError(f"{out} was made with another model than {run}; choose another --out, or that model")
        about |= {"run": str(run.resolve()), "weights": weights, "unfinished": True}
        write_json(out / "index.json", about)
        model = load(run)
        space = "features" if model.shared_dim is None or model.text_encoder is None else "shared"
        known = _digests(out)
        gone, seen, fresh = set(about["gone"]), set(), []
        alive: dict[str, set[str]] = {}  # more than one after a change that was cut off
        for pair_id, digest in known:
            if digest not in gone:
                alive.setdefault(pair_id, set()).add(digest)
        made = {digest for _, digest in known}
        counts = {"there": 0, "added": 0, "changed": 0, "removed": 0}
        for number in range(len(source)):
            pair = source.pair(number)
            digest = _digest(pair)
            seen.add(pair.pair_id)
            before = alive.get(pair.pair_id, set())
            counts["there" if before == {digest} else "changed" if before else "added"] += 1
            gone = (gone | before) - {digest}
            if digest not in made:
                fresh.append(number)
        if prune:
            removed = [digests for pair_id, digests in alive.items() if pair_id not in seen]
            counts["removed"] = len(removed)
            gone = gone.union(*removed)
        for start in range(0, len(fresh), PAIRS_A_PART):
            pairs = [source.pair(number) for number in fresh[start : start + PAIRS_A_PART]]
            _write_part(out, pairs, model, space)
        about |= {"space": space, "gone": sorted(gone)}
        write_json(out / "index.json", about)
        index = Index.open(out, unfinished=True)
        _write_words(index)
        write_json(out / "index.json", {**about, "chance": _calibrate(index, model, space), "unfinished": False})
    return counts


def import_engines() -> tuple[Any, Any]:
    """FAISS and bm25s.

    Raises:
        InputError: One of them is not installed.
    """
    try:
        import bm25s
        import faiss
    except ImportError as error:
        raise InputError(NEEDS) from error
    return faiss, bm25s


def _about(folder: Path) -> dict[str, Any] | None:
    try:
        about: dict[str, Any] = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / 'index.json'} is damaged ({type(error).__name__}); make the index again"
        ) from error
    if about.get("format") != FORMAT:
        raise InputError(f"{folder} has index format {about.get('format')}, this version reads {FORMAT}; index again")
    return about


def _parts(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "parts").glob("[0-9]*") if (path / "rows.parquet").is_file())


def _digests(folder: Path) -> list[tuple[str, str]]:
    """Pair id and digest of every indexed image, gone ones included, in their order."""
    found: list[tuple[str, str]] = []
    for part in _parts(folder):
        table = pq.read_table(part / "rows.parquet", columns=["pair_id", "digest"])
        found += zip(*(table.column(name).to_pylist() for name in ("pair_id", "digest")), strict=True)
    return found


def _digest(pair: Pair) -> str:
    """What tells a changed pair from the same one."""
    said = (pair.pair_id, pair.patient_id, pair.split, pair.text, sorted(pair.attributes.items()))
    images = [
        (image.sha256, image.view, image.source, hashlib.sha256(image.encoded).hexdigest()) for image in pair.images
    ]
    return hashlib.sha256(json.dumps([said, images]).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _write_part(out: Path, pairs: Sequence[Pair], model: Model, space: Any) -> None:
    images = [(pair, image) for pair in pairs for image in pair.images]
    pixels = [decode(image).numpy()[0] for _, image in images]
    vectors = model.encode_image(iter(pixels), space=space)
    rows = [
        {
            "digest": _digest(pair),
            **{name: getattr(pair, name) for name in ("pair_id", "patient_id", "split", "text")},
            **{name: getattr(image, name) for name in ("view", "source", "sha256")},
            "look": look(values),
            "sentences": list(pair.sentences),
            "attributes": json.dumps(dict(pair.attributes)),
        }
        for (pair, image), values in zip(images, pixels, strict=True)
    ]
    number = max((int(part.name) for part in _parts(out)), default=-1) + 1
    with atomic_folder(out / "parts" / f"{number:05d}") as part:
        np.save(part / "vectors.npy", vectors.astype(np.float16))
        pq.write_table(pa.Table.from_pylist(rows, schema=_ROW), part / "rows.parquet")


def look(values_HW: np.ndarray) -> bytes:
    """128 signs of the differences of a tiny version, across and down: near-duplicates differ in few (dHash)."""
    scale = 255 / np.iinfo(values_HW.dtype).max
    small = Image.fromarray((values_HW * scale).astype(np.uint8)).resize((9, 9), Image.Resampling.BOX)
    cells = np.asarray(small, dtype=np.int16)
    signs = np.concatenate([cells[:8, 1:] > cells[:8, :-1], cells[1:, :8] > cells[:-1, :8]])
    return np.packbits(signs).tobytes()


def _calibrate(index: Index, model: Model, space: str) -> dict[str, list[float]]:
    """Scores that images and sentences of different patients reach: percentiles 0 to 100 of each kind of query."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(index.rows))[:CALIBRATED]
    vectors = index.vectors_ND[chosen].astype(np.float32)
    patients = index.rows.column("patient_id").to_numpy(zero_copy_only=False)[chosen]
    other = patients[:, None] != patients[None, :]
    if not other.any():
        return {}
    chance = {"image": (vectors @ vectors.T)[other]}
    if space == "shared":
        sentences = [
            texts[int(rng.integers(len(texts)))] for texts in index.rows.column("sentences").take(chosen).to_pylist()
        ]
        chance["text"] = (vectors @ model.encode_text(sentences).T)[other]
    return {kind: np.percentile(scores, np.arange(101)).round(5).tolist() for kind, scores in chance.items()}


def pairs_of(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """First row of each pair, and the pair of each row, int64; pairs in the order of their first rows."""
    names = index.rows.column("pair_id").to_numpy(zero_copy_only=False).astype(str)
    _, first, pair_N = np.unique(names, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[pair_N]


def _write_words(index: Index) -> None:
    _, bm25s = import_engines()
    first, _ = pairs_of(index)
    texts = index.rows.column("text").take(first).to_pylist()
    ranker = bm25s.BM25()
    ranker.index([words(text) or [""] for text in texts], show_progress=False)
    with atomic_folder(index.folder / "words", replace=True) as folder:
        ranker.save(str(folder))


def read_words(index: Index) -> Any:
    """The BM25 ranker of the reports, in the order of `pairs_of`."""
    _, bm25s = import_engines()
    return bm25s.BM25.load(str(index.folder / "words"))
