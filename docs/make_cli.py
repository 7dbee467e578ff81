"""Writes docs/cli.md from what the command itself says: `python docs/make_cli.py`. A test compares the two."""

import contextlib
import io
import os
from pathlib import Path
from unittest import mock

from convirt import cli
from convirt.data.http import PASSWORD, TOKEN, USER
from convirt.data.loading.remote import CACHE, CACHE_GIB
from convirt.data.preparing.identities import SALT

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
"""Columns that help is laid out in; otherwise it would depend on the terminal."""

OPENING = """\
<!-- Written by docs/make_cli.py; do not edit. -->
# The command `convirt`

Options are made from the types and docstrings of the functions that they call, so this page is what `--help` prints.

The exit status is 0 after success, 2 after bad input (one line on standard error says what is wrong and what to do),
130 after Ctrl-C and 143 after SIGTERM. A pretraining run that is stopped so is saved, and goes on with `--resume`.
"""

ENVIRONMENT = f"""\
## Environment variables

| variable | effect |
|---|---|
| `{cli.DEBUG}` | set to `1`: errors are shown with their traceback |
| `{SALT}` | secret of hashed ids; corpora made with one salt can be compared patient by patient |
| `{USER}`, `{PASSWORD}` | credentials of `prepare dicomweb` |
| `{TOKEN}` | bearer token of `prepare dicomweb`, instead of user and password |
| `{CACHE}` | folder that streamed corpora are cached in; unset: no cache |
| `{CACHE_GIB}` | largest size of that cache, GiB (default 50) |

The libraries below have variables of their own. These are the ones that matter here:

| variable | effect |
|---|---|
| `HF_HOME` | where the Hugging Face hub's cache lies, in which `hub` weights are looked for first |
| `HF_HUB_OFFLINE` | set to `1`: the hub is never asked |
| `REQUESTS_CA_BUNDLE` | certificate authority that `prepare dicomweb` and downloads trust |
| `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY` | proxy of `prepare dicomweb` and downloads |
| `RAY_ADDRESS` | Ray cluster of `--engine ray`; unset: one is started on this machine |
| `OMP_NUM_THREADS` | processor threads that PyTorch takes |
| `CUDA_VISIBLE_DEVICES` | GPUs that PyTorch sees |
"""


def help_of(arguments: list[str]) -> str:
    """What `convirt ARGUMENTS` prints, laid out in `WIDTH` columns without colour."""
    said = io.StringIO()
    # Not a terminal, hence no colour; COLUMNS is what the layout of help asks first.
    with (
        mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)}),
        contextlib.redirect_stdout(said),
        contextlib.suppress(SystemExit),
    ):
        cli.main(arguments)
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def section(title: str, arguments: list[str]) -> str:
    """One heading with the help below it."""
    return f"## {title}\n\n```text\n$ convirt {' '.join(arguments)}\n{help_of(arguments)}\n```\n"


def page() -> str:
    """The whole of docs/cli.md."""
    parts = [OPENING, section("Overview", ["--help"])]
    for name in cli.VERBS:
        parts.append(section(f"`convirt {name}`", [*name.split(), "--help"]))
        if name == "pretrain":
            parts.append(
                "The other recipes have the same options with other defaults: `convirt pretrain demo --help`.\n"
            )
            parts.append(section("`convirt pretrain paper_chest`", ["pretrain", "paper_chest", "--help"]))
    return "\n".join([*parts, ENVIRONMENT])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
