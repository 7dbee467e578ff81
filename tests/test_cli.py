"""The command: quick to start, one line for every mistake, and documented as it is."""

import contextlib
import functools
import inspect
import io
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from convirt import __version__, cli
from convirt.config import OBJECTIVES
from convirt.recipes import RECIPES
from convirt.training import pretrain as pretrain_module
from convirt.wording import spelled

DOCS = Path(__file__).parents[1] / "docs"
KNOWN = ", ".join(RECIPES)


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False)


# The package installs `convirt` as a script that does just this.
COMMAND = "from convirt.cli import main; main()"


HEAVY = (
    "{'torch', 'torchvision', 'timm', 'transformers', 'pandas', 'pyarrow', 'datasets', 'sklearn', 'scipy', "
    "'matplotlib', 'PIL', 'pydicom'}"
)


@pytest.mark.parametrize(
    "call",
    [
        "main(['--help'])",
        "main(['--version'])",
        "main(['pretrain', '--help'])",
        "main(['pretrain', 'demo', '--help'])",
        "main(['pretrain', 'demo', '--no-such-option'])",
        "main(['pretrain', 'demmo'])",
    ],
)
def test_nothing_heavy_is_imported_for_help_or_a_mistake(call):
    done = python(
        "-c",
        "import contextlib, sys, convirt; from convirt.cli import main\n"
        f"with contextlib.suppress(SystemExit): {call}\n"
        f"loaded = {HEAVY} & set(sys.modules); assert not loaded, loaded",
    )
    assert done.returncode == 0, done.stderr


