"""`convirt export`: a corpus on disk becomes Parquet shards that can be streamed from a web server or object storage.

Pairs are laid out patient by patient, patients in an order that the corpus' fingerprint decides: whatever order the
source had, a shard is a random sample of the patients, and streaming shard by shard mixes well. A shard's name holds
the start of its hash, so that what an interrupted export has written can be taken as it is, and never mixes with
another corpus.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convirt.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

    from convirt.data.corpora import Corpus
    from convirt.data.loading.remote import Remote
    from convirt.data.loading.streaming import ShardFile

AUDIT = "audit.json"
_SHARD = re.compile(r"(train|val|test)-\d{5}-[0-9a-f]{16}\.parquet")
_OURS = re.compile(rf"corpus\.json|audit\.json|index\.parquet|{_SHARD.pattern}|\..*")


def export(corpus: Path, out: str, *, shard_mib: float = 8, verify: bool = False) -> str:
    """Write a corpus as Parquet shards, to be streamed from object storage or a web server, or to be passed on.

    An interrupted export goes on with the same command. `corpus.json` is written last: an export that has one is whole.
    What another command left of an unfinished export is removed thereafter; a whole one in other shards is refused.

    Args:
        corpus: Folder of a prepared corpus.
        out: Folder, or address that fsspec can write to, such as s3://bucket/corpus. Credentials come from the
            environment.
        shard_mib: Size of a shard, MiB; larger only if one pair is. A process that streams holds some dozens.
        verify: Read back everything in the end, and compare its hashes.

    Returns:
        `out`.

    Raises:
        InputError: There is no corpus, or it is damaged, or `out` holds other files or other shards of the same
            corpus, or cannot be written.
    """
    from rich.console import Console
    from rich.progress import track

    from convirt.data.corpora import Corpus
    from convirt.data.loading.remote import Remote
    from convirt.data.loading.streaming import ABOUT, StreamedCorpus

    if not 0.01 <= shard_mib <= 1024:
        raise InputError(f"--shard-mib must be between 0.01 and 1024, got {shard_mib:g}")
    pairs, remote = Corpus.open(corpus), Remote(str(out))
    there = remote.sizes()
    if foreign := sorted(name for name in there if not _OURS.fullmatch(name)):
        raise InputError(f"{out} holds other files ({foreign[0]}); choose another --out")
    pairs.check()
    layout = list(lay_out(pairs, int(shard_mib * 2**20)))
    if ABOUT in there:
        _check_whole_export(remote, pairs, [(split, len(indices)) for split, indices in layout])
    files = list(_write_shards(pairs, remote, there, track(layout, "writing", transient=True)))
    _finish(pairs, remote, files, np.concatenate([indices for _, indices in layout]))
    for name in there.keys() - {file.file for file in files}:
        if _SHARD.fullmatch(name):
            remote.remove(name)
    if verify:
        for file in track(files, "reading back", transient=True):
            remote.read(file.file, size=file.bytes, sha256=file.sha256)
    written = StreamedCorpus.open(str(out))
    mib = sum(file.bytes for file in files) / 2**20
    Console().print(f"wrote {len(written)} pairs in {len(files)} shards, {mib:.1f} MiB, to {out}", soft_wrap=True)
    return out


def _check_whole_export(remote: "Remote", corpus: "Corpus", layout: list[tuple[str, int]]) -> None:
    """Refuse to write over a whole export of another corpus, or of the same one in other shards: runs may stream it."""
    from convirt.data.loading.streaming import ABOUT

    try:
        about = json.loads(remote.read(ABOUT))
        fingerprint, there = about["fingerprint"], [(file["split"], file["pairs"]) for file in about["shards"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{remote.place} holds a damaged export; remove it, or choose another --out") from error
    if fingerprint != corpus.fingerprint:
        raise InputError(f"{remote.place} holds another corpus; choose another --out")
    if there != layout:
        raise InputError(
            f"{remote.place} holds this corpus in {len(there)} other shards (another --shard-mib); give the same "
            "--shard-mib, remove it, or choose another --out"
        )


def lay_out(corpus: "Corpus", limit: int) -> Iterator[tuple[str, np.ndarray]]:
    """Deal the pairs out to shards: of one split, patients whole where they fit, at most `limit` bytes of images.

    Yields:
        Split and indices of the pairs of each shard.
    """
    from convirt.data.loading.sampling import number_patients
    from convirt.data.shards import SPLITS

    sizes = corpus.image_bytes()
    seed = int.from_bytes(hashlib.sha256(f"export {corpus.fingerprint}".encode()).digest()[:8], "big")
    for split in SPLITS:
        indices = corpus.indices(split)
        if not len(indices):
            continue
        patients = number_patients(corpus.patient_ids[indices])
        rank = np.random.default_rng(seed).permutation(int(patients.max()) + 1)[patients]
        order = np.argsort(rank, kind="stable")
        indices, rank = indices[order], rank[order]
        ends = np.cumsum(sizes[indices])
        starts = np.flatnonzero(np.diff(rank, prepend=-1))  # where a patient's pairs begin
        begin, before = 0, 0
        while begin < len(indices):
            end = max(begin + 1, int(np.searchsorted(ends, before + limit, side="right")))
            if end < len(indices):
                whole = int(starts[np.searchsorted(starts, end, side="right") - 1])
                end = whole if whole > begin else end
            yield split, indices[begin:end]
            begin, before = end, int(ends[end - 1])


def _write_shards(
    corpus: "Corpus", remote: "Remote", there: dict[str, int], layout: Iterable[tuple[str, np.ndarray]]
) -> "Iterator[ShardFile]":
    """Write the shards that are not there yet; see in the end whether all pairs were read as they were written."""
    from convirt.data.loading.streaming import ShardFile
    from convirt.data.shards import Fingerprint

    digests = [b""] * len(corpus)
    for number, (split, indices) in enumerate(layout):
        table = corpus.table(indices)
        for index, row in zip(indices, table.to_pylist(), strict=True):
            digests[index] = _digest(corpus, row)
        # Images are compressed already; texts are small beside them.
        data = _parquet(table, compression="none", use_dictionary=False, row_group_size=max(1, len(table)))
        sha256 = hashlib.sha256(data).hexdigest()
        name = f"{split}-{number:05d}-{sha256[:16]}.parquet"
        if there.get(name) != len(data):
            remote.write(name, data)
        yield ShardFile(file=name, split=split, pairs=len(indices), bytes=len(data), sha256=sha256)
    found = Fingerprint(corpus.image_size)
    found.update(digests)
    if found.hexdigest() != corpus.fingerprint:
        raise InputError(
            f"{corpus.path} is damaged: its content has another fingerprint than corpus.json says; prepare it again"
        )


def _digest(corpus: "Corpus", row: dict[str, Any]) -> bytes:
    """Hash a pair as it lies in the corpus."""
    from convirt.data.records import Pair
    from convirt.data.shards import pair_digest

    try:
        return pair_digest(Pair.from_row(row), corpus.image_size)
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{corpus.path} is damaged, pair {row['pair_id']!r}: {error}") from error


def _parquet(table: "pa.Table", **options: Any) -> bytes:
    """A table as the bytes of a Parquet file, the same for the same table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def _finish(corpus: "Corpus", remote: "Remote", files: "list[ShardFile]", order: np.ndarray) -> None:
    """Write the index, the audit and, last of all, `corpus.json`."""
    import pyarrow as pa

    from convirt.data.loading.sampling import number_patients
    from convirt.data.loading.streaming import ABOUT, FORMAT, INDEX, INDEX_SCHEMA, KIND
    from convirt.data.shards import sealed

    columns: dict[str, Any] = {"pair": order, "patient": number_patients(corpus.patient_ids)[order]}
    for name in ("images", "sentences"):
        columns[name] = corpus.column_lengths(name)[order]
    index = _parquet(pa.table(columns).cast(INDEX_SCHEMA), compression="zstd")
    about = json.loads((corpus.path / ABOUT).read_text(encoding="utf-8"))
    about.pop("files", None)
    about |= {
        "kind": KIND,
        "format": FORMAT,
        "index": {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()},
        "shards": [asdict(file) for file in files],
    }
    there = remote.sizes()
    if short := [file.file for file in files if there.get(file.file) != file.bytes]:
        raise InputError(f"{remote.place}/{short[0]} was written but is not whole there; run the same command again")
    remote.write(INDEX, index)
    if (corpus.path / AUDIT).is_file():
        remote.write(AUDIT, (corpus.path / AUDIT).read_bytes())
    remote.write(ABOUT, (json.dumps(sealed(about), indent=1, ensure_ascii=False) + "\n").encode())
