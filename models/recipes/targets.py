"""What a draft is asked to follow: the full model's likeliest tokens behind a prefix, and how far a draft is from them.

A few dozen tokens hold nearly all of a distribution; the others count as one. So what the full model said of its own samples
can be kept, and the draft sees it many times for one forward of the full model.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

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


def total_variation(targets: Targets, logits: Tensor, temperature: float) -> Tensor:
    """Mean total variation between both at a temperature above 0, by the tokens that were kept.

    1 less this is what no rule of choice can agree more often than (Leviathan et al., arXiv 2211.17192), so a draft that is
    trained on it is trained on what counts (DistillSpec, Zhou et al., arXiv 2310.08461).
    """
    full = torch.softmax(targets.log_probs / temperature, -1)
    draft = torch.softmax(logits / temperature, -1).gather(-1, targets.token_ids)
    return 1 - torch.minimum(full, draft).sum(-1).mean()
