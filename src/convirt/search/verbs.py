"""`convirt embed`, `convirt index` and `convirt search`."""

import json
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from convirt.search.query import DEFAULTS, SharedOptions


def embed(
    run: Path,
    *,
    out: Path,
    corpus: Path | None = None,
    images: Path | None = None,
    text: bool = False,
    space: Literal["shared", "features"] = "shared",
) -> None:
    """Write the vectors of a corpus, or of any folder of images, to a Parquet file.

    One row a vector, of length 1, in half precision; the file's metadata name the run and the sha256 of its weights.

    Args:
        run: The --out folder of `convirt pretrain`: the encoder.
        out: Parquet file to write.
        corpus: Prepared corpus, all its images.
        images: Folder with PNG, JPEG or DICOM files, known by their content, in its place.
        text: Embed the sentences of the corpus too.
        space: `shared`, in which images and texts are compared, or `features`, which classifiers are trained on.

    Raises:
        InputError: No run, corpus or image there.
    """
    from convirt.search.embedding import embed_all

    counts, left_out = embed_all(run, out, corpus=corpus, images=images, text=text, space=space)
    print(f"wrote {out}: " + ", ".join(f"{count:,} {kind}s" for kind, count in counts.items()))
    for reason, names in left_out.items():
        print(f"note: {len(names)} files left out, {reason}: {names[0]}" + (" ..." if len(names) > 1 else ""))


def index(run: Path, corpus: Path, out: Path, *, prune: bool = False) -> None:
    """Make a searchable index of a corpus, or bring one up to date with it.

    Given again, it adds what is new and replaces what has changed; cut off, it goes on where it was. The index keeps
    reports and ids as the corpus has them.

    Args:
        run: The --out folder of `convirt pretrain`: the encoder.
        corpus: Prepared corpus.
        out: Folder of the index, new or made before with the same encoder.
        prune: Take out pairs that the corpus does not have.

    Raises:
        InputError: No run or corpus there, or an index of another encoder.
    """
    from convirt.search.index import Index, index_corpus

    counts = index_corpus(run, corpus, out, prune=prune)
    made = Index.open(out)
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    images, dim = made.vectors_ND.shape
    print(f"{out}: {images:,} images, vectors of {dim} numbers in half precision; pairs: {said or 'none'}")
    print(f'search it: convirt search {out} --text "..."')


def search(
    index: Path,
    *,
    text: str = "",
    image: Path | None = None,
    run: Path | None = None,
    as_json: bool = False,
    options: SharedOptions = DEFAULTS,
) -> None:
    """Search an index by sentence, by image, or by both.

    Example: `convirt search INDEX --text "right pleural effusion -pneumothorax view:PA"`. Results no better than 95 %
    of chance are left out: "nothing" is an answer. Research software, not a medical device.

    Args:
        index: Folder made by `convirt index`.
        text: Words; `-word` draws away from one; `key:value` and `-key:value` keep images in or out, by split, view,
            patient, study or an attribute of the corpus, with `a,b` for several values and `low..high` for a range.
        image: PNG, JPEG or DICOM file to look for. Studies of its own patient are left out if the index has that file.
        run: Where the run of the index lies now.
        as_json: Print JSON.
        options: What is shown.

    Raises:
        InputError: No index there, nothing to look for, an unknown filter, or another model.
    """
    from convirt.search.index import Index
    from convirt.search.query import parse_query
    from convirt.search.searching import LIKELY, Searcher

    query = parse_query(text)
    opened = Index.open(index)
    searcher = Searcher(opened, opened.model(run))
    found = searcher.search(query, image, options)
    if as_json:
        about = {"index": str(index), "weights": opened.about["weights"], "images": len(opened.rows)}
        hits = [hit.to_json() for hit in found.hits]
        print(json.dumps({**about, "left_out": found.left_out, "hits": hits}, indent=1))
        return
    console = Console()
    for reason, count in found.left_out.items():
        how = (
            f"below {LIKELY} % of chance; --everything shows them" if "chance" in reason else "--own-patient shows them"
        )
        console.print(f"{count:,} studies left out, {reason} ({how})")
    if not found.hits:
        console.print(
            "nothing is left to show" if found.left_out else "no image passes the filters, or holds the words"
        )
        return
    table = Table(title=f"{len(found.hits)} of {len(opened.rows):,} images", title_justify="left")
    for heading in ("", "study", "image", "score", "of chance below", "closest sentence of its report", "ranked by"):
        table.add_column(heading, justify="right" if heading in ("", "score", "of chance below") else "left")
    for hit in found.hits:
        percentile = "" if hit.percentile is None else f"{hit.percentile} %"
        named = f"{hit.source} {hit.view}".strip() + (f" (+{hit.folded} alike)" if hit.folded else "")
        table.add_row(
            str(hit.rank),
            hit.study,
            named,
            "" if hit.score is None else f"{hit.score:.3f}",
            percentile,
            hit.sentence,
            hit.by,
        )
    console.print(table)
