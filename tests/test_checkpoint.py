"""Checkpoints: whole or absent, and one clear line when they are damaged or the disk is full."""

import errno
import json
import os
import resource
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from convirt import model
from convirt.atomic import atomic_folder, latest_complete, write_json
from convirt.config import PretrainConfig
from convirt.data.corpora import Corpus
from convirt.data.loading.loader import TrainingBatches
from convirt.errors import InputError
from convirt.methods import METHODS
from convirt.training import checkpoint
from convirt.training.checkpoint import read_config
from convirt.training.pretrain import pretrain
from convirt.training.trainer import Trainer, make_fabric


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be spoilt."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture
def trainer(tiny_config: Callable[..., PretrainConfig], tiny_corpus: Path) -> Trainer:
    config = tiny_config()
    trainer = Trainer(METHODS["convirt"](config), config, make_fabric(config))
    trainer.train_step(TrainingBatches(Corpus.open(tiny_corpus), 8, 0)[0])
    return trainer


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_holds_no_pickle(tiny_run: Path) -> None:
    for folder in ("best", "last"):
        suffixes = {path.suffix for path in (tiny_run / folder).rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors", ".txt"}


def test_state_comes_back_bit_for_bit(trainer: Trainer, tmp_path: Path) -> None:
    trainer.save(tmp_path / "last", resumable={"log_size": 7})
    config = trainer.config
    again = Trainer(METHODS["convirt"](config, folder=tmp_path / "last"), config, make_fabric(config))
    assert again.restore(tmp_path / "last")["log_size"] == 7
    assert again.step == 1
    assert again.plateau == trainer.plateau
    assert {name: value.tolist() for name, value in again.method.state_dict().items()} == {
        name: value.tolist() for name, value in trainer.method.state_dict().items()
    }
    pairs = zip(trainer.method.parameters_to_train().items(), again.method.parameters_to_train().items(), strict=True)
    for (name, before), (name_again, after) in pairs:
        assert name == name_again
        for key, value in trainer.optimiser.state[before].items():
            restored = again.optimiser.state[after][key]
            assert torch.equal(value, restored), (name, key)
            assert value.stride() == restored.stride(), (name, key)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with atomic_folder(folder, replace=True) as new:
        (new / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(folder, replace=True) as new:
        (new / "a").write_text(str(1 / 0))
    assert (folder / "a").read_text() == "1"
    with atomic_folder(folder, replace=True) as new:
        (new / "b").write_text("3")
    assert contents(folder) == {"b": b"3"}
    assert list(tmp_path.iterdir()) == [folder]


def test_the_predecessor_stands_in_after_a_kill_in_the_swap(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    assert latest_complete(folder) is None
    (tmp_path / ".c.old").mkdir()
    (tmp_path / ".c.old" / "a").write_text("1")
    (tmp_path / ".c.0123.part").mkdir()
    assert latest_complete(folder) == tmp_path / ".c.old"
    with pytest.raises(RuntimeError), atomic_folder(folder, replace=True):
        raise RuntimeError
    assert contents(folder) == {"a": b"1"}
    assert list(tmp_path.iterdir()) == [folder]


def test_json_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [tmp_path / "a.json"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut short": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"\xff\xfe{not json" * 50),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "image_encoder.json", "text_encoder/config.json"])
def test_a_damaged_checkpoint_is_named_in_one_line(run: Path, file: str, damage: str) -> None:
    DAMAGE[damage](run / "best" / file)
    with pytest.raises(InputError) as error:
        model.load(run)
    assert str(run) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", ["optimiser.safetensors", "state.json", "model.safetensors"])
def test_a_damaged_checkpoint_is_not_resumed(
    run: Path, tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], file: str, damage: str
) -> None:
    DAMAGE[damage](run / "last" / file)
    before = contents(run)
    with pytest.raises(InputError) as error:
        pretrain(tiny_config(), tiny_corpus, run, resume=True)
    assert str(run) in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(run) == before


def test_weights_of_another_model_are_refused(run: Path) -> None:
    config = json.loads((run / "best/config.json").read_text())
    config["projection"]["dim"] = 24
    (run / "best/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="weights do not fit"):
        model.load(run)


def test_unknown_settings_and_formats_are_refused(run: Path) -> None:
    config = json.loads((run / "best/config.json").read_text())
    (run / "best/config.json").write_text(json.dumps({**config, "colour": 1}))
    with pytest.raises(InputError, match="unknown setting 'colour'"):
        read_config(run / "best")
    (run / "last/state.json").write_text('{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        checkpoint.read_state(run / "last")


@pytest.fixture
def small_files() -> Iterator[None]:
    """A limit on the size of files, which meets a writer as a full disk does: in the middle."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_refuses_leaves_the_previous_checkpoint(trainer: Trainer, run: Path, small_files: None) -> None:
    before = contents(run / "last")
    with pytest.raises(InputError, match=r"cannot write the checkpoint .*before it is intact.*--resume") as error:
        trainer.save(run / "last", resumable={"log_size": 0})
    assert "\n" not in str(error.value)
    assert contents(run / "last") == before
    assert not list(run.glob(".*"))


def test_a_full_disk_ends_a_run_with_one_line_and_it_resumes(
    tiny_corpus: Path,
    tiny_config: Callable[..., PretrainConfig],
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, calls = checkpoint.write_tensors, []

    def full(path: Path, tensors: dict[str, Any]) -> None:
        calls.append(path)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    run = tmp_path / "run"
    with pytest.raises(InputError, match="No space left on device"):
        pretrain(tiny_config(), tiny_corpus, run)
    assert read_config(run / "last") == tiny_config()
    monkeypatch.setattr(checkpoint, "write_tensors", write)
    pretrain(tiny_config(), tiny_corpus, run, resume=True)
    assert contents(run / "last")["model.safetensors"] == contents(tiny_run / "last")["model.safetensors"]


def test_a_full_disk_is_named_when_the_log_meets_it_first(
    tiny_corpus: Path, tiny_config: Callable[..., PretrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from convirt.training.logs import RunLog

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunLog, "row", full)
    with pytest.raises(InputError, match=r"the disk is full \(\d+ MiB free\)"):
        pretrain(tiny_config(), tiny_corpus, tmp_path / "run")


def test_the_files_of_a_checkpoint_have_the_rights_that_the_umask_leaves(tiny_run: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in (*(tiny_run / "best").glob("*.*"), *(tiny_run / "last").glob("*.*")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask, path
