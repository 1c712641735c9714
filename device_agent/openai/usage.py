"""What an answer used, as OpenAI's clients read it. Pure."""

from __future__ import annotations

from device_agent.events import CorrectEvent, DoneEvent, Json


def usage_of(done: DoneEvent) -> Json:
    """Of a whole answer. Predicted are the tokens that the draft model proposed: accepted are those that the text has, rejected
    the others that were sent, branches beside it among them. None of them is in ``completion_tokens`` that was not delivered.
    """
    told = done.usage
    accepted = told["accepted"] + told["late"]
    rejected = max(0, told["proposed"] - accepted)
    details = {"accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected}
    return _counts(told["prompt_tokens"], told["completion_tokens"]) | {"completion_tokens_details": details}


def running_usage(event: CorrectEvent) -> Json:
    """Up to some final text."""
    num_tokens = event.commit_offset.tokens
    return _counts(event.position + len(event.token_ids) - num_tokens, num_tokens)


def _counts(prompt_tokens: int, completion_tokens: int) -> Json:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}
