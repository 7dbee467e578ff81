"""The command `convirt`: finds the verb, builds its arguments from types and docstrings, and calls one function.

Nothing heavy is imported before a verb's arguments are parsed, so that help and mistakes in them come at once.
"""

import contextlib
import difflib
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from convirt.atomic import refusal
from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.recipes import RECIPES
from convirt.signatures import bound_later
from convirt.wording import fold, option_names, spelled

USAGE_ERROR = 2
HELP = ("-h", "--help")
DEBUG = "CONVIRT_DEBUG"
"""Environment variable: set to 1, errors are shown with their traceback."""


@dataclass(frozen=True)
class Verb:
    """One verb of the command."""

    summary: str
    target: str
    """`module:function`; its typed arguments and its docstring make the options."""
    positional: tuple[str, ...] = ()
    """Arguments given by place, not by name."""


VERBS: dict[str, Verb] = {
    "demo": Verb("the main job on the embedded phantom archive, with a report to look at", "convirt.demo:demo"),
    "phantom": Verb("write an archive of phantom radiographs with reports", "convirt.data.phantom.boxes:phantom"),
    "prepare archive": Verb(
        "turn a folder of images and a table of reports into a corpus", "convirt.data.preparing.archive:prepare_archive"
    ),
    "prepare mimic-cxr": Verb(
        "turn MIMIC-CXR-JPG and the reports of MIMIC-CXR into a corpus",
        "convirt.data.sources.mimic_cxr:prepare_mimic_cxr",
    ),
    "prepare chexpert-plus": Verb(
        "turn CheXpert Plus into a corpus", "convirt.data.sources.chexpert_plus:prepare_chexpert_plus"
    ),
    "prepare open-i": Verb(
        "turn the Open-i chest collection into a corpus; can download it",
        "convirt.data.sources.open_i:prepare_open_i",
    ),
    "prepare dicomweb": Verb(
        "turn studies of a DICOMweb server into a corpus", "convirt.data.sources.dicomweb:prepare_dicomweb"
    ),
    "prepare remake": Verb(
        "make a corpus again at another image size or depth",
        "convirt.data.preparing.remaking:prepare_remake",
        ("corpus",),
    ),
    "benchmark rsna": Verb("RSNA pneumonia, with a named split", "convirt.data.benchmarks.rsna:benchmark_rsna"),
    "benchmark chexpert": Verb(
        "CheXpert, five findings, with a named split", "convirt.data.benchmarks.chexpert:benchmark_chexpert"
    ),
    "benchmark covidx4": Verb(
        "COVIDx version 4, with a named split", "convirt.data.benchmarks.covidx4:benchmark_covidx4"
    ),
    "benchmark mura": Verb(
        "MURA, by patient or by study, with a named split", "convirt.data.benchmarks.mura:benchmark_mura"
    ),
    "benchmark chexpert8x200": Verb(
        "the CheXpert 8x200 retrieval set, from its authors' lists",
        "convirt.data.benchmarks.chexpert8x200:benchmark_chexpert8x200",
    ),
    "benchmark table": Verb("a benchmark from any labelled table", "convirt.data.benchmarks.table:benchmark_table"),
    "make-retrieval-set": Verb(
        "draw a retrieval set of exclusive positives from any labelled table",
        "convirt.data.benchmarks.retrieval_set:make_retrieval_set",
    ),
    "inspect": Verb(
        "audit a corpus, and find what it shares with another",
        "convirt.inspection.inspect:inspect",
        ("corpus",),
    ),
    "export": Verb(
        "write a corpus as Parquet shards that can be streamed", "convirt.data.loading.export:export", ("corpus",)
    ),
    "pretrain": Verb("pretrain on a corpus by a recipe", "convirt.training.pretrain:pretrain"),
    "classify": Verb(
        "linear evaluation and fine-tuning of runs on a labelled table",
        "convirt.evaluation.classify:classify",
        ("runs",),
    ),
    "zero-shot": Verb(
        "classification from prompts alone, by runs with a shared space",
        "convirt.evaluation.zero_shot:zero_shot",
        ("runs",),
    ),
    "finetune": Verb(
        "train an encoder further on labels and keep it as a checkpoint",
        "convirt.evaluation.finetune:finetune",
        ("run",),
    ),
    "retrieve": Verb("image-image and text-image retrieval by runs", "convirt.evaluation.retrieve:retrieve", ("runs",)),
    "tsne": Verb(
        "images of chosen categories in a plane, before and after pretraining",
        "convirt.analysis.embedding.tsne:tsne",
        ("runs",),
    ),
    "saliency": Verb(
        "what linear models look at, with boxes and numbers", "convirt.analysis.saliency.saliency:saliency", ("runs",)
    ),
    "loss-study": Verb(
        "downstream scores against the validation loss along a run",
        "convirt.analysis.studies.loss_study:loss_study",
        ("run",),
    ),
    "study": Verb(
        "a grid of runs with their evaluation, resumable and shared",
        "convirt.analysis.studies.study:study",
        ("definition",),
    ),
    "reproduce": Verb(
        "the paper's tables and figures, ours beside the paper's",
        "convirt.reproduce.reproduce:reproduce",
        ("tables",),
    ),
}


