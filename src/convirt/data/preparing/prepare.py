"""From plans to a corpus: the one way in which every `prepare ...` verb ends.

A source (a table, an archive of files, a server) makes `PairPlan`s and a function that reads one; what happens then,
to every source alike, happens here: the plans are cut into shards, an engine has each made by a worker, and when all
are there the corpus gets its name. No image ever passes through this process, so that memory does not grow with them.
"""

import errno
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from convirt.atomic import write_json
from convirt.data.preparing.audit import Audit, Entry
from convirt.data.preparing.engines import ENGINES, Task, run_here
from convirt.data.preparing.identities import Identities
from convirt.data.preparing.options import Options
from convirt.data.preparing.pairs import PairPlan, Read, ShardJob
from convirt.data.preparing.sharing import shared_files
from convirt.data.preparing.unfinished import Unfinished, check_out
from convirt.data.reports import MIN_TOKENS
from convirt.data.shards import SPLITS, Fingerprint, map_shards, shard_name, write_about, write_catalogue
from convirt.data.splits import canonical_id
from convirt.errors import InputError
from convirt.versions import versions

__all__ = ["Options", "check_out", "prepare_corpus"]

PAIRS_PER_SHARD = 256
"""What a kill costs at most, for each worker. Files of some ten megabytes."""
FORM = 2
"""Of the pieces of unfinished work; another number is another version's."""
_WORTH_WORKERS = 500  # fewer pairs are read before a second process has started and imported what it needs

Conclude = Callable[[Mapping[str, int]], Sequence[str]]


