"""Source files of identical content that several patients share: they can carry a patient across splits.

Works on the columns of finished shards, which are mapped: no image is read, and memory grows by some bytes an image.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_LISTED_FILES = 1000
_LISTED_PLACES = 8


def shared_files(rows: pa.Table) -> list[str]:
    """Name every file content that stands in pairs of several patients, once a patient, with the splits it is in."""
    images = [chunk.flatten() for chunk in rows.column("images").chunks]
    hashes = pa.chunked_array([pc.struct_field(chunk, "sha256") for chunk in images], pa.string())
    sources = pa.chunked_array([pc.struct_field(chunk, "source") for chunk in images], pa.string())
    row_of = np.repeat(np.arange(len(rows)), pc.list_value_length(rows.column("images")).to_numpy())
    codes = pc.dictionary_encode(rows.column("patient_id").combine_chunks())
    patient_of = codes.indices.to_numpy()[row_of]
    keys = _keys(hashes)
    order = np.lexsort((np.arange(len(keys)), keys))
    # A run of equal keys with two patients in it: some neighbours in it differ in their patient.
    alike = keys[order][1:] == keys[order][:-1]
    differ = patient_of[order][1:] != patient_of[order][:-1]
    suspects = np.isin(keys, np.unique(keys[order][1:][alike & differ])) if (alike & differ).any() else None
    if suspects is None:
        return []
    found: dict[str, dict[int, tuple[str, str, str]]] = {}
    for place in np.flatnonzero(suspects):
        if digest := hashes[place].as_py():
            row = int(row_of[place])
            named = (sources[place].as_py(), rows.column("patient_id")[row].as_py(), rows.column("split")[row].as_py())
            found.setdefault(digest, {}).setdefault(int(patient_of[place]), named)
    shared = [places for places in found.values() if len(places) > 1]
    notes = [_note(list(places.values())) for places in shared[:_LISTED_FILES]]
    if len(shared) > _LISTED_FILES:
        notes.append(f"identical image files of different patients: {len(shared) - _LISTED_FILES} more files")
    return notes


def _keys(hashes: pa.ChunkedArray) -> np.ndarray:
    """The first 64 bits of hashes in hexadecimal, uint64 [images]; 0 where there is none."""
    heads = (text for chunk in hashes.chunks for text in pc.utf8_slice_codeunits(chunk, 0, 16).to_pylist())
    return np.fromiter((int(head, 16) if head else 0 for head in heads), dtype=np.uint64, count=len(hashes))


def _note(places: Sequence[tuple[str, str, str]]) -> str:
    crossing = " across splits" if len({split for *_, split in places}) > 1 else ""
    listed = ", ".join(f"{source} ({patient}, {split})" for source, patient, split in places[:_LISTED_PLACES])
    more = f" and {len(places) - _LISTED_PLACES} more" if len(places) > _LISTED_PLACES else ""
    return f"identical image files of different patients{crossing}: {listed}{more}"
