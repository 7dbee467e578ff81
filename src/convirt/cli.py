"""The command `convirt`: finds the verb, builds its arguments from types and docstrings, and calls one function.

Nothing heavy is imported before a verb is known, so that `convirt --help` answers at once.
"""

import contextlib
import functools
import importlib
import inspect
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import tyro

from convirt.config import PretrainConfig
from convirt.errors import InputError
from convirt.recipes import RECIPES

USAGE_ERROR = 2
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
        "convirt.evaluation.classification.classify:classify",
        ("runs",),
    ),
    "zero-shot": Verb(
        "classification from prompts alone, by runs with a shared space",
        "convirt.evaluation.zero_shot.zero_shot:zero_shot",
        ("runs",),
    ),
    "finetune": Verb(
        "train an encoder further on labels and keep it as a checkpoint",
        "convirt.evaluation.classification.finetune:finetune",
        ("run",),
    ),
    "retrieve": Verb(
        "image-image and text-image retrieval by runs", "convirt.evaluation.retrieval.retrieve:retrieve", ("runs",)
    ),
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


def usage() -> str:
    """What `convirt --help` prints."""
    width = max(map(len, VERBS)) + 2
    lines = [f"  {name:<{width}}{verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: convirt VERB [options]",
            "",
            "Contrastive learning of medical visual representations from paired images and reports (ConVIRT).",
            "Research software, not a medical device.",
            "",
            "verbs:",
            *lines,
            "",
            "`convirt VERB --help` explains a verb; `convirt --version` prints the version.",
        ]
    )


def find_verb(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split a command line into the verb's name and the rest.

    Raises:
        InputError: No such verb.
    """
    for words in (2, 1):
        name = " ".join(arguments[:words])
        if name in VERBS:
            return name, list(arguments[words:])
    given = arguments[0]
    below = [name for name in VERBS if name.startswith(f"{given} ")]
    known = ", ".join(below or VERBS)
    raise InputError(f"unknown verb {' '.join(arguments[:2]) if below else given!r}; known are {known}")


def _metavar(name: str) -> str:
    """`RUN [...]` for the argument `runs`, `CORPUS` for `corpus`."""
    return f"{name[:-1].upper()} [...]" if name.endswith("s") and name != "corpus" else name.upper()


def _deferred(function: Callable[..., Any], positional: tuple[str, ...]) -> Callable[..., Callable[[], Any]]:
    """The function's own arguments and docstring, but a call only binds them: parsing must not run the verb."""
    hints = get_type_hints(function, include_extras=True)
    parameters = [
        parameter.replace(
            annotation=Annotated[hints[name], tyro.conf.Positional, tyro.conf.arg(metavar=_metavar(name))]
            if name in positional
            else hints[name]
        )
        for name, parameter in inspect.signature(function).parameters.items()
    ]

    @functools.wraps(function)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return functools.partial(function, *args, **kwargs)

    del bind.__wrapped__  # type: ignore[attr-defined]
    bind.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    bind.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return bind


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


def fold(boxed: str, prog: str) -> str:
    """Make one line of tyro's boxed, coloured error: what is wrong, and where to read more."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", boxed)
    lines = [re.sub(r"^[│╭╰]\s?|\s*[│╮╯]$", "", line).rstrip() for line in text.splitlines()]
    # Where standard output has no line characters, a rule also stands between the title and what is wrong.
    is_rule = re.compile(r"\s*[─-]{4,}\s*").fullmatch
    head = list(itertools.takewhile(lambda line: not is_rule(line), itertools.dropwhile(is_rule, lines[1:])))
    said = " ".join(line.strip() for line in head)
    if "Missing from" in said:
        missing = [word for line in head for word in re.findall(r"^\s*(--[\w.-]+|[A-Z_]+ \[.*?\])", line)]
        said = f"missing {', '.join(missing)}" if missing else said
    if close := re.search(r"Perhaps you meant:\s*(--[\w.-]+)", " ".join(lines)):
        said += f" (did you mean {close[1]}?)"
    said = re.sub(r"Error parsing ([\w.-]+): ", r"\1: ", said)
    said = re.sub(r"(--)?config\.", r"\1", re.sub(r"\s*Argument helptext:.*", "", said))
    return f"{said.rstrip('.')}; see {prog} --help"


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
    name, rest = find_verb(arguments)
    verb = VERBS[name]
    if name == "pretrain":
        given = pretrain_arguments(rest)
    module, function_name = verb.target.split(":")
    function = getattr(importlib.import_module(module), function_name)
    if name == "pretrain":
        function(given.config, given.corpus, given.out, resume=given.resume, dry_run=given.dry_run)
    else:
        parse(_deferred(function, verb.positional), rest, prog=f"convirt {name}")()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0, 2 after bad input (one line, no traceback), 130 and 143 after a stop signal."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
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
        print(f"convirt: error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None
    except KeyboardInterrupt:
        print("convirt: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
