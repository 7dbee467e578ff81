"""The command `convirt`: finds the verb, builds its arguments from types and docstrings, and calls one function.

The module of a verb imports nothing heavy at its top level, so that help and mistakes in the arguments come at once.
"""

import contextlib
import difflib
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from convirt.atomic import refusal
from convirt.errors import InputError
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


STAGES: dict[str, dict[str, Verb]] = {
    "start here": {
        "demo": Verb("the main job on the embedded phantom archive, with a report to look at", "convirt.demo:demo"),
    },
    "data": {
        "phantom": Verb("write an archive of phantom radiographs with reports", "convirt.data.phantom.boxes:phantom"),
        "prepare archive": Verb(
            "turn a folder of images and a table of reports into a corpus",
            "convirt.data.preparing.archive:prepare_archive",
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
            "convirt.data.benchmarks.chexpert:benchmark_chexpert8x200",
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
    },
    "train": {
        "pretrain": Verb("pretrain on a corpus by a recipe", "convirt.training.pretrain:pretrain"),
        "finetune": Verb(
            "train an encoder further on labels and keep it as a checkpoint",
            "convirt.evaluation.finetune:finetune",
            ("run",),
        ),
    },
    "evaluate": {
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
        "retrieve": Verb(
            "image-image and text-image retrieval by runs", "convirt.evaluation.retrieve:retrieve", ("runs",)
        ),
    },
    "analyse": {
        "tsne": Verb(
            "images of chosen categories in a plane, before and after pretraining",
            "convirt.analysis.embedding.tsne:tsne",
            ("runs",),
        ),
        "saliency": Verb(
            "what linear models look at, with boxes and numbers",
            "convirt.analysis.saliency.saliency:saliency",
            ("runs",),
        ),
        "loss-study": Verb(
            "downstream scores against the validation loss along a run",
            "convirt.analysis.studies.loss_study:loss_study",
            ("run",),
        ),
        "study": Verb(
            "a grid of runs with their evaluation; goes on where it was stopped",
            "convirt.analysis.studies.study:study",
            ("definition",),
        ),
        "reproduce": Verb(
            "the paper's tables and figures, ours beside the paper's",
            "convirt.reproduce.reproduce:reproduce",
            ("tables",),
        ),
    },
    "use": {
        "embed": Verb("vectors of images and texts as a Parquet file", "convirt.search.verbs:embed", ("run",)),
        "index": Verb("make a corpus searchable with a run", "convirt.search.verbs:index", ("run", "corpus")),
        "search": Verb("search an index by sentence, by image, or by both", "convirt.search.verbs:search", ("index",)),
    },
}
"""The verbs by what they are for, in the order in which a user meets them."""
VERBS = {name: verb for verbs in STAGES.values() for name, verb in verbs.items()}


SOURCES = "(A), (2.3) and the like: where the ConVIRT paper fixes a value. (silent): it does not say."
GROUPS = {
    "prepare": "turn images and reports into a corpus",
    "benchmark": "build a labelled benchmark with named splits",
}
"""What the verbs of two words that begin alike have in common."""


def usage() -> str:
    """What `convirt --help` prints."""
    width = max(map(len, VERBS)) + 2
    lines = [
        "usage: convirt VERB [options]",
        "",
        "Contrastive learning of medical visual representations from paired images and reports (ConVIRT).",
        "Research software, not a medical device.",
    ]
    for stage, verbs in STAGES.items():
        lines += ["", f"{stage}:", *_listed({name: verb.summary for name, verb in verbs.items()}, width)]
    lines += [*_listed({"convirt.load(RUN)": "images and texts to vectors, in Python"}, width), ""]
    return "\n".join([*lines, "`convirt VERB --help` explains a verb; `convirt --version` prints the version."])


def group_usage(group: str) -> str:
    """What `convirt prepare --help` prints, and `convirt benchmark --help`."""
    lines = _listed({name: verb.summary for name, verb in VERBS.items() if name.startswith(f"{group} ")})
    opening = [f"usage: convirt {group} NAME [options]", "", f"{GROUPS[group].capitalize()}.", "", "verbs:"]
    return "\n".join([*opening, *lines, "", f"`convirt {group} NAME --help` explains a verb."])


def recipes_usage() -> str:
    """What `convirt pretrain --help` prints."""
    from convirt.recipes import RECIPES

    lines = [
        "usage: convirt pretrain RECIPE --corpus CORPUS --out RUN [overrides]",
        "",
        "recipes:",
        *_listed({name: (inspect.getdoc(recipe) or "").splitlines()[0] for name, recipe in RECIPES.items()}),
        "",
        "`small` suits a CPU and a small corpus; the recipes of papers are meant for a GPU and some 200,000 pairs.",
        "`--dry-run` measures a few steps and tells what a run would take.",
        "The run folder holds checkpoints, log.jsonl and tensorboard/, which `tensorboard --logdir RUN` shows.",
        "`convirt pretrain RECIPE --help` lists every setting of a recipe with its value.",
    ]
    return "\n".join(lines)


def _listed(summaries: Mapping[str, str], width: int = 0) -> list[str]:
    width = width or max(map(len, summaries)) + 2
    return [f"  {name:<{width}}{summary}" for name, summary in summaries.items()]


def did_you_mean(given: str, known: Iterable[str], before: str = "") -> str:
    """A remark that names the closest of the known words, or nothing if none is close."""
    close = difflib.get_close_matches(given, list(known), n=1)
    return f" (did you mean {before}{close[0]}?)" if close else ""


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
    meant = did_you_mean(given.removeprefix(group), [name.removeprefix(group) for name in known], group)
    if not group:
        meant = did_you_mean(" ".join(arguments[:2]), [name for name in known if " " in name]) or meant
    raise InputError(f"unknown verb {given!r}{meant}; known are {', '.join(known)}")


def _metavar(name: str) -> str:
    """`RUN [...]` for the argument `runs`, `CORPUS` for `corpus`."""
    return f"{name[:-1].upper()} [...]" if name.endswith("s") and name != "corpus" else name.upper()


def _arguments_of(function: Callable[..., Any], positional: Sequence[str] = ()) -> Callable[..., dict[str, Any]]:
    """A function with a verb's arguments and docstring, which returns what it is given: parsing must run nothing."""
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in positional:
            place = tyro.conf.arg(metavar=_metavar(parameter.name))
            annotation: Any = Annotated[parameter.annotation, tyro.conf.Positional, place]  # type: ignore[name-defined]
            parameter = parameter.replace(annotation=annotation)
        elif parameter.default is True:  # the option is --no-NAME
            off = tyro.conf.arg(help_behavior_hint="(default: not given)")
            parameter = parameter.replace(annotation=Annotated[parameter.annotation, off])  # type: ignore[name-defined]
        parameters.append(parameter)

    def arguments(**given: Any) -> dict[str, Any]:
        return given

    arguments.__name__, arguments.__doc__ = function.__name__, function.__doc__
    arguments.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    arguments.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return arguments


def _of_recipe(function: Callable[..., Any], recipe: Callable[[], Any]) -> Callable[..., dict[str, Any]]:
    """The arguments of `pretrain`: its configuration comes last, with the recipe's values as defaults."""
    binder = _arguments_of(function)
    config, *rest = inspect.signature(binder).parameters.values()
    annotation: Any = Annotated[config.annotation, tyro.conf.arg(name="")]  # type: ignore[name-defined]
    rest = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in rest]
    rest.append(config.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=recipe(), annotation=annotation))
    binder.__signature__ = inspect.Signature(rest)  # type: ignore[attr-defined]
    binder.__annotations__ = {parameter.name: parameter.annotation for parameter in rest}
    return binder


