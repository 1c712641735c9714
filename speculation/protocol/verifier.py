"""The verifier's side of a session: the final log, and the drafts that hang off its end. Pure.

The law: nothing enters the log but the full model's own choices. Drafts are hints; the worst that any message can do is to
end its own stream. What a number stands for is decided by ``tree.py`` and the table of ``docs/protocol.md``: a number that
is not remembered is dead.
"""

from __future__ import annotations

from collections.abc import Sequence

from speculation.choice import run_length
from speculation.errors import CreditExceededError, MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Cancel,
    Draft,
    Finished,
    FinishReason,
    Node,
    Open,
    Usage,
    Verdict,
    VerdictKind,
)
from speculation.protocol.tree import DraftTree, NodeState, TreeNode
from speculation.values import value

_PENDING, _ACCEPT = NodeState.PENDING, VerdictKind.ACCEPT


@value
class Plan:
    """What the next pass may run: a chain of drafts behind a final log of ``start`` tokens, likeliest first, perhaps empty.

    The owner feeds ``final[cache_length:] + token_ids`` and asks for ``len(token_ids) + 1`` rows of logits.
    """

    nodes: tuple[int, ...]
    token_ids: tuple[int, ...]
    start: int


class VerifierSession:
    """One session on one stream. ``credit`` is the ceiling of live nodes that ``Opened`` tells.

    For all to read, and for none to change: ``final``, the final log, prompt included; ``generation_start``, where the
    generated tokens begin in it; ``finished``, what the session ended with, if it did.

    A session opened with a complete prefix (its last generated token is an end token, or the limit is reached) is finished at
    once. Raises ``MalformedMessageError`` when the prefix goes beyond the limit.
    """

    def __init__(self, open: Open, credit: int) -> None:
        if len(open.prefix) > open.limit:
            raise MalformedMessageError(f"the prefix has {len(open.prefix)} tokens, the limit is {open.limit}")
        self._open = open
        self._credit = max(credit, INITIAL_CREDIT)  # a device may send so many before it has read Opened
        self._limit = open.limit
        self._final = list(open.prefix)
        self.final: Sequence[int] = self._final
        self.generation_start = open.generation_start
        self._end_token_ids = frozenset(open.end_token_ids)
        self._known = len(self._final)
        self._tree = DraftTree(self._known)
        self._nodes: dict[int, TreeNode] = {}
        self._final_numbers: dict[int, list[int]] = {}
        self._next_number = 1
        self._passed = False
        self._passes = self._accepted = self._late = self._corrections = self._bonus = self._near_ties = 0
        self.finished: Finished | None = None
        self._finish_at_end()

    @property
    def limit(self) -> int:
        """The position behind the last token that may be generated."""
        return self._limit

    @property
    def live_nodes(self) -> int:
        """Numbers that are remembered; never over the ceiling."""
        return len(self._nodes)

    @property
    def has_drafts(self) -> bool:
        """Whether a pass now would run drafts."""
        return self._tree.first is not None

    @property
    def drafts_end(self) -> bool:
        """Whether the likeliest chain holds an end token: a draft behind it would be of no use."""
        return any(node.token_id in self._end_token_ids for node in self._tree.likeliest())

    @property
    def passed(self) -> bool:
        """Whether the device said since the last verdict that nothing more will come."""
        return self._passed

    @property
    def usage(self) -> Usage:
        """What the session cost so far on this stream; ``completion_tokens`` count from where generation began."""
        proposed = self._next_number - 1
        pending = sum(node.state is NodeState.PENDING for node in self._nodes.values())
        return Usage(
            prompt_tokens=self.generation_start,
            completion_tokens=len(self._final) - self.generation_start,
            passes=self._passes,
            proposed=proposed,
            accepted=self._accepted,
            late=self._late,
            corrections=self._corrections,
            bonus=self._bonus,
            discarded=proposed - self._accepted - self._late - pending,
            near_ties=self._near_ties,
        )

    def receive(self, message: Draft | Cancel) -> None:
        """Take a message of the device; what comes after the end is ignored.

        Raises ``MalformedMessageError`` for what means nothing or comes from the future, ``CreditExceededError`` for too many
        live nodes. After either the session must not be used any more.
        """
        if self.finished is not None:
            return
        if isinstance(message, Cancel):
            self.finish(FinishReason.CANCELLED)
        else:
            self._take(message)

    def finish(self, reason: FinishReason) -> Finished:
        """End the session; the first reason stands."""
        if self.finished is None:
            self._forget_nodes(self._tree.clear())
            self.finished = Finished(reason, self.usage)
        return self.finished

    def plan(self, max_nodes: int) -> Plan:
        """The likeliest chain of at most ``max_nodes`` drafts.

        It stops before an end token and one short of the limit: the row of the node before already decides those.
        """
        room = min(max_nodes, self.limit - len(self._final) - 1)
        chain = self._tree.chain(room, self._end_token_ids)
        # Of lists: a tuple of a generator takes a call for every node.
        return Plan(tuple([n.number for n in chain]), tuple([n.token_id for n in chain]), len(self._final))

    def commit(
        self,
        plan: Plan,
        choices: Sequence[int],
        near_ties: int = 0,
        advice: int = 0,
        passes: int = 1,
        withholds: bool = False,
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> tuple[Verdict, Finished | None]:
        """Make final what a pass over ``plan`` chose: ``choices`` are the full model's own, one a row.

        The longest run of drafts that equals them, then the choice behind it; an end token and the limit cut both.
        ``passes`` is 0 where an earlier verdict told of the same pass. ``logprobs`` are those of the run and of the choice
        behind it, where ``Open`` asked for them. Raises ``ValueError`` when the plan is not of this moment, rows or log
        probabilities are missing, or the session is finished.
        """
        self._require_current(plan, choices)
        num_agreed = run_length(plan.token_ids, choices)
        tokens = self._cut(list(choices[: num_agreed + 1]))
        if self._open.logprobs is not None and len(logprobs) < len(tokens):
            raise ValueError(f"{len(tokens)} tokens want a log probability each, not {len(logprobs)} of them")
        count = min(len(tokens), num_agreed)
        choice = tokens[count] if count < len(tokens) else None
        self._advance(tokens[:count])
        kind = self._kind(count, choice)
        self._advance(tokens[count:])
        self._passes += passes
        self._near_ties += near_ties
        self._passed = False
        self._finish_at_end()
        last_node = plan.nodes[count - 1] if count else 0
        verdict = Verdict(
            plan.start, count, last_node, choice, kind, advice, withholds, logprobs=tuple(logprobs[: len(tokens)])
        )
        return verdict, self.finished

    def _take(self, draft: Draft) -> None:
        if draft.known > len(self._final):
            raise MalformedMessageError(f"known is {draft.known}, but the final log has {len(self._final)} tokens")
        if draft.nodes and draft.nodes[0].number > self._next_number:
            raise MalformedMessageError(f"node {self._next_number} must come next, not {draft.nodes[0].number}")
        self._forget_below(draft.known)
        # One that was said before the device knew of the last verdict was answered by that.
        self._passed = self._passed or (draft.passes and draft.known == len(self._final))
        for node in draft.nodes:
            if node.number == self._next_number:  # lower numbers were taken before: a repetition says nothing new
                self._next_number += 1
                self._place(node)

    def _place(self, node: Node) -> None:
        """Decide what a new number stands for: the table of ``docs/protocol.md``."""
        if node.parent == 0:
            if node.root_position > len(self._final):
                raise MalformedMessageError(f"node {node.number} hangs at {node.root_position}, beyond the final log's end")
            self._hang(node, None, node.root_position)
            return
        parent = self._nodes.get(node.parent)
        if parent is not None:
            self._hang(node, parent if parent.state is _PENDING else None, parent.position + 1)

    def _hang(self, node: Node, parent: TreeNode | None, position: int) -> None:
        if position >= len(self._final):
            placed, is_new = self._tree.add(parent, node.token_id, node.rank)
            if is_new:
                placed.number = node.number
            else:
                placed.aliases.append(node.number)
            self._remember(node.number, placed)
        elif position >= self._known and self._final[position] == node.token_id:
            self._late += 1
            self._remember(node.number, TreeNode(node.token_id, node.rank, position, None, node.number, 0, NodeState.FINAL))
            self._final_numbers.setdefault(position, []).append(node.number)

    def _remember(self, number: int, node: TreeNode) -> None:
        if len(self._nodes) >= self._credit:
            raise CreditExceededError(f"node {number} exceeds the credit of {self._credit} live nodes")
        self._nodes[number] = node

    def _advance(self, tokens: Sequence[int]) -> None:
        for token_id in tokens:
            survivor, lost = self._tree.advance(token_id)
            self._final.append(token_id)
            if lost:
                self._forget_nodes(lost)
            if survivor is not None:
                self._accepted += 1
                # The position is new: nothing that came late can stand there yet.
                self._final_numbers[survivor.position] = [survivor.number, *survivor.aliases]

    def _forget_nodes(self, nodes: Sequence[TreeNode]) -> None:
        for node in nodes:
            for number in (node.number, *node.aliases):
                del self._nodes[number]

    def _forget_below(self, known: int) -> None:
        nodes, final_numbers = self._nodes, self._final_numbers
        for position in range(self._known, known):
            for number in final_numbers.pop(position, ()):
                del nodes[number]
        if known > self._known:
            self._known = known

    def _kind(self, count: int, choice: int | None) -> VerdictKind:
        """Name the verdict and count its choice, while the log ends where the run does."""
        draft = self._tree.first
        if choice is None:
            return _ACCEPT
        if draft is not None and draft.token_id != choice:
            self._corrections += 1
            return VerdictKind.REVOKE_AND_CORRECT
        if draft is None and count == 0:
            return VerdictKind.DECODED
        self._bonus += draft is None
        return _ACCEPT

    def _cut(self, tokens: list[int]) -> list[int]:
        tokens = tokens[: self.limit - len(self._final)]
        if self._end_token_ids.isdisjoint(tokens):
            return tokens
        end = next(index for index, token_id in enumerate(tokens) if token_id in self._end_token_ids)
        return tokens[: end + 1]

    def _finish_at_end(self) -> None:
        if len(self._final) > self.generation_start and self._final[-1] in self._end_token_ids:
            self.finish(FinishReason.STOP)
        elif len(self._final) == self.limit:
            self.finish(FinishReason.LENGTH)

    def _require_current(self, plan: Plan, choices: Sequence[int]) -> None:
        if self.finished is not None:
            raise ValueError("the session is finished: nothing more can be committed")
        if plan.start != len(self._final):
            raise ValueError(f"the plan was made for {plan.start} final tokens, now there are {len(self._final)}")
        if len(choices) != len(plan.token_ids) + 1:
            raise ValueError(f"a plan of {len(plan.token_ids)} nodes wants one choice more, not {len(choices)}")
