"""What a draft is asked to follow: the full model's likeliest tokens behind a prefix, and how far a draft is from them.

A few dozen tokens hold nearly all of a distribution; the others count as one. So what the full model said of its own samples
can be kept, and the draft sees it many times for one forward of the full model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_COMPARED = 24
"""Of the kept tokens, those whose chance of being chosen by both is counted: it costs the square of their number."""

_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Targets:
    """Token ids and their natural log probabilities at temperature 1, [..., kept], the likeliest first."""

    token_ids: Tensor
    log_probs: Tensor

    @classmethod
    def of(cls, logits: Tensor, num_kept: int) -> Targets:
        """Of the full model's logits [..., vocabulary]."""
        top = torch.log_softmax(logits, -1).topk(num_kept, dim=-1)
        return cls(top.indices, top.values)

    def to(self, device: torch.device) -> Targets:
        return Targets(self.token_ids.to(device), self.log_probs.to(device))


def divergence(targets: Targets, logits: Tensor) -> Tensor:
    """Mean KL(full || draft) in nats of the draft's logits [..., vocabulary]; tokens that were not kept count as one."""
    draft = torch.log_softmax(logits, -1).gather(-1, targets.token_ids)
    kept = (targets.log_probs.exp() * (targets.log_probs - draft)).sum(-1)
    full_rest, draft_rest = ((1 - x.exp().sum(-1)).clamp_min(_LEAST) for x in (targets.log_probs, draft))
    return (kept + full_rest * (full_rest / draft_rest).log()).mean()


def disagreement(targets: Targets, logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Mean chance that both choose differently with shared noise at a temperature above 0.

    With p the full model's and q the draft's distribution, two exponential races on one noise choose the same token with
    probability sum_i 1 / sum_j max(p_j / p_i, q_j / q_i) (Daliri et al., arXiv 2408.07978). A draft trained on it is trained on
    what counts at this temperature; near 0 it is a smooth form of the share of equal greedy choices. The full model's
    ``NUM_COMPARED`` likeliest tokens are compared; of the others, which count as one, no agreement is hoped for.
    """
    full = torch.log_softmax(targets.log_probs / temperature, -1)[..., :NUM_COMPARED]
    draft = torch.log_softmax(logits / temperature, -1).gather(-1, targets.token_ids[..., :NUM_COMPARED])
    ratios = torch.maximum(full[..., None, :] - full[..., :, None], draft[..., None, :] - draft[..., :, None])
    full_rest, draft_rest = ((1 - x.exp().sum(-1, keepdim=True)).clamp_min(_LEAST).log() for x in (full, draft))
    total = torch.logaddexp(ratios.logsumexp(-1), torch.maximum(full_rest - full, draft_rest - draft))
    return 1 - (-total).exp().sum(-1).mean()
