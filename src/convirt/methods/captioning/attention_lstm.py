"""The decoder of Show, Attend and Tell (Xu et al., ICML 2015): an LSTM that looks at one part of the image a word.

Shapes: N reports, T words of the longest, D H W the feature map, L = H W its places, A width of the attention,
E of a word's vector, M of the LSTM, V words known.
"""

import torch
from torch import Tensor, nn

from convirt.methods.captioning.decoding import Decoder, State
from convirt.recipes.captioning import AttentionLSTMObjective


class AttentionLSTM(Decoder):
    """Soft attention ("deterministic", section 4.2), with the gate beta and the deep output layer.

    With a_1 .. a_L the annotation vectors (the places of the feature map), h and c the LSTM's state, and E y the vector
    of a word y, a word y_{t-1} is taken in so::

        e_ti = w . tanh(W_a a_i + W_h h_{t-1} + b)            (equation 4; f_att is a layer of width A)
        alpha_t = softmax(e_t)                                (equation 5)
        z_t = sigmoid(f_beta(h_{t-1})) * sum_i alpha_ti a_i   (equation 13, section 4.2.1)
        h_t, c_t = LSTM([E y_{t-1}, z_t], h_{t-1}, c_{t-1})   (equations 1 to 3)
        p(y_t) = softmax(L_o (E y_{t-1} + L_h h_t + L_z z_t)) (equation 7)

    The first state is tanh of a linear map of the mean annotation vector, one for h and one for c (section 3.1.2). The
    paper leaves the widths open, and its dropout, which lies before L_o here.
    """

    def __init__(self, annotation: int, vocabulary: int, objective: AttentionLSTMObjective) -> None:
        super().__init__()
        word, hidden, attention = objective.word_dim, objective.hidden_dim, objective.attention_dim
        self.words = nn.Embedding(vocabulary, word)
        self.first_hidden = nn.Linear(annotation, hidden)
        self.first_cell = nn.Linear(annotation, hidden)
        self.attend_image = nn.Linear(annotation, attention)
        self.attend_hidden = nn.Linear(hidden, attention, bias=False)
        self.attend_score = nn.Linear(attention, 1, bias=False)  # a constant would vanish in the softmax
        self.gate = nn.Linear(hidden, 1)
        self.lstm = nn.LSTMCell(word + annotation, hidden)
        self.hidden_out = nn.Linear(hidden, word)
        self.context_out = nn.Linear(annotation, word)
        self.out = nn.Linear(word, vocabulary)
        self.dropout = nn.Dropout(objective.dropout)

    def forward(self, grid_NDHW: Tensor, inputs_NT: Tensor) -> tuple[Tensor, Tensor]:
        """Say every next word of given reports.

        Returns:
            logits_NTV, and the attention alpha_NTL.
        """
        state = self.begin(grid_NDHW)
        word_NTE = self.words(inputs_NT)
        hidden, context, attention = [], [], []
        for word_NE in word_NTE.unbind(dim=1):
            context_ND, alpha_NL, state = self._advance(state, word_NE)
            hidden.append(state.words[0])
            context.append(context_ND)
            attention.append(alpha_NL)
        logits_NTV = self._say(word_NTE, torch.stack(hidden, dim=1), torch.stack(context, dim=1))
        return logits_NTV, torch.stack(attention, dim=1)

    def begin(self, grid_NDHW: Tensor) -> State:
        """The state before the first word: annotation vectors, their part of equation 4; h and c."""
        annotations_NLD = grid_NDHW.flatten(2).transpose(1, 2)
        mean_ND = annotations_NLD.mean(dim=1)
        first = (self.first_hidden(mean_ND).tanh(), self.first_cell(mean_ND).tanh())
        return State((annotations_NLD, self.attend_image(annotations_NLD)), first)

    def step(self, state: State, words_N: Tensor) -> tuple[Tensor, State]:
        """Take in one word (see `Decoder.step`)."""
        word_NE = self.words(words_N)
        context_ND, _, state = self._advance(state, word_NE)
        return self._say(word_NE, state.words[0], context_ND), state

    def _advance(self, state: State, word_NE: Tensor) -> tuple[Tensor, Tensor, State]:
        """Gated context, attention and the state after a word."""
        (annotations_NLD, image_NLA), (hidden_NM, cell_NM) = state.image, state.words
        scores_NL1 = self.attend_score((image_NLA + self.attend_hidden(hidden_NM)[:, None]).tanh())
        alpha_NL = scores_NL1[..., 0].float().softmax(dim=1).to(annotations_NLD.dtype)
        context_ND = self.gate(hidden_NM).sigmoid() * torch.einsum("nl,nld->nd", alpha_NL, annotations_NLD)
        words = self.lstm(torch.cat([word_NE, context_ND], dim=1), (hidden_NM, cell_NM))
        return context_ND, alpha_NL, State(state.image, words)

    def _say(self, word: Tensor, hidden: Tensor, context: Tensor) -> Tensor:
        """Equation 7, for any leading dimensions."""
        return self.out(self.dropout(word + self.hidden_out(hidden) + self.context_out(context)))


def attention_penalty(alpha_NTL: Tensor, spoken_NT: Tensor) -> Tensor:
    """The doubly stochastic regularisation, sum_i (1 - sum_t alpha_ti)^2 for each report (equation 14, without lambda).

    A report of C words spreads attention C in all, so its floor is (C - L)^2 / L: all places looked at equally.

    Args:
        alpha_NTL: The attention.
        spoken_NT: Which words are a report's own, and not padding.
    """
    looked_NL = (alpha_NTL.float() * spoken_NT[..., None]).sum(dim=1)
    return (1 - looked_NL).square().sum(dim=1)
