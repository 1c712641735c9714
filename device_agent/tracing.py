"""What a span tells of an answer, in the words of OpenTelemetry's conventions for generative models. No text of anybody's."""

from __future__ import annotations

from device_agent.assignment import Assignment
from device_agent.events import DoneEvent, ErrorEvent
from device_agent.figures import Counts
from device_agent.pair import PairFacts
from device_agent.request import StreamRequest
from speculation.telemetry.spans import Attribute

PROVIDER = "outrider"

Attributes = dict[str, Attribute | None]


def operation_of(request: StreamRequest) -> str:
    """The convention's name of what is asked for."""
    return "chat" if request.messages else "text_completion"


def asked(request: StreamRequest, pair: PairFacts) -> Attributes:
    """What a request is, before it is judged."""
    return {
        "gen_ai.operation.name": operation_of(request),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": pair.full,
        "gen_ai.request.stream": True,
        "outrider.draft": pair.draft,
        "outrider.mode": request.mode.value,
        "outrider.reveal": request.reveal.value,
    }


def assigned(assignment: Assignment) -> Attributes:
    """What was resolved: an answer begins."""
    parameters = assignment.parameters
    return {
        "gen_ai.response.id": assignment.session_id,
        "gen_ai.request.max_tokens": assignment.max_tokens,
        # As text: OpenTelemetry's integers are signed, and a seed may have all 64 bits.
        "gen_ai.request.seed": parameters.seed if parameters.seed < 2**63 else str(parameters.seed),
        "gen_ai.request.temperature": float(parameters.temperature),
        "gen_ai.request.top_p": float(parameters.top_p),
        "gen_ai.request.top_k": parameters.top_k,
        "gen_ai.usage.input_tokens": len(assignment.prompt),
    }


def ended(last: DoneEvent | ErrorEvent, counts: Counts) -> Attributes:
    """How it ended, and what drafts were good for."""
    told: Attributes = {"outrider.spec.revoked": counts.revoked, "outrider.spec.drafted": counts.drafted}
    if isinstance(last, ErrorEvent):
        return told | {"outrider.spec.proposed": counts.proposed, "outrider.spec.passes": counts.passes}
    first_ms = last.figures["first_visible_ms"]["value"]
    return told | {
        "gen_ai.response.finish_reasons": (last.finish_reason,),
        "gen_ai.response.time_to_first_chunk": None if first_ms is None else first_ms / 1000,
        "gen_ai.usage.output_tokens": len(last.token_ids),
        "outrider.verified_tokens": last.verified_count,
        **{f"outrider.spec.{name}": last.usage[name] for name in ("proposed", "accepted", "corrections", "passes")},
    }