def parse(target: Callable[..., Any], arguments: Sequence[str], *, prog: str, description: str | None = None) -> Any:
    """Parse arguments with tyro, its boxed error folded into one line.

    Args:
        target: A function.
        arguments: The command line after the verb.
        prog: What help calls the command.
        description: What help says first; None for the docstring of the function.

    Raises:
        InputError: The arguments do not fit.
    """
    complaint, options = io.StringIO(), (tyro.conf.FlagCreatePairsOff,)
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, args=list(arguments), prog=prog, config=options, description=description)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(fold(complaint.getvalue(), prog)) from None


def recipe_of(arguments: Sequence[str]) -> str:
    """The recipe that the arguments of `pretrain` begin with.

    Raises:
        InputError: There is none, or no such recipe.
    """
    from convirt.recipes import RECIPES

    known = ", ".join(RECIPES)
    if not arguments or arguments[0].startswith("-"):
        raise InputError(f"pretrain needs a recipe before its options; known are {known}")
    if arguments[0] not in RECIPES:
        raise InputError(f"unknown recipe {arguments[0]!r}{did_you_mean(arguments[0], RECIPES)}; known are {known}")
    return arguments[0]


def run_verb(arguments: Sequence[str]) -> None:
    """Run one verb.

    Args:
        arguments: The command line without the program's name.
    """
    if arguments[0] in GROUPS and (len(arguments) == 1 or arguments[1] in HELP):
        print(group_usage(arguments[0]))
        return
    name, rest = find_verb(arguments)
    if name == "pretrain" and rest[:1] and rest[0] in HELP:
        print(recipes_usage())
        return
    prog, description = f"convirt {name}", None
    if name == "pretrain":
        from convirt.recipes import RECIPES

        recipe = RECIPES[recipe_of(rest)]
        prog, description = f"{prog} {rest.pop(0)}", f"{inspect.getdoc(recipe)}\n\n{SOURCES}"
    module, function_name = VERBS[name].target.split(":")
    function = getattr(importlib.import_module(module), function_name)
    binder = _of_recipe(function, recipe) if name == "pretrain" else _arguments_of(function, VERBS[name].positional)
    try:
        function(**parse(binder, rest, prog=prog, description=description))
    except InputError as error:
        raise InputError(spelled(str(error), option_names(binder))) from error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: exit status 0, 2 after bad input (one line, no traceback), 130 and 143 after a stop signal."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["help"]:  # `convirt help classify` is `convirt classify --help`
        arguments = [*arguments[1:], "--help"]
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
