"""A run that is stopped at any moment and resumed ends as if it had never stopped."""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import read_log
from convirt.config import PretrainConfig, ValidationConfig
from stopping import MOMENTS, train

TIMES = {"pairs_per_s", "seconds"}
STEPS = 44


def without_times(run: Path) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in read_log(run)]


@pytest.fixture
def config(tiny_config: Callable[..., PretrainConfig]) -> PretrainConfig:
    rule = ValidationConfig(every=6, pairs=16, patience=1, max_evaluations=20)
    return tiny_config(max_steps=STEPS, checkpoint_every=4, validation=rule)


def test_stopped_ten_times_and_resumed_is_bit_identical(
    config: PretrainConfig, tiny_corpus: Path, tmp_path: Path
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(config, tiny_corpus, whole) == 0
    chosen = random.Random(4)
    stops = sorted(chosen.sample(range(1, STEPS - 6), 10))
    stops[0] = 2  # before the first checkpoint
    moments = [*MOMENTS, "killed after a step"]
    chosen.shuffle(moments)
    moments[0], moments[moments.index("killed after a step")] = "killed after a step", moments[0]
    for moment, step in zip(moments, stops, strict=True):
        number, _ = MOMENTS[moment]
        code = train(config, tiny_corpus, parts, moment, step)
        assert code == (-number if number == signal.SIGKILL else 128 + number), (moment, step)
        if number != signal.SIGKILL:
            said = Path(f"{parts}.stdout").read_text()
            assert "--resume" in said
            assert signal.Signals(number).name in said
        assert not (parts / "metrics.json").exists()
    assert train(config, tiny_corpus, parts) == 0
    for file in ("last/model.safetensors", "last/optimiser.safetensors", "best/model.safetensors"):
        assert (whole / file).read_bytes() == (parts / file).read_bytes(), file
    rows = without_times(parts)
    assert rows == without_times(whole)
    assert [row["step"] for row in rows if row["event"] == "step"] == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows if row["event"] == "validation"] == [6, 12, 18, 24, 30, 36, 42, 44]
    # Nothing of a broken-off write stays behind.
    assert not list(parts.rglob(".*"))
    assert sorted(path.name for path in parts.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_workers_may_change_and_a_finished_run_may_be_resumed(
    config: PretrainConfig, tiny_corpus: Path, tmp_path: Path, tiny_config: Callable[..., PretrainConfig]
) -> None:
    import dataclasses

    short = dataclasses.replace(config, max_steps=12)
    one, two = tmp_path / "one", tmp_path / "two"
    assert train(short, tiny_corpus, one) == 0
    assert train(dataclasses.replace(short, workers=2), tiny_corpus, two, "SIGTERM after a step", 5) == 143
    assert train(short, tiny_corpus, two) == 0
    assert (one / "last/model.safetensors").read_bytes() == (two / "last/model.safetensors").read_bytes()
    before = without_times(two)
    assert train(short, tiny_corpus, two) == 0
    assert without_times(two) == before
    longer = dataclasses.replace(short, max_steps=18)
    assert train(longer, tiny_corpus, two) == 0
    assert [row["step"] for row in without_times(two) if row["event"] == "step"] == list(range(1, 19))
