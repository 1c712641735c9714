"""How likely the full model held a token, as values; ``speculation/log_softmax.py`` computes them. Pure.

A log probability is the log-softmax of the full model's logits as they are: at temperature 1, before top-k, top-p and min-p,
and without noise. So it is a function of the text before the position alone, whatever the parameters, the drafts or the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from speculation.errors import MalformedMessageError

MAX_LOGPROBS = 20
"""As many of the likeliest tokens may be asked for as with OpenAI's chat route."""
LEAST_LOGPROB = -9999.0
"""What is less likely counts as this: OpenAI's own figure, and one that every number format holds."""


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """The log probability of one final token, and ``top``: the likeliest tokens in its place with theirs, by (log probability
    descending, id ascending). Numbers are single precision, rounded from double. Raises ``MalformedMessageError``.
    """

    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        if not all(LEAST_LOGPROB <= value <= 0 for value in (self.logprob, *[value for _, value in self.top])):
            raise MalformedMessageError(f"a log probability is from {LEAST_LOGPROB} to 0")
