"""Examples for the OpenAPI document: a request, a whole answer of it in both forms, and what the agent says of itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from device_agent import events
from device_agent.events import CommitOffset, Event
from device_agent.formats import Format, Told
from device_agent.timeline import Item

Schema = dict[str, Any]

REQUEST: Schema = {"prompt": "The module provides", "max_tokens": 2, "temperature": 0.8, "seed": 7}
SESSION_ID = "c015de3a43feb957"
PAIR_DIGEST = "6ae4810f579d3ecb73f481b83998dea5e85e7660cc59cd68f6d2f8091dc61bb7"

_USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "passes": 1,
    "proposed": 2,
    "accepted": 1,
    "late": 0,
    "corrections": 1,
    "bonus": 0,
    "discarded": 1,
    "near_ties": 0,
}
_FIGURES: tuple[tuple[str, float, str], ...] = (
    ("first_visible_ms", 4.1, "ms"),
    ("first_final_ms", 12.4, "ms"),
    ("tokens_per_s", 161.0, "tokens/s"),
    ("passes_per_token", 0.5, "passes/token"),
    ("acceptance", 0.5, "share"),
    ("revoked_share", 0.5, "share"),
    ("revoke_depth", 1.0, "tokens"),
    ("normalised_erasure", 0.5, "tokens/token"),
    ("revoked_after_read", 0.0, "share"),
    ("messages_up", 2, "messages"),
    ("bytes_up", 312, "bytes"),
    ("bytes_down", 96, "bytes"),
    ("draft_steps", 2, "steps"),
    ("queued_ms", 0.0, "ms"),
    ("steps_waited_ms", 0.0, "ms"),
)
EVENTS: tuple[Event, ...] = (
    events.SessionEvent(0, SESSION_ID, "collaborate", "all", "pydoc-draft:q4", "pydoc-full", PAIR_DIGEST, None, None, 7),
    events.SpeculativeEvent(1, 3, (266,), " a", 0.81),
    events.SpeculativeEvent(2, 4, (3522,), " alias", 0.34),
    events.StateEvent(3, "collaborate", "link", 6.2),
    events.CommitEvent(4, 3, 1, CommitOffset(1, 2)),
    events.RevokeEvent(5, 4, 1, "contradicted"),
    events.CorrectEvent(6, 4, (660,), " class", CommitOffset(2, 8)),
    events.DoneEvent(
        seq=7,
        finish_reason="length",
        prompt_token_ids=(748, 552, 1860),
        token_ids=(266, 660),
        text=" a class",
        verified_count=2,
        usage=_USAGE,
        figures={name: {"value": value, "unit": unit, "basis": "measured"} for name, value, unit in _FIGURES},
    ),
)
HEALTH: Schema = {
    "status": "ok",
    "draft": "pydoc-draft:q4",
    "full": "pydoc-full",
    "pair_digest": PAIR_DIGEST,
    "pair": {"have": 6, "offered": 6},
    "phone": None,
    "network": None,
    "verifier": "127.0.0.1:50051",
    "streams": 0,
    "max_streams": 16,
    "queued": 0,
    "max_queued_streams": 0,
    "defaults": {"temperature": 0.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 128, "unused": []},
}
METRICS = """\
# HELP outrider_agent_streams_running Answers that are being written.
# TYPE outrider_agent_streams_running gauge
outrider_agent_streams_running 0.0
"""


TIMELINE: tuple[Item, ...] = (
    Item(0, "draft", {"start_ms": 1.146, "end_ms": 10.311, "tokens": 1}),
    Item(1, "phone", {"at_ms": 10.311, "temperature_c": None, "skin_c": None, "joules": 0.0469, "thermal": None}),
    Item(2, "up", {"start_ms": 67.486, "end_ms": 101.636, "bytes": 16, "nodes": 2}),
    Item(3, "link", {"at_ms": 135.009, "rtt_ms": 67.9}),
    Item(4, "pass", {"start_ms": 98.657, "end_ms": 140.456, "rows": 3}),
    Item(5, "verdict", {"at_ms": 174.405, "start": 3, "accepted": 1, "verdict": "revoke"}),
)
CHANGE: Schema = {"rtt_ms": 120}
EMULATION: Schema = {
    "phone": "dimensity-9300",
    "network": "5g-nsa-low",
    "cloud": "mi300x",
    "patience": "auto",
    "heat": "off",
    "overrides": {},
    "choices": {
        "phones": [
            {"name": "apple-a17-pro", "title": "Apple A17 Pro", "bandwidth_gb_s": 51.2, "ram_gb": 8.0, "has_heat": True},
        ],
        "networks": [
            {"name": "lte", "title": "LTE", "down_mbps": 30.0, "up_mbps": 10.0, "rtt_ms": 80.0, "loss_percent": 0.0},
        ],
        "clouds": [
            {"name": "a100-80gb", "title": "One A100", "bandwidth_gb_s": 2039.0, "memory_gb": 80.0, "devices": 1.0},
        ],
    },
    "ranges": {
        "bandwidth_gb_s": [1, 10000],
        "rtt_ms": [0, 10000],
        "rate_mbps": [0.01, 100000],
        "loss_percent": [0, 50],
        "cloud_bandwidth_gb_s": [10, 1000000],
    },
    "can_change": {"phone": True, "network": True, "cloud": True, "patience": True},
}
PROMPTS: Schema = {
    "prompts": [
        {
            "source": "library/math.rst.txt#1",
            "title": "Power and logarithmic functions",
            "text": "## Power and logarithmic functions\n\ncbrt(x)\n\n   Return the cube root of x.\n\n"
            "   New in version 3.11.\n\nexp(x)\n\n   Return e raised",
        }
    ]
}


def whole(form: Format, told: Sequence[Told]) -> str:
    """What comes one by one, as a body."""
    return "".join(map(form.encode, told))


def answered(schema: Schema, example: Any, kind: str = "application/json", about: str = "The answer") -> Schema:
    """The OpenAPI description of a good answer."""
    return {"200": {"description": about, "content": {kind: {"schema": schema, "example": example}}}}


def schema_of(example: Any) -> Schema:
    """What any value of an example's form is: each key there, of that type; null may be any."""
    match example:
        case bool():
            return {"type": "boolean"}
        case int():
            return {"type": ["integer", "null"]}
        case float():
            return {"type": "number"}
        case str():
            return {"type": "string"}
        case dict():
            return {"type": "object", "required": [*example], "properties": {k: schema_of(v) for k, v in example.items()}}
        case list():
            return {"type": "array"}
    return {}
