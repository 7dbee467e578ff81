"""The decoder of the Meshed-Memory Transformer (Cornia et al., CVPR 2020), on a grid of image features.

Shapes: N reports, T words given at once, P words before them, D H W the feature map, L = H W its places, S = L plus
memory slots, M width of the model, V words known.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convirt.methods.captioning.decoding import Decoder, State
from convirt.recipes.captioning import MeshedTransformerObjective

KeysValues = tuple[Tensor, Tensor]


class Attention(nn.Module):
    """Scaled dot-product attention of several heads, with learnt slots beside the keys and values if asked for.

    Attention(W_q X, [W_k X, M_k], [W_v X, M_v]): equations 1 and 2 of section 3.1; without slots it is equation 1.
    """

    def __init__(self, width: int, heads: int, memories: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (_linear(width, width) for _ in range(4))
        if memories:
            # Of the size of keys and values at the start; the authors' code has these same variances.
            self.memory_keys = nn.Parameter(torch.randn(memories, width) / math.sqrt(width // heads))
            self.memory_values = nn.Parameter(torch.randn(memories, width) / math.sqrt(memories))
        self.memories = memories

    def keys_values(self, x_NLM: Tensor) -> KeysValues:
        """Keys and values, memory slots after those of the input: [N, S, M] each."""
        keys_NSM, values_NSM = self.key(x_NLM), self.value(x_NLM)
        if self.memories:
            slots = (self.memory_keys.to(keys_NSM.dtype), self.memory_values.to(keys_NSM.dtype))
            expanded = [slot.expand(len(x_NLM), -1, -1) for slot in slots]
            keys_NSM, values_NSM = torch.cat([keys_NSM, expanded[0]], 1), torch.cat([values_NSM, expanded[1]], 1)
        return keys_NSM, values_NSM

    def forward(self, x_NTM: Tensor, keys_values: KeysValues, *, causal: bool = False) -> Tensor:
        """What each of T queries finds; with `causal`, query t sees the first t + 1 keys alone."""
        parts = (self.query(x_NTM), *keys_values)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out(found.transpose(1, 2).flatten(2))


class AddNorm(nn.Module):
    """Residual connection and layer normalisation, after dropout (section 3.1; dropout 0.1: section 4.2)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, change: Tensor) -> Tensor:
        """LayerNorm(x + change)."""
        return self.norm(x + self.dropout(change))


