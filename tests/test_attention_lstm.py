"""Caption-LSTM: the equations of Show, Attend and Tell, re-derived with loops in float64."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from convirt.methods.captioning.attention_lstm import AttentionLSTM, attention_penalty
from convirt.methods.captioning.vocabulary import START
from tiny_captioners import LSTM, MakeConfig, linear, make_batch, make_captioner, sigmoid


def naive_lstm(decoder: AttentionLSTM, annotations: list[list[float]], words: list[int]) -> tuple[list, list]:
    """Log probabilities after each word, and the attention, from the equations of Xu et al."""
    mean = [sum(column) / len(annotations) for column in zip(*annotations, strict=True)]
    h = [math.tanh(x) for x in linear(decoder.first_hidden, mean)]
    c = [math.tanh(x) for x in linear(decoder.first_cell, mean)]
    said, attention = [], []
    w_ih, w_hh = decoder.lstm.weight_ih.tolist(), decoder.lstm.weight_hh.tolist()
    b_ih, b_hh = decoder.lstm.bias_ih.tolist(), decoder.lstm.bias_hh.tolist()
    for word in words:
        e = []
        for a in annotations:
            inner = zip(linear(decoder.attend_image, a), linear(decoder.attend_hidden, h), strict=True)
            e.append(linear(decoder.attend_score, [math.tanh(x + y) for x, y in inner])[0])
        total = sum(math.exp(x) for x in e)
        alpha = [math.exp(x) / total for x in e]
        beta = sigmoid(linear(decoder.gate, h)[0])
        z = [beta * sum(weight * a[d] for weight, a in zip(alpha, annotations, strict=True)) for d in range(len(mean))]
        embedded = decoder.words.weight[word].tolist()
        x = embedded + z
        size = len(h)
        gates = [
            sum(w * v for w, v in zip(w_ih[row], x, strict=True))
            + b_ih[row]
            + sum(w * v for w, v in zip(w_hh[row], h, strict=True))
            + b_hh[row]
            for row in range(4 * size)
        ]
        i, f = [sigmoid(g) for g in gates[:size]], [sigmoid(g) for g in gates[size : 2 * size]]
        g, o = [math.tanh(v) for v in gates[2 * size : 3 * size]], [sigmoid(v) for v in gates[3 * size :]]
        c = [f[m] * c[m] + i[m] * g[m] for m in range(size)]
        h = [o[m] * math.tanh(c[m]) for m in range(size)]
        deep = [
            sum(parts)
            for parts in zip(embedded, linear(decoder.hidden_out, h), linear(decoder.context_out, z), strict=True)
        ]
        logits = linear(decoder.out, deep)
        norm = math.log(sum(math.exp(v) for v in logits))
        said.append([v - norm for v in logits])
        attention.append(alpha)
    return said, attention


def test_the_attention_lstm_is_the_papers_equations() -> None:
    torch.manual_seed(0)
    decoder = AttentionLSTM(6, 9, replace(LSTM, hidden_dim=5, word_dim=4, attention_dim=3)).double().eval()
    grid = torch.randn(2, 6, 2, 3, dtype=torch.float64)
    words = torch.tensor([[START, 4, 8, 5], [START, 6, 6, 7]])
    with torch.no_grad():
        logits, alpha = decoder(grid, words)
    for row in range(2):
        annotations = [grid[row, :, y, x].tolist() for y in range(2) for x in range(3)]
        said, attention = naive_lstm(decoder, annotations, words[row].tolist())
        torch.testing.assert_close(
            logits[row].log_softmax(-1), torch.tensor(said, dtype=torch.float64), atol=1e-7, rtol=0
        )
        torch.testing.assert_close(alpha[row], torch.tensor(attention, dtype=torch.float64), atol=1e-7, rtol=0)


def test_the_doubly_stochastic_penalty_is_the_papers_and_has_its_floor() -> None:
    torch.manual_seed(0)
    alpha = torch.rand(3, 4, 5).softmax(dim=-1)
    spoken = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)
    for row, words in enumerate((4, 2, 1)):
        expected = 0.0
        for place in range(5):
            expected += (1 - sum(float(alpha[row, t, place]) for t in range(words))) ** 2
        assert attention_penalty(alpha, spoken)[row].item() == pytest.approx(expected, rel=1e-6)
        assert expected >= (words - 5) ** 2 / 5
    even = torch.full((1, 4, 5), 0.2)
    assert attention_penalty(even, spoken[:1]).item() == pytest.approx((4 - 5) ** 2 / 5)


def test_the_lstms_loss_is_equation_14_a_word(tiny_config: MakeConfig, tiny_corpus: Path) -> None:
    objective = replace(LSTM, attention_penalty=0.3)
    captioner = make_captioner(tiny_config, tiny_corpus, "caption_lstm", objective=objective).eval()
    batch = make_batch([("there is a disc .", "noise ."), ("ring seen .",)])
    loss, figures = captioner.loss(batch, None)
    inputs, targets = captioner.vocabulary.encode(batch.reports, 20)
    logits, alpha = captioner.decoder(captioner.grid(batch.images_B1SS, None), inputs)
    total = 0.0
    for row, words in enumerate((6, 3)):
        log_p = logits[row].log_softmax(-1)
        total -= sum(log_p[t, targets[row, t]].item() for t in range(words))
        for place in range(alpha.shape[2]):
            total += 0.3 * (1 - alpha[row, :words, place].sum().item()) ** 2
    assert loss.item() == pytest.approx(total / 9, rel=1e-5)
    assert loss.item() == pytest.approx(figures["cross_entropy"] + 0.3 * figures["attention_penalty"], rel=1e-5)