GROUPS = {
    "prepare": "turn images and reports into a corpus",
    "benchmark": "build a labelled benchmark with named splits",
}
"""What the verbs of two words that begin alike have in common."""


def usage() -> str:
    """What `convirt --help` prints."""
    return "\n".join(
        [
            "usage: convirt VERB [options]",
            "",
            "Contrastive learning of medical visual representations from paired images and reports (ConVIRT).",
            "Research software, not a medical device.",
            "",
            "verbs:",
            *_listed(VERBS),
            "",
            "`convirt VERB --help` explains a verb; `convirt --version` prints the version.",
        ]
    )


def group_usage(group: str) -> str:
    """What `convirt prepare --help` prints, and `convirt benchmark --help`."""
    lines = _listed(name for name in VERBS if name.startswith(f"{group} "))
    opening = [f"usage: convirt {group} NAME [options]", "", f"{GROUPS[group].capitalize()}.", "", "verbs:"]
    return "\n".join([*opening, *lines, "", f"`convirt {group} NAME --help` explains a verb."])


def _listed(names: Iterable[str]) -> list[str]:
    chosen = list(names)
    width = max(map(len, chosen)) + 2
    return [f"  {name:<{width}}{VERBS[name].summary}" for name in chosen]


def find_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line into the verb's name and the rest.

    Raises:
        InputError: No such verb.
    """
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in VERBS:
            return name, list(arguments[words:])
    group = f"{arguments[0]} " if arguments[0] in GROUPS else ""
    known = [name for name in VERBS if name.startswith(group)]
    given = " ".join(arguments[: 2 if group else 1])
    # Within a group the second word alone is mistaken; else the first, or both: `bencmark table`, `prepare-archive`.
    close = difflib.get_close_matches(given.removeprefix(group), [name.removeprefix(group) for name in known], n=1)
    if not group:
        close = (
            difflib.get_close_matches(" ".join(arguments[:2]), [name for name in known if " " in name], n=1) or close
        )
    meant = f" (did you mean {group}{close[0]}?)" if close else ""
    raise InputError(f"unknown verb {given!r}{meant}; known are {', '.join(known)}")


def _metavar(name: str) -> str:
    """`RUN [...]` for the argument `runs`, `CORPUS` for `corpus`."""
    return f"{name[:-1].upper()} [...]" if name.endswith("s") and name != "corpus" else name.upper()


def _binder(verb: Verb) -> Callable[..., tuple[Any, Any]]:
    """The verb's own arguments and docstring; a call only returns the arguments, for parsing must not run the verb."""

    def annotate(name: str, annotation: Any) -> Any:
        if name not in verb.positional:
            return annotation
        return Annotated[annotation, tyro.conf.Positional, tyro.conf.arg(metavar=_metavar(name))]

    module, function_name = verb.target.split(":")
    return bound_later(module, function_name, annotate)