class FeedForward(nn.Module):
    """F(X)_i = U relu(V X_i + b) + c, added and normed (equation 3)."""

    def __init__(self, objective: MeshedTransformerObjective) -> None:
        super().__init__()
        self.inner = _linear(objective.width, objective.feed_forward)
        self.outer = _linear(objective.feed_forward, objective.width)
        self.add_norm = AddNorm(objective.width, objective.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, of the shape of its input."""
        return self.add_norm(x, self.outer(self.inner(x).relu()))


class EncoderLayer(nn.Module):
    """Memory-augmented attention and feed-forward (section 3.1, "Encoding layer")."""

    def __init__(self, objective: MeshedTransformerObjective) -> None:
        super().__init__()
        self.attention = Attention(objective.width, objective.heads, objective.memories)
        self.add_norm = AddNorm(objective.width, objective.dropout)
        self.feed_forward = FeedForward(objective)

    def forward(self, x_NLM: Tensor) -> Tensor:
        """The next level's description of each place."""
        found_NLM = self.attention(x_NLM, self.attention.keys_values(x_NLM))
        return self.feed_forward(self.add_norm(x_NLM, found_NLM))


class DecoderLayer(nn.Module):
    """Masked self-attention, meshed cross-attention, feed-forward (section 3.2).

    With X^i the encoder's levels, Y the words, C cross-attention with the same weights for every level, and * the
    product of elements::

        M_mesh(X, Y) = sum_i alpha_i * C(X^i, Y)              (equation 5)
        alpha_i = sigmoid(W_i [Y, C(X^i, Y)] + b_i)           (equation 7)
        Z = AddNorm(M_mesh(X, AddNorm(S_mask(Y))))            (section 3.2, "Architecture of decoding layers")

    The authors' code differs from that text: it norms each C, not their sum, and divides by sqrt(3). Here is the text.
    """

    def __init__(self, objective: MeshedTransformerObjective) -> None:
        super().__init__()
        width = objective.width
        self.words = Attention(width, objective.heads)
        self.words_norm = AddNorm(width, objective.dropout)
        self.image = Attention(width, objective.heads)
        self.gates = nn.ModuleList(_linear(2 * width, width) for _ in range(objective.layers))
        self.image_norm = AddNorm(width, objective.dropout)
        self.feed_forward = FeedForward(objective)

    def forward(self, y_NTM: Tensor, before: KeysValues, levels: list[KeysValues]) -> tuple[Tensor, KeysValues]:
        """Say more of each word: of T words after P others.

        Args:
            y_NTM: What the layer below says of them.
            before: Keys and values of the words before, [N, P, M] each; P is 0 if T is more than 1.
            levels: `image.keys_values` of each level of the encoder.

        Returns:
            The layer's output, [N, T, M], and keys and values of all P + T words.
        """
        new = self.words.keys_values(y_NTM)
        known = (torch.cat([before[0], new[0]], dim=1), torch.cat([before[1], new[1]], dim=1))
        y_NTM = self.words_norm(y_NTM, self.words(y_NTM, known, causal=y_NTM.shape[1] > 1))
        return self.feed_forward(self.image_norm(y_NTM, self.mesh(y_NTM, levels))), known

    def mesh(self, y_NTM: Tensor, levels: list[KeysValues]) -> Tensor:
        """M_mesh (equations 5 to 7)."""
        meshed_NTM = torch.zeros_like(y_NTM)
        for gate, level in zip(self.gates, levels, strict=True):
            found_NTM = self.image(y_NTM, level)
            alpha_NTM = gate(torch.cat([y_NTM, found_NTM], dim=-1)).sigmoid()
            meshed_NTM = meshed_NTM + alpha_NTM * found_NTM
        return meshed_NTM


class MeshedMemoryTransformer(Decoder):
    """Encoder with memory, decoder meshed to all of its levels.

    Places of the grid take the part of the detected regions, and as there without a code of position. Features are
    brought to the model's width by a linear map, ReLU, dropout and layer normalisation, as in the authors' code; words
    are vectors plus sinusoidal positions (section 4.2).
    """

    position_TM: Tensor

    def __init__(self, annotation: int, vocabulary: int, objective: MeshedTransformerObjective) -> None:
        super().__init__()
        width = objective.width
        self.widen = _linear(annotation, width)
        self.widen_dropout = nn.Dropout(objective.dropout)
        self.widen_norm = nn.LayerNorm(width)
        self.encoder = nn.ModuleList(EncoderLayer(objective) for _ in range(objective.layers))
        self.words = nn.Embedding(vocabulary, width)
        self.register_buffer("position_TM", sinusoids(objective.max_words, width), persistent=False)
        self.decoder = nn.ModuleList(DecoderLayer(objective) for _ in range(objective.layers))
        self.out = nn.Linear(width, vocabulary, bias=False)

    def forward(self, grid_NDHW: Tensor, inputs_NT: Tensor) -> Tensor:
        """Say every next word of given reports: logits_NTV."""
        return self._say(self.begin(grid_NDHW), inputs_NT)[0]

    def begin(self, grid_NDHW: Tensor) -> State:
        """The state before the first word: keys and values of each level for each decoding layer; no words yet."""
        x_NLM = self.widen_norm(self.widen_dropout(self.widen(grid_NDHW.flatten(2).transpose(1, 2)).relu()))
        levels = []
        for layer in self.encoder:
            x_NLM = layer(x_NLM)
            levels.append(x_NLM)
        image = [part for layer in self.decoder for level in levels for part in layer.image.keys_values(level)]  # type: ignore[union-attr, operator]
        none = image[0].new_empty(len(x_NLM), 0, x_NLM.shape[-1])
        return State(tuple(image), (none,) * (2 * len(self.decoder)))

    def step(self, state: State, words_N: Tensor) -> tuple[Tensor, State]:
        """Take in one word (see `Decoder.step`)."""
        logits_N1V, state = self._say(state, words_N[:, None])
        return logits_N1V[:, 0], state

    def _say(self, state: State, words_NT: Tensor) -> tuple[Tensor, State]:
        """Logits of the word after each of T words, logits_NTV, and the state after them."""
        first = state.words[0].shape[1]
        y_NTM = self.words(words_NT) + self.position_TM[first : first + words_NT.shape[1]]
        image, words = _pairs(state.image), _pairs(state.words)
        known: list[Tensor] = []
        for number, layer in enumerate(self.decoder):
            levels = image[number * len(self.encoder) : (number + 1) * len(self.encoder)]
            y_NTM, keys_values = layer(y_NTM, words[number], levels)
            known += keys_values
        return self.out(y_NTM), State(state.image, tuple(known))


def sinusoids(length: int, width: int) -> Tensor:
    """Sinusoidal positions of Vaswani et al. (2017, section 3.5), [length, width]: sine and cosine by turns."""
    frequency_F = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle_TF = torch.arange(length)[:, None] * frequency_F
    return torch.stack([angle_TF.sin(), angle_TF.cos()], dim=-1).flatten(1)


def _linear(inner: int, outer: int) -> nn.Linear:
    """A linear map that begins as the authors' do: Xavier uniform, bias 0."""
    linear = nn.Linear(inner, outer)
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def _pairs(tensors: tuple[Tensor, ...]) -> list[KeysValues]:
    return list(zip(tensors[::2], tensors[1::2], strict=True))