def prepare_corpus(
    plans: Sequence[PairPlan],
    read: Read,
    out: Path,
    *,
    options: Options,
    settings: dict[str, Any],
    audit: Audit,
    salt: str = "",
    conclude: Conclude | None = None,
) -> Path:
    """Read planned pairs and write them as a prepared corpus, with its audit; print both as tables.

    Work that was cut short is taken up: shards that are finished stay as they are. The corpus is the same, byte for
    byte, for any number of workers, engine and interruptions.

    Args:
        plans: The pairs to be, in the order of the corpus; their ids are unique and their splits final.
        read: Gives the content of a pair. It can be pickled and is a pure function of its files. If it raises
            `Unreadable`, every row of the pair is set aside for that reason, as a failure.
        out: Folder to write the corpus to; it must not exist yet, or be empty.
        options: How.
        settings: Where the pairs come from, JSON values; kept in `corpus.json` beside `options`. What they say of the
            naming of patients (`ids_mark`, `sources_with_patient`) holds instead of what is found here.
        audit: What became of the rows that are in no plan; the others are entered here.
        salt: Hash of the source's content (tables, reports), from which hashed ids take their salt unless the
            environment variable CONVIRT_SALT gives one; without it, that of the plans.
        conclude: Makes notes for the audit of the final counts (`pairs`, `pairs_train` ..., `images`, `sentences`,
            `patients`), for example beside published ones.

    Returns:
        `out`.

    Raises:
        InputError: Too many unusable rows, no pair left, `out` is taken, or its unfinished work is of another kind.
    """
    out = Path(out)
    digest = _digest_plans(plans)
    identities = Identities.choose(options, salt or digest)
    audit.alias = identities.file
    audit.quotes = not (identities.sources or options.redact)
    _check_failures(audit, out, options.max_failures)
    if not plans:
        raise _none_left(audit)
    audit.notes += _crossing(plans)
    settings = {**settings, **options.settings(), "min_tokens": MIN_TOKENS, "versions": versions()}
    # A share of failures that is raised afterwards does not change what was made before.
    made = {name: value for name, value in settings.items() if name != "max_failures"}
    stamp = {
        "plans": digest,
        "pairs": len(plans),
        "each": PAIRS_PER_SHARD,
        "salt": identities.mark(),
        "made": made,
        "form": FORM,
    }
    job = ShardJob(read=read, image_size=options.image_size, identities=identities)
    about = {"ids_mark": identities.mark(), **settings}
    with Unfinished.claim(out, stamp) as work:
        if not work.complete:
            try:
                _make_shards(work, plans, job, options, audit)
                _conclude(work, about, options, audit, -(-len(plans) // PAIRS_PER_SHARD), conclude)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise InputError(
                        f"the disk of {out} is full; what is finished is kept: free some space and give the same "
                        "command again"
                    ) from error
                raise
            work.publish()
        else:
            work.remove()
    _print(None if work.complete else audit, out)
    return out


def _crossing(plans: Sequence[PairPlan]) -> list[str]:
    """Say how many patients stand in several splits because their ids are spelt in several ways."""
    spellings: dict[str, dict[str, set[str]]] = {}
    for plan in plans:
        spellings.setdefault(canonical_id(plan.patient), {}).setdefault(plan.patient, set()).add(plan.split)
    crossing = sum(len(some) > 1 and len(set().union(*some.values())) > 1 for some in spellings.values())
    return [f"{crossing} patients stand in several splits, under several spellings of their ids"] * bool(crossing)


def _none_left(audit: Audit) -> InputError:
    return InputError(f"no pair of {audit.table} is left; rows dropped: {audit.summary()}")


def _digest_plans(plans: Sequence[PairPlan]) -> str:
    """Hash all plans, and see to it that their ids are unique."""
    digest = hashlib.sha256()
    ids: set[str] = set()
    for plan in plans:
        if plan.pair_id in ids:
            raise InputError(f"pair id {plan.pair_id!r} occurs twice; ids of pairs must be unique")
        ids.add(plan.pair_id)
        digest.update(repr(plan).encode())
    return digest.hexdigest()


def _check_failures(audit: Audit, out: Path, max_failures: float) -> None:
    """Give up if too many rows have failed so far, and leave a list of them beside the corpus that is not made."""
    if audit.failures <= max_failures * audit.considered:
        return
    listed = out.with_name(f"{out.name}-failures.csv")
    audit.write_csv(listed, failed=True)
    raise InputError(
        f"{audit.failures} of {audit.considered} rows cannot be used, more than --max-failures {max_failures:g}; "
        f"no corpus was written, {listed} lists what was found so far, first: {audit.first_failure}; correct the rows "
        "(or the folder that their paths start from), or raise --max-failures"
    )


def _make_shards(work: Unfinished, plans: Sequence[PairPlan], job: ShardJob, options: Options, audit: Audit) -> None:
    """Have every shard made that is not there yet; give up as soon as too many rows have failed."""
    failed = {number: work.read_piece(number)["failures"] for number in work.finished()}
    if audit.failures + sum(failed.values()) > options.max_failures * audit.considered:
        # A worker may have finished a shard after the command gave up: what failed then may be mended by now.
        for number in [number for number, count in failed.items() if count]:
            work.discard(number)
            del failed[number]
    done = set(failed)
    left = [number for number in range(-(-len(plans) // PAIRS_PER_SHARD)) if number not in done]
    pairs_left = sum(len(_cut(plans, number)) for number in left)
    failures = audit.failures + sum(failed.values())
    if done:
        Console(stderr=True).print(f"{len(done)} of {len(done) + len(left)} shards are there already", style="dim")
    alone = options.engine == "local" and pairs_left < _WORTH_WORKERS
    engine = run_here if alone else ENGINES[options.engine]
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task("reading pairs", total=len(plans), completed=len(plans) - pairs_left)
        for task in engine(job, _tasks(work, plans, left), options.workers):
            progress.advance(bar, len(task.plans))
            failures += work.read_piece(task.number)["failures"]
            _judge(work, audit, failures, options.max_failures)


def _cut(plans: Sequence[PairPlan], number: int) -> Sequence[PairPlan]:
    return plans[number * PAIRS_PER_SHARD : (number + 1) * PAIRS_PER_SHARD]


def _tasks(work: Unfinished, plans: Sequence[PairPlan], numbers: Sequence[int]) -> Iterator[Task]:
    for number in numbers:
        yield Task(
            number=number,
            plans=_cut(plans, number),
            shard=work.corpus / shard_name(number),
            piece=work.piece(number),
        )


def _judge(work: Unfinished, audit: Audit, failures: int, max_failures: float) -> None:
    """Stop if too many rows have failed. Shards without failures stay; the rows of the others may be mended."""
    if failures <= max_failures * audit.considered:
        return
    for number in work.finished():
        piece = work.read_piece(number)
        _enter(audit, piece)
        if piece["failures"]:
            work.discard(number)
    _check_failures(audit, work.out, max_failures)


def _enter(audit: Audit, piece: Mapping[str, Any]) -> None:
    for entry in piece["entries"]:
        audit.enter(Entry(**entry))


def _conclude(
    work: Unfinished, settings: Any, options: Options, audit: Audit, shards: int, conclude: Conclude | None
) -> None:
    """Gather the pieces in their order and write what stands beside the shards."""
    work.sweep()  # a worker that died left its part
    fingerprint = Fingerprint(options.image_size)
    counts: Counter[str] = Counter()
    names: list[str] = []
    telling = 0
    for number in range(shards):
        piece = work.read_piece(number)
        _enter(audit, piece)
        fingerprint.update(map(bytes.fromhex, piece["digests"]))
        counts.update(piece["counts"])
        audit.words.merge(piece["words"])
        telling += piece["sources_with_patient"]
        if piece["bytes"]:
            names.append(shard_name(number))
    if not names:
        work.remove()
        raise _none_left(audit)
    rows = map_shards(work.corpus, names)
    assert pc.count_distinct(rows.column("pair_id")).as_py() == len(rows), "two pairs have one hash for an id"
    final = {**counts, "patients": pc.count_distinct(rows.column("patient_id")).as_py()}
    audit.notes += [warning] if (warning := audit.words.warning()) else []
    audit.notes += shared_files(rows)
    if telling and options.ids == "hashed":
        audit.notes.append(
            f"{telling} of {final['images']} images keep a source path with the id of their patient, although ids are "
            "hashed; --sources hashed hides paths"
        )
    if conclude is not None:
        audit.notes.extend(conclude({"pairs": 0, **{f"pairs_{split}": 0 for split in SPLITS}, **final}))
    write_catalogue(work.corpus, names)
    write_about(
        work.corpus,
        shards=names,
        image_size=options.image_size,
        fingerprint=fingerprint.hexdigest(),
        counts=final,
        settings={"sources_with_patient": telling, **settings},
    )
    write_json(work.corpus / "audit.json", audit.to_json())
    audit.write_csv(work.corpus / "audit.csv")


def _print(audit: Audit | None, out: Path) -> None:
    """Print the tables; no audit is at hand if an earlier command wrote the corpus and was killed thereafter."""
    console = Console()
    if audit is not None:
        console.print(audit.to_table())
    rows = map_shards(out)
    lengths = {name: pc.list_value_length(rows.column(name)).to_numpy() for name in ("images", "sentences")}
    table = RichTable(title="Corpus", title_justify="left")
    for heading in ("split", "pairs", "patients", "images", "sentences"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    empty = []
    for split in SPLITS:
        chosen = pc.equal(rows.column("split"), split)
        patients = pc.count_distinct(rows.column("patient_id").filter(chosen)).as_py()
        totals = [int(lengths[name][chosen.to_numpy()].sum()) for name in ("images", "sentences")]
        pairs = int(chosen.to_numpy().sum())
        table.add_row(split, *(str(count) for count in (pairs, patients, *totals)))
        empty += [split] if not pairs and split != "test" else []
    console.print(table)
    console.print(f"wrote {out}", markup=False, soft_wrap=True)
    notes = audit.notes if audit is not None else []
    for note in notes[:5]:
        console.print(f"note: {note}", style="yellow", markup=False)
    if len(notes) > 5:
        console.print(f"note: {len(notes) - 5} more in {out / 'audit.json'}", style="yellow")
    for split in empty:
        console.print(f"note: no pair is in split {split}; pretraining needs some", style="yellow")
