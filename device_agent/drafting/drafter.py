"""The device's own writing for one stream: the policy says what grows, the draft model says how, the session is told."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from device_agent.drafting.beliefs import Beliefs
from device_agent.drafting.branches import Branch, Branches, Proposal, Settled, num_agreed
from device_agent.drafting.caches import Caches, Feed
from device_agent.drafting.calibration import Calibration
from device_agent.drafting.copying import LONGEST_COPY, Copying
from device_agent.drafting.gathering import Schedule
from device_agent.drafting.linear import Ahead
from device_agent.drafting.policy import Policy, View
from device_agent.drafting.quoting import Steps
from device_agent.drafting.resting import Rest, Resting
from device_agent.drafting.share import Share
from device_agent.drafting.step import Step
from speculation.errors import CapacityError
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession

LEAVES_A_CHOICE = 2
"""Leaves kept for every choice of every branch that a step may extend; the least likely beyond are forgotten. Those deep in the
tree are needed once verdicts have come that far: with half as many for four choices, replayed traces took 1 to 2 % more
passes."""

LONGEST_GATHER = 32
"""Nodes that are sent at once, however long the next pass is away."""

_ALONE: Policy = Ahead()
_log = logging.getLogger(__name__)


class Drafter:
    """Drafts for one session. ``step`` is called by one task; ``settle`` in between, also while a step runs.

    ``depth`` bounds the drafts ahead of the final log while a verifier is there, ``context_length`` all of it. The draft is
    asked for ``num_choices`` of each position; for its first alone where the policy follows one branch.
    ``is_gathering``: drafts are held back until the next pass can use them. ``resting`` is shared by streams of one kind;
    ``share`` is what this one may have of the phone.
    """

    def __init__(
        self,
        steps: Steps,
        session: DeviceSession,
        policy: Policy,
        calibration: Calibration,
        end_token_ids: Sequence[int],
        depth: int,
        context_length: int,
        num_choices: int,
        is_gathering: bool = True,
        resting: Resting | None = None,
        share: Share | None = None,
    ) -> None:
        self.share = share or Share()
        self.schedule = Schedule()
        self._is_gathering = is_gathering
        self._leave_s: float | None = None
        self.branches = Branches(session.final[-1], len(session.final) - 1)
        self.is_paused = False
        self._steps = steps
        self._session = session
        self._policy = policy
        self.beliefs = Beliefs(calibration, session.parameters.temperature == 0)
        self._end_token_ids = frozenset(end_token_ids)
        self._depth = depth
        # A token is chosen behind a full context, and none behind the limit.
        self._last_position = min(session.limit - 1, context_length)
        self._width = policy.width if steps.can_fork else 1
        self._num_choices = num_choices if self._width > 1 else 1
        self._caches = Caches(self._width)
        self._grown = 0
        self._copying = Copying()
        # A verifier that is told when nothing more comes may wait for drafts.
        self._rest = Rest(resting or Resting(), not (policy.says_pass or policy.pass_floor > 0))
        self._running: Step | None = None
        self._full: CapacityError | None = None
        self._leaves: Sequence[Branch] = ()

    @property
    def length(self) -> int:
        """Tokens that stand: final ones, then the main branch."""
        return len(self._session.final) + len(self.branches.main)

    @property
    def last_token_id(self) -> int:
        return self.branches.tip.token_id

    @property
    def parameters(self) -> SamplingParameters:
        return self._session.parameters

    def send_s(self, now_s: float) -> float:
        """The moment from which on what is drafted should go out; infinite where something more must come first."""
        if self.is_paused:
            return now_s
        count = self._session.unsent_nodes
        if not count or count < self._policy.gather:
            return math.inf
        if not self._is_gathering or count >= LONGEST_GATHER:
            return now_s
        if self._leave_s is None:
            self._leave_s = self.schedule.leave_s(now_s)
        return self._leave_s

    def sent(self, now_s: float, last_node: int) -> None:
        """What was drafted went out, up to this number."""
        self._leave_s = None
        self.schedule.sent(now_s, last_node)

    def came(self, now_s: float, num_tokens: int) -> None:
        """A verdict came with so many tokens."""
        self._rest.came(num_tokens, now_s, self.schedule.pass_s)

    def broke_off(self) -> None:
        """The conversation did, and will go on: how long that is tells nothing of verdicts."""
        self._rest.broke_off()

    @property
    def is_resting(self) -> bool:
        """Whether it leaves drafting alone until another verdict has come, as long as there is a verifier."""
        return self._rest.is_due(bool(self.branches.main), self.schedule)

    @property
    def says_pass(self) -> bool:
        """Whether the verifier is to be told that nothing worth waiting for will come before its next verdict."""
        if self.is_paused and self._policy.says_pass:
            return True
        return bool(self.branches.main) and self.branches.chance_of(self.branches.tip) < self._policy.pass_floor

    def chances(self) -> list[float]:
        """Of each draft on the main branch, given the one before it, by what is known of the draft model now."""
        return [self.beliefs.chance(branch) for branch in self.branches.main]

    async def close(self) -> None:
        """Give the caches back, once no step is running."""
        await self._steps.close(self._caches.slots)

    async def step(self, tail_room: int | None = None) -> list[Branch]:
        """One draft step; returns what the main branch grew by. With nothing to extend it pauses at once: ``is_paused``.

        ``tail_room``: tokens that a device without a verifier may still write; None while there is one.
        Raises ``EngineError``, and for a device that writes alone ``CapacityError`` when the engine has no room left. Beside a
        verifier a drafter without room gives its caches back and pauses for good: the cloud writes on.
        """
        if self._full is not None and tail_room is not None:
            raise self._full
        view = self._view(tail_room)
        leaves = self._select(view)
        self.is_paused = not leaves
        if not leaves:
            return []
        try:
            proposals = await self._extend(leaves, view)
        except CapacityError as error:
            if view.is_alone:
                raise
            return await self._end_without_room(error)
        length = len(self.branches.main)
        for leaf, chain in zip(leaves, proposals, strict=False):
            self._grow(*self._behind_log(leaf, chain))
        self.branches.prune(LEAVES_A_CHOICE * self._num_choices * (self._width + 1))
        return self.branches.main[length:]

    def copy(self) -> list[Branch]:
        """What the main branch of a resting stream grew by: what followed where its text read like this before."""
        if not self.is_resting or self.schedule.is_outrun(LONGEST_COPY):
            return []
        tip, main = self.branches.tip, [branch.token_id for branch in self.branches.main]
        if tip.is_growing or 2 * len(main) > LONGEST_COPY or (main and tip.token_id in self._end_token_ids):
            return []
        room = min(self._session.room, LONGEST_COPY - len(main), self._depth - len(main), self._last_position - tip.position)
        self._copying.read(self._session.final)
        for token_id in self._copying.behind(self._session.final, main, room):
            self._grow(self.branches.tip, [Proposal((token_id,), (self._copying.chance,), is_copied=True)])
            if token_id in self._end_token_ids:
                break
        return self.branches.main[len(main) :]

    async def _end_without_room(self, error: CapacityError) -> list[Branch]:
        _log.warning("a stream drafts no more, its verifier writes on: %s", error)
        self._full, self.is_paused = error, True
        await self.close()
        return []

    def settle(self, start: int, token_ids: Sequence[int]) -> Settled:
        """Tokens became final from position ``start`` on; the session has taken them already."""
        settled = self.branches.settle(token_ids)
        self._caches.settle(start, token_ids)
        self.beliefs.learn(settled)
        self._rest.settled()
        if not self.branches.main:
            self._grown = 0
        self._leave_s = None
        if self._running is not None and not self._may_be_of_use(self._running):
            self._running.give_up()
        return settled

    def _view(self, tail_room: int | None) -> View:
        """What the policy sees; a device without a verifier is bound by its tail alone."""
        step_s = self._steps.step_s
        return View(
            self.branches,
            depth=self._depth if tail_room is None else self._last_position + 1,
            room=self._session.room if tail_room is None else tail_room,
            is_alone=tail_room is not None,
            grown=self._grown,
            end_token_ids=self._end_token_ids,
            last_position=self._last_position,
            acceptance=self.beliefs.pace.acceptance,
            usual_acceptance=self.beliefs.pace.usual_acceptance,
            step_s=step_s,
            pass_s=self.schedule.pass_s,
            lag=None if step_s is None else self.schedule.lag(step_s),
            burst=self._steps.burst,
        )

    def _policy_for(self, view: View) -> Policy:
        return _ALONE if view.is_alone else self._policy

    def _select(self, view: View) -> Sequence[Branch]:
        if view.room <= 0 or self._full is not None or (self.is_resting and not view.is_alone):
            return []
        return self._policy_for(view).select(view)[: min(self._width, view.room)]

    async def _extend(self, leaves: Sequence[Branch], view: View) -> list[list[Proposal]]:
        paths = [[branch.token_id for branch in self.branches.path(leaf)] for leaf in leaves]
        feeds = self._caches.feeds(self._session.final, paths)
        for leaf in leaves:
            self.branches.begin(leaf)
        self._leaves = leaves
        self._running = step = self._step_of(feeds, leaves, view)
        try:
            proposals = await self._steps.run(step)
        finally:
            self._running = None
        for feed, chain in zip(feeds, proposals, strict=False):
            self._caches.fed_more(feed.slot, [proposal.token_id for proposal in chain[:-1]], self._session.final)
        return proposals

    def _step_of(self, feeds: Sequence[Feed], leaves: Sequence[Branch], view: View) -> Step:
        return Step(feeds, self.parameters, self._num_choices, self._max_steps(leaves, view), self._end_token_ids, self.share)

    def _max_steps(self, leaves: Sequence[Branch], view: View) -> int:
        """Steps in a row that every leaf may take: what the policy wants, as far as depth, room and the text's end allow."""
        if view.burst == 1:
            return 1
        deepest = max(leaf.position for leaf in leaves)
        ahead = deepest - self.branches.root.position
        wanted = self._policy_for(view).in_a_row(view, leaves)
        return max(1, min(view.burst, wanted, view.room // len(leaves), view.depth - ahead, self._last_position - deepest))

    def _grow(self, leaf: Branch, chain: Sequence[Proposal]) -> None:
        for proposal in chain:
            grown = self.branches.extend(leaf, proposal, self.beliefs.chances(proposal))
            self._tell(grown[0])
            self._grown += 1
            # A chain goes on behind the draft's own choice.
            leaf = next(branch for branch in grown if branch.choice == 0)

    def _behind_log(self, leaf: Branch, chain: Sequence[Proposal]) -> tuple[Branch, Sequence[Proposal]]:
        """What a step tells of positions behind the log: where verdicts overtook its leaf, the end of a chain whose beginning
        the log took."""
        if leaf.is_alive:
            return leaf, chain
        if leaf.parent is not None:  # the log never took it
            return leaf, ()
        num_taken = self.branches.root.position - leaf.position
        is_contradicted = num_agreed(self._session.final, leaf, chain) < min(num_taken, len(chain))
        return self.branches.root, () if is_contradicted else chain[num_taken:]

    def _may_be_of_use(self, step: Step) -> bool:
        """Whether the step that runs may still tell of a position behind the log, by what it has proposed so far."""
        last = self.branches.root.position
        chains = step.proposals or [[] for _ in self._leaves]  # none before the job begins
        for leaf, chain in zip(self._leaves, chains, strict=False):
            reaches, compared = leaf.parent is None and leaf.position + step.max_steps > last, last - leaf.position
            if leaf.is_alive or (reaches and num_agreed(self._session.final, leaf, chain) == min(compared, len(chain))):
                return True
        return False

    def _tell(self, branch: Branch) -> int:
        """The session's name of a branch's node; the way to it is told first where it was not."""
        if branch is self.branches.root or branch.parent is None:
            return 0
        if not branch.handle:
            branch.handle = self._session.drafted(branch.token_id, branch.rank, self._tell(branch.parent))
        return branch.handle
