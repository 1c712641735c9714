"""What a verifier counts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class VerifierStatistics:
    """Counted since the start. ``rows`` are tokens fed to the full model, prompts included.

    ``own_proposed`` are tokens that the verifier's own draft model drafted and a pass checked, ``own_accepted`` those that
    agreed; no session's usage holds them. Bytes are those of messages over gRPC.
    """

    sessions: int = 0
    passes: int = 0
    rows: int = 0
    own_proposed: int = 0
    own_accepted: int = 0
    received_bytes: int = 0
    sent_bytes: int = 0