def parse(target: Callable[..., Any], arguments: Sequence[str], *, prog: str, **options: Any) -> Any:
    """Parse arguments with tyro, its boxed error folded into one line.

    Args:
        target: A function or a dataclass.
        arguments: The command line after the verb.
        prog: What help calls the command.
        options: Passed to `tyro.cli`.

    Raises:
        InputError: The arguments do not fit.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, args=list(arguments), prog=prog, config=(tyro.conf.FlagCreatePairsOff,), **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(fold(complaint.getvalue(), prog)) from None


@dataclass(frozen=True, kw_only=True)
class PretrainArguments:
    """Pretrain by a recipe; each setting of the recipe can be overridden by its own option."""

    corpus: str
    """Folder of a prepared corpus, or folder or address (https://..., s3://...) of an exported one, to be streamed."""
    out: Path
    """Folder of the run: checkpoints, logs, configuration, metrics.json."""
    resume: bool = False
    """Go on with the run in --out from its last checkpoint, bit for bit as if it had never stopped."""
    dry_run: bool = False
    """Print the plan (parameters, steps, memory and time from a few measured steps) and write nothing."""
    verify: bool = False
    """Read the whole corpus first and compare all hashes. Without it small files are hashed, and the shards of a small
    corpus; of a larger one each shard is known by its size."""
    config: Annotated[PretrainConfig, tyro.conf.arg(name="")]


def pretrain_arguments(arguments: Sequence[str]) -> PretrainArguments:
    """Parse `RECIPE --corpus CORPUS --out RUN [overrides]`; the recipe's values are the defaults of the overrides.

    Raises:
        InputError: No such recipe or override, or a value that a setting refuses.
    """
    known = ", ".join(RECIPES)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        raise InputError(f"pretrain needs a recipe before its options; known are {known}")
    if arguments[0] in ("-h", "--help"):
        print(f"usage: convirt pretrain RECIPE --corpus CORPUS --out RUN [overrides]\n\nrecipes: {known}\n")
        print("`convirt pretrain RECIPE --help` lists every setting of a recipe with its value.")
        raise SystemExit(0)
    name, rest = arguments[0], arguments[1:]
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; known are {known}")
    default = PretrainArguments(corpus=tyro.MISSING, out=tyro.MISSING, config=RECIPES[name]())
    doc = inspect.getdoc(RECIPES[name])
    return parse(PretrainArguments, rest, prog=f"convirt pretrain {name}", description=doc, default=default)


def run_verb(arguments: Sequence[str]) -> None:
    """Run one verb.

    Args:
        arguments: The command line without the program's name.
    """
    if arguments[0] in GROUPS and (len(arguments) == 1 or arguments[1] in HELP):
        print(group_usage(arguments[0]))
        return
    name, rest = find_verb(arguments)
    module, function_name = VERBS[name].target.split(":")
    binder = PretrainArguments if name == "pretrain" else _binder(VERBS[name])
    try:
        if name == "pretrain":
            given = pretrain_arguments(rest)
            args: Sequence[Any] = (given.config, given.corpus, given.out)
            kwargs: dict[str, Any] = {"resume": given.resume, "dry_run": given.dry_run, "verify": given.verify}
        else:
            args, kwargs = parse(binder, rest, prog=f"convirt {name}")
        getattr(importlib.import_module(module), function_name)(*args, **kwargs)
    except InputError as error:
        raise InputError(spelled(str(error), option_names(binder))) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0, 2 after bad input (one line, no traceback), 130 and 143 after a stop signal."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in HELP:
        print(usage())
        return
    if arguments[0] == "--version":
        from convirt import __version__

        print(f"convirt {__version__}")
        return
    try:
        run_verb(arguments)
    except BrokenPipeError:  # `convirt ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except (InputError, OSError) as error:
        if os.environ.get(DEBUG) == "1":
            raise
        said = refusal(error) if isinstance(error, OSError) else str(error)
        print(f"convirt: error: {' '.join(said.split())}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        print("convirt: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
