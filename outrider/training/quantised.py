"""A decoder's forward with the linear layers that its 4-bit graph will have: rounded on the way forward, straight through on
the way back (Bengio et al., arXiv 1308.3432). A draft distilled so loses little when it is quantised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from outrider.training.network import Decoder
from speculation.engines.quantise import BLOCK, SHRINKS

_HEAD = "model.embed_tokens.weight"


def rounded(weight: Tensor) -> Tensor:
    """What a matrix [out, in] becomes in 4 bits: the same numbers as ``to_int4_blocks`` stores. In must be a multiple of 32."""
    blocks = weight.detach().float().unflatten(1, (-1, BLOCK))
    largest = blocks.gather(-1, blocks.abs().argmax(-1, keepdim=True)).squeeze(-1)
    full = torch.where(largest == 0, 1.0, largest / -8)
    best, least = full, torch.full_like(full, torch.inf)
    for shrink in SHRINKS.tolist():
        scales = full * shrink
        error = (blocks - _values(blocks, scales)).square().sum(-1)
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    return _values(blocks, best).flatten(1)


def _values(blocks: Tensor, scales: Tensor) -> Tensor:
    levels = (torch.round(blocks / scales[..., None]) + 8).clamp(0, 15)
    return (levels - 8) * scales[..., None]


def straight_through(weight: Tensor) -> Tensor:
    """The rounded matrix, with the gradient of the matrix itself."""
    return weight + (rounded(weight) - weight).detach()


class QuantisedForward(nn.Module):
    """Logits [batch, rows, vocabulary] of a decoder as its 4-bit graph computes them; embeddings are looked up in full."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder
        self._names = [name for name, p in decoder.named_parameters() if p.ndim == 2 and name != _HEAD]

    def forward(self, token_ids: Tensor) -> Tensor:
        weights = dict(self.decoder.named_parameters())
        replaced = {f"decoder.{name}": straight_through(weights[name]) for name in self._names}
        hidden = functional_call(_Hidden(self.decoder), replaced, (token_ids,))
        return F.linear(hidden, straight_through(weights[_HEAD]))


class _Hidden(nn.Module):
    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, token_ids: Tensor) -> Tensor:
        return self.decoder.hidden(token_ids)
