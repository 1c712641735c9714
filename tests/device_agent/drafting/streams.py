"""A drafter over a session without a verifier: the test says what becomes final."""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.drafting.branches import Branch
from device_agent.drafting.calibration import Calibration
from device_agent.drafting.drafter import Drafter
from device_agent.drafting.policy import Policy
from device_agent.drafting.resting import Resting
from device_agent.drafting.step import DraftSteps
from speculation.engines.runner import EngineRunner
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Opened, PairIdentity, Verdict, VerdictKind
from tests.device_agent.drafting.doubles import GREEDY, NUM_CHOICES, VOCABULARY, fresh

IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)
PROMPT = (0, 1)


class Stream:
    """One session's drafter. ``credit`` bounds the live nodes."""

    def __init__(
        self,
        engine,
        policy: Policy,
        *,
        prompt: Sequence[int] = PROMPT,
        credit: int = 64,
        max_tokens: int = 100,
        end_token_ids: Sequence[int] = (),
        depth: int = 32,
        context_length: int = 150,
        steps: DraftSteps | None = None,
        parameters: SamplingParameters = GREEDY,
        num_choices: int = NUM_CHOICES,
        resting: Resting | None = None,
    ) -> None:
        self.session = DeviceSession("s", IDENTITY, prompt, parameters, max_tokens, end_token_ids)
        self.session.open()
        self.session.receive(Opened("s", credit, "f" * 16))
        self.engine = engine
        steps = steps or DraftSteps(EngineRunner(engine))
        self.num_choices = num_choices if policy.width > 1 and steps.can_fork else 1
        self.drafter = Drafter(
            *(steps, self.session, policy, Calibration(), end_token_ids, depth, context_length, num_choices), resting=resting
        )

    @property
    def main(self) -> list[int]:
        return [branch.token_id for branch in self.drafter.branches.main]

    async def draft(self, tail_room: int | None = None, limit: int = 1000) -> int:
        """Step until the drafter pauses; how many steps it took."""
        for count in range(limit):
            await self.drafter.step(tail_room)
            if self.drafter.is_paused:
                return count
        raise AssertionError(f"still drafting after {limit} steps")

    def settle(self, token_ids: Sequence[int]) -> None:
        """These become final, as if one verdict had brought them."""
        start = len(self.session.final)
        taken: list[int] = []
        for token_id in token_ids:
            if self.session.is_complete:
                break
            self.session.receive(Verdict(len(self.session.final), 0, 0, token_id, VerdictKind.DECODED))
            taken.append(token_id)
        self.drafter.settle(start, taken)

    def tree(self) -> list[Branch]:
        """Every live branch, the root first."""
        found = [self.drafter.branches.root]
        for branch in found:  # grows while it is walked
            found += branch.children
        return found

    def check(self, vocabulary_size: int = VOCABULARY) -> None:
        """What is proposed behind every path is what a cache that never held anything else proposes."""
        branches, final = self.drafter.branches, tuple(self.session.final)
        assert branches.root.position == len(final) - 1
        for branch in self.tree():
            path = tuple(node.token_id for node in branches.path(branch))
            told = fresh((*final, *path), vocabulary_size, self.session.parameters, self.num_choices)
            assert branch.proposal == (told if branch.children else None)
            assert all(child.token_id == told.token_ids[child.choice] for child in branch.children)
            assert [child.rank for child in branch.children] == list(range(len(branch.children)))
        assert self.session.path == tuple(self.main)