def test_the_help_of_each_verb_is_that_of_its_function():
    done = python(
        "-c",
        "import contextlib, sys; from convirt import cli\n"
        "for name in cli.VERBS:\n"
        "    with contextlib.suppress(SystemExit): cli.main([*name.split(), '--help'])\n"
        "    with contextlib.suppress(SystemExit): cli.main([*name.split(), '--no-such-option'])\n",
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.count("usage: convirt ") == len(cli.VERBS)


@pytest.mark.parametrize(
    "words", [["classify"], ["prepare", "archive"], ["prepare"], ["pretrain"], ["pretrain", "demo"]]
)
def test_help_before_a_verb_is_help_after_it(words, capsys):
    said = []
    for arguments in (["help", *words], [*words, "--help"]):
        with contextlib.suppress(SystemExit):
            cli.main(arguments)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
    cli.main(["help"])
    assert capsys.readouterr().out == cli.usage() + "\n"


def test_pretrain_lists_its_recipes_with_a_line_each(capsys):
    cli.main(["pretrain", "--help"])
    said = capsys.readouterr().out
    for name, recipe in RECIPES.items():
        assert re.search(rf"^  {name} +{re.escape(inspect.getdoc(recipe).splitlines()[0])}$", said, re.MULTILINE)
    assert "`small` suits a CPU" in said
    assert "tensorboard --logdir" in said


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
@pytest.mark.parametrize("group", ["prepare", "benchmark"])
def test_a_group_lists_its_verbs(group, arguments, capsys):
    cli.main([group, *arguments])
    said = capsys.readouterr().out
    assert f"usage: convirt {group} NAME" in said
    for name, verb in cli.VERBS.items():
        assert (f"  {name} " in said and verb.summary in said) == name.startswith(f"{group} ")
    assert set(cli.GROUPS) == {name.split()[0] for name in cli.VERBS if " " in name}


def test_settings_are_spelled_as_options_and_what_is_the_users_is_not():
    names = {"seeds", "table", "image_column", "size", "transform", "transform.size"}
    for message, said in {
        "seeds must be at least 1": "--seeds must be at least 1",
        "transform.size must be 2": "--transform.size must be 2",
        "transform.kind.x must be 2": "--transform.kind.x must be 2",
        "give image_column or its table": "give --image-column or its table",
        "table t.csv has no column 'image_column'": "table t.csv has no column 'image_column'",
        "no file a/image_column.csv, image_column.csv; see --image-column": (
            "no file a/image_column.csv, image_column.csv; see --image-column"
        ),
    }.items():
        assert spelled(message, names) == said


def test_help_names_every_verb_and_version_is_the_packages(capsys):
    cli.main([])
    said = capsys.readouterr().out
    assert all(f"  {name} " in said and verb.summary in said for name, verb in cli.VERBS.items())
    assert "not a medical device" in said
    places = [said.index(f"\n{stage}:\n") for stage in (*cli.STAGES, "use")]
    assert places == sorted(places)
    cli.main(["--version"])
    assert capsys.readouterr().out == f"convirt {__version__}\n"


CLASSIFY = ["classify", "run", "--table", "t", "--images", "i", "--out", "o"]
RETRIEVE = ["retrieve", *CLASSIFY[1:]]
PREPARE = ["prepare", "archive", "--images", "i", "--table", "t", "--image-column", "a", "--text-column", "b"]
PREPARE += ["--patient-column", "c", "--out", "o"]
PRETRAIN = ["pretrain", "paper_chest", "--corpus", "corpus", "--out", "run"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "unknown verb 'bogus'; known are demo, phantom"),
        (["clasify", "run"], "unknown verb 'clasify' (did you mean classify?); known are demo, "),
        (["bencmark", "table"], "unknown verb 'bencmark' (did you mean benchmark table?)"),
        (["prepare", "archiv"], "unknown verb 'prepare archiv' (did you mean prepare archive?)"),
        (["prepare", "bogus"], "unknown verb 'prepare bogus'; known are prepare archive"),
        (["pretrain"], f"pretrain needs a recipe before its options; known are {KNOWN}"),
        (["pretrain", "--corpus", "corpus"], "pretrain needs a recipe"),
        (["pretrain", "demmo"], "unknown recipe 'demmo' (did you mean demo?); known are "),
        (["pretrain", "bogus"], f"unknown recipe 'bogus'; known are {KNOWN}"),
        (["pretrain", "demo"], "missing --corpus, --out; see convirt pretrain demo --help"),
        ([*PRETRAIN[:4]], "missing --out; see convirt pretrain paper_chest --help"),
        ([*PRETRAIN, "--optimiser.learning-rat", "1"], "--optimiser.learning-rat"),
        ([*PRETRAIN, "--optimiser.learning-rate", "fast"], "--optimiser.learning-rate: not a number: 'fast'"),
        ([*PRETRAIN, "--transform.crop", "0.5"], "--transform.crop"),
        ([*PRETRAIN, "--transform.crop", "0.5", "x"], "--transform.crop: 'x' is not a number"),
        ([*PRETRAIN, "--validation.every", "x"], "--validation.every: 'x' is not a number"),
        ([*PRETRAIN, "--validation.every", "1.5"], "--validation.every must be at least 1 steps, or a share of the"),
        ([*PRETRAIN, "--transform.size", "3"], "--transform.size must be at least 16, got 3"),
        ([*PRETRAIN, "--objective.weight", "2"], "--objective.weight must lie in [0, 1], got 2.0"),
        ([*PRETRAIN, "--device", "tpu"], "invalid choice 'tpu'"),
        ([*PRETRAIN, "--method", "bogus"], f"method 'bogus' is unknown; known are {', '.join(OBJECTIVES)}"),
        ([*PRETRAIN], "corpus is not a prepared corpus (it has no corpus.json); prepare one"),
        (["prepare", "archive"], "missing --images, --table, --image-column, --text-column, --patient-column, --out"),
        (["prepare", "archive", "--images"], "--images"),
        (["phantom", "--out", "x", "--patients", "many"], "--patients: not a whole number: 'many'"),
        (["phantom", "--out", "x", "--patients", "1"], "patients >= 10"),
        (["classify", "run"], "missing --out, --table; see convirt classify --help"),
        (["classify", "run", "--table", "t", "--images", "i", "--out", "o", "--heads", "svm"], "invalid choice 'svm'"),
        ([*CLASSIFY[:2], "--table", ".", "--images", "i", "--out", "o"], "benchmark"),
        ([*CLASSIFY], "no such file or folder: t; --table names a CSV"),
        ([*CLASSIFY, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        ([*CLASSIFY, "--max-epochs", "0"], "--max-epochs must be at least 1, got 0"),
        ([*CLASSIFY, "--seeds", "0"], "--seeds must be at least 1, got 0"),
        ([*CLASSIFY, "--device", "tpu"], "invalid choice 'tpu'"),
        ([*CLASSIFY, "--fractions", "0.1", "abc"], "--fractions: 'abc' is not a number; see convirt classify --help"),
        ([*RETRIEVE, "--ks", "five"], "--ks: 'five' is not a whole number; see convirt retrieve --help"),
        ([*RETRIEVE, "--ks", "5", "0"], "--ks must be at least 1, got 0"),
        ([*RETRIEVE, "--recall-ks", "0"], "--recall-ks must be at least 1, got 0"),
        ([*RETRIEVE, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        ([*PREPARE, "--image-size", "3"], "--image-size must be at least 16, got 3"),
        ([*PREPARE, "--max-failures", "2"], "--max-failures is a share between 0 and 1, got 2.0"),
        (["demo", "--ful"], "did you mean --full?"),
        (["demo", "extra"], "extra"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_leaves_nothing(arguments, said, capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == cli.USAGE_ERROR == 2
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("convirt: error: ")
    assert error.count("\n") == 1
    assert error.endswith("\n")
    assert said in error
    assert not any(mark in error for mark in ("Traceback", "────", "│", "\x1b"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [PRETRAIN[:2], [*PRETRAIN, "--transform.size", "3"]])
def test_a_terminal_without_line_characters_gets_the_same_line(arguments, monkeypatch, capfd):
    said = []
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
        with pytest.raises(SystemExit):
            cli.main(arguments)
        said.append(capfd.readouterr().err)
    assert said[0] == said[1]


def test_the_status_reaches_the_shell():
    done = python("-c", COMMAND, "pretrain", "bogus")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [f"convirt: error: unknown recipe 'bogus'; known are {KNOWN}"]


def test_the_traceback_is_there_for_those_who_ask(monkeypatch):
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(cli.InputError, match="unknown verb"):
        cli.main(["bogus"])


def test_interruption_has_its_own_status(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_verb", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["demo"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "convirt: interrupted\n"


def test_the_recipe_gives_the_defaults_and_options_override_them(monkeypatch):
    @functools.wraps(pretrain_module.pretrain)
    def note(**arguments):
        given.update(arguments)

    given = {}
    monkeypatch.setattr(pretrain_module, "pretrain", note)
    changes = "--transform.flip 0 --transform.crop 0.5 0.9 --optimiser.cosine-steps 1.0 --validation.every 7"
    cli.main(["pretrain", "demo", "--corpus", "c", "--out", "o", "--resume", *changes.split()])
    recipe, config = RECIPES["demo"](), given.pop("config")
    assert given == {"corpus": "c", "out": Path("o"), "resume": True, "dry_run": False, "verify": False}
    assert config.transform.flip == 0
    assert config.transform.crop == (0.5, 0.9)
    assert config.text_encoder == recipe.text_encoder
    steps = config.optimiser.cosine_steps, config.validation.every
    assert [(type(value), value) for value in steps] == [(float, 1.0), (int, 7)]


def test_docs_cli_is_what_the_command_says(monkeypatch):
    made = runpy.run_path(str(DOCS / "make_cli.py"))["page"]()
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == made, "run `python docs/make_cli.py`"
    # Neither the width of the terminal nor a wish for colour shows.
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert runpy.run_path(str(DOCS / "make_cli.py"))["page"]() == made


def test_every_verb_and_environment_variable_is_documented():
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert all(f"## `convirt {name}`" in page for name in cli.VERBS)
    source = "\n".join(path.read_text() for path in Path(cli.__file__).parent.rglob("*.py"))
    named = set(re.findall(r"os\.environ\.get\(([^),]+)", source))
    ours = set(re.findall(r'"(CONVIRT_[A-Z_]+)"', source))
    assert named == {"DEBUG", "SALT", "CACHE", "CACHE_GIB", '"RAY_ADDRESS"'}, "a variable that docs/make_cli.py lacks"
    assert {name for name in ours if f"`{name}`" not in page} == set()
    assert "`RAY_ADDRESS`" in page
