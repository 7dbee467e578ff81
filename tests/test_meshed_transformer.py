"""Caption-Transformer: the equations of the Meshed-Memory Transformer, re-derived with loops in float64."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from convirt.methods.captioning.meshed_transformer import Attention, MeshedMemoryTransformer, sinusoids
from convirt.methods.captioning.vocabulary import START
from tiny_captioners import TRANSFORMER, linear, sigmoid


def naive_attention(
    module: Attention, x: list[list[float]], source: list[list[float]], visible: Callable[[int, int], bool]
) -> list[list[float]]:
    """Equations 1 and 2 of Cornia et al., head by head, with the slots after the keys of `source`."""
    keys, values = [linear(module.key, row) for row in source], [linear(module.value, row) for row in source]
    if module.memories:
        keys, values = keys + module.memory_keys.tolist(), values + module.memory_values.tolist()
    width = len(keys[0])
    size = width // module.heads
    found = []
    for t, row in enumerate(x):
        query, joined = linear(module.query, row), []
        for head in range(module.heads):
            part = range(head * size, (head + 1) * size)
            scores = {
                s: math.exp(sum(query[d] * key[d] for d in part) / math.sqrt(size))
                for s, key in enumerate(keys)
                if s >= len(source) or visible(t, s)
            }
            total = sum(scores.values())
            joined += [sum(weight / total * values[s][d] for s, weight in scores.items()) for d in part]
        found.append(linear(module.out, joined))
    return found


def add_norm(module: torch.nn.Module, x: list[float], change: list[float]) -> list[float]:
    norm = module.norm
    values = [a + b for a, b in zip(x, change, strict=True)]
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + norm.eps)
    weight, bias = norm.weight.tolist(), norm.bias.tolist()
    return [(v - mean) / deviation * w + b for v, w, b in zip(values, weight, bias, strict=True)]


def feed_forward(module: torch.nn.Module, x: list[float]) -> list[float]:
    inner = [max(0.0, v) for v in linear(module.inner, x)]
    return add_norm(module.add_norm, x, linear(module.outer, inner))


def everything(t: int, s: int) -> bool:
    return True


def naive_encoder(decoder: MeshedMemoryTransformer, places: list[list[float]]) -> list[list[list[float]]]:
    zeros = [0.0] * decoder.widen.out_features
    first = torch.nn.Module()
    first.norm = decoder.widen_norm
    x = [add_norm(first, [max(0.0, v) for v in linear(decoder.widen, place)], zeros) for place in places]
    levels = []
    for layer in decoder.encoder:
        found = naive_attention(layer.attention, x, x, everything)
        z = [add_norm(layer.add_norm, a, b) for a, b in zip(x, found, strict=True)]
        x = [feed_forward(layer.feed_forward, row) for row in z]
        levels.append(x)
    return levels


def naive_mesh(layer: torch.nn.Module, y: list[list[float]], levels: list[list[list[float]]]) -> list[list[float]]:
    """Equations 5 to 7."""
    meshed = [[0.0] * len(y[0]) for _ in y]
    for gate, level in zip(layer.gates, levels, strict=True):
        found = naive_attention(layer.image, y, level, everything)
        for t, row in enumerate(y):
            alpha = [sigmoid(v) for v in linear(gate, row + found[t])]
            meshed[t] = [m + a * f for m, a, f in zip(meshed[t], alpha, found[t], strict=True)]
    return meshed


def naive_transformer(decoder: MeshedMemoryTransformer, places: list[list[float]], words: list[int]) -> list:
    levels = naive_encoder(decoder, places)
    width = decoder.widen.out_features
    y = []
    for t, word in enumerate(words):
        embedded = decoder.words.weight[word].tolist()
        wave = [(math.cos if d % 2 else math.sin)(t / 10000 ** ((d - d % 2) / width)) for d in range(width)]
        y.append([a + b for a, b in zip(embedded, wave, strict=True)])
    for layer in decoder.decoder:
        found = naive_attention(layer.words, y, y, lambda t, s: s <= t)
        y = [add_norm(layer.words_norm, a, b) for a, b in zip(y, found, strict=True)]
        meshed = naive_mesh(layer, y, levels)
        z = [add_norm(layer.image_norm, a, b) for a, b in zip(y, meshed, strict=True)]
        y = [feed_forward(layer.feed_forward, row) for row in z]
    return [linear(decoder.out, row) for row in y]


@pytest.fixture
def meshed() -> MeshedMemoryTransformer:
    """A small decoder in float64, with biases and norms that are not those of the start."""
    torch.manual_seed(0)
    objective = replace(TRANSFORMER, width=8, layers=2, memories=3, feed_forward=6)
    decoder = MeshedMemoryTransformer(5, 9, objective).double().eval()
    for parameter in decoder.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return decoder


def test_memory_attention_is_the_papers_equation(meshed: MeshedMemoryTransformer) -> None:
    attention = meshed.encoder[0].attention
    x = torch.randn(2, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        keys, values = attention.keys_values(x)
        found = attention(x, (keys, values))
    assert keys.shape == values.shape == (2, 4 + 3, 8)
    for row in range(2):
        expected = naive_attention(attention, x[row].tolist(), x[row].tolist(), everything)
        torch.testing.assert_close(found[row], torch.tensor(expected, dtype=torch.float64))
    with torch.no_grad():  # the slots are used: without them it is another result
        without = attention(x, (keys[:, :4], values[:, :4]))
    assert (without - found).abs().max() > 0.01


def test_meshed_attention_is_the_papers_equation(meshed: MeshedMemoryTransformer) -> None:
    layer = meshed.decoder[1]
    y = torch.randn(1, 3, 8, dtype=torch.float64)
    levels = torch.randn(2, 1, 4, 8, dtype=torch.float64)
    with torch.no_grad():
        found = layer.mesh(y, [layer.image.keys_values(level) for level in levels])
    expected = naive_mesh(layer, y[0].tolist(), levels[:, 0].tolist())
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64))


def test_the_whole_transformer_is_the_papers(meshed: MeshedMemoryTransformer) -> None:
    grid = torch.randn(2, 5, 2, 2, dtype=torch.float64)
    words = torch.tensor([[START, 4, 8, 5], [START, 6, 6, 7]])
    with torch.no_grad():
        logits = meshed(grid, words)
    for row in range(2):
        places = [grid[row, :, y, x].tolist() for y in range(2) for x in range(2)]
        expected = naive_transformer(meshed, places, words[row].tolist())
        # Positions are kept in float32.
        torch.testing.assert_close(logits[row], torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=1e-5)


def test_sinusoids_are_those_of_vaswani_et_al() -> None:
    table = sinusoids(6, 4)
    assert table[3].tolist() == pytest.approx([math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)])
