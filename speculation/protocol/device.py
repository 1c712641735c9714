"""The device's side of a session: the final log as far as it is known, and the drafts that hang off its end. Pure.

The law: the log grows by verdicts alone, and never changes. A verdict names drafts by number; the device kept their tokens
and works out for itself what became final and what was wrong. One object lives as long as the session; ``open`` starts
each stream anew. Messages of an older stream must not reach it: the owner drops a stream before it opens the next.
"""

from __future__ import annotations

from collections.abc import Sequence

from speculation.errors import HandshakeError, MalformedMessageError, VerdictGapError
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    Cancel,
    CloudMessage,
    Draft,
    Finished,
    FinishReason,
    Open,
    Opened,
    PairIdentity,
    Usage,
    Verdict,
)
from speculation.protocol.outbox import UNOPENED_ROOM, Outbox
from speculation.protocol.tree import DraftTree, TreeNode
from speculation.protocol.update import Update, logprobs_of


class DeviceSession:
    """One session over all its streams. ``prompt`` holds at least one token, ``max_tokens`` is at least 1.

    ``logprobs``: the verifier is to tell log probabilities, with so many of the likeliest tokens; None where it is not.
    """

    def __init__(
        self,
        session_id: str,
        identity: PairIdentity,
        prompt: Sequence[int],
        parameters: SamplingParameters,
        max_tokens: int,
        end_token_ids: Sequence[int] = (),
        priority: int = 0,
        deadline_ms: int | None = None,
        logprobs: int | None = None,
    ) -> None:
        self.session_id = session_id
        self.identity = identity
        self.parameters = parameters
        self.max_tokens = max_tokens
        self.priority = priority
        self.deadline_ms = deadline_ms
        self.logprobs = logprobs
        self.generation_start = len(prompt)
        self.limit = len(prompt) + max_tokens
        self.attempt = 0
        self.fingerprint = ""
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self._end_token_ids = tuple(end_token_ids)
        self._final = [int(token_id) for token_id in prompt]
        self._tree = DraftTree(len(self._final))
        self._path: list[TreeNode] = []
        self._by_handle: dict[int, TreeNode] = {}
        self._last_handle = 0
        self._end_handle = 0
        self._cancelled = False
        self._start_stream()

    @property
    def final(self) -> Sequence[int]:
        """The final log, prompt included; not to be changed."""
        return self._final

    @property
    def path(self) -> tuple[int, ...]:
        """Token ids of the main branch: from the end of the final log along the lowest ranks."""
        return tuple([node.token_id for node in self._path])

    @property
    def path_handles(self) -> tuple[int, ...]:
        """The nodes of the main branch, as ``drafted`` named them."""
        return tuple([node.handle for node in self._path])

    @property
    def live_nodes(self) -> int:
        """Nodes that were drafted and that no verdict has settled."""
        return len(self._by_handle)

    @property
    def unsent_nodes(self) -> int:
        """Live nodes that are still to be flushed."""
        return len(self._by_handle) - self._outbox.num_sent

    @property
    def room(self) -> int:
        """Nodes that may still be drafted now; 0 where the main branch is complete. The verifier's advice is followed."""
        if self.finish_reason is not None or self._cancelled or self._is_path_complete():
            return 0
        wanted = min(self._credit, self._advice or self._credit) if self._is_open else UNOPENED_ROOM
        return max(0, wanted - len(self._by_handle))

    @property
    def is_complete(self) -> bool:
        """Whether the final log has reached its end, even if ``Finished`` has not come."""
        length = len(self._final)
        return length >= self.limit or (length > self.generation_start and self._final[-1] in self._end_token_ids)

    def open(self) -> Open:
        """Start the next stream, uncancelled. Nodes are numbered from 1 again, and ``flush`` will send the live tree again."""
        self.attempt += 1
        self.finish_reason = self.usage = None
        self._cancelled = False
        self._start_stream()
        return Open(
            session_id=self.session_id,
            attempt=self.attempt,
            identity=self.identity,
            prefix=tuple(self._final),
            generation_start=self.generation_start,
            parameters=self.parameters,
            max_tokens=self.max_tokens,
            end_token_ids=self._end_token_ids,
            priority=self.priority,
            deadline_ms=self.deadline_ms,
            fingerprint=self.fingerprint,
            logprobs=self.logprobs,
        )

    def drafted(self, token_id: int, rank: int = 0, parent: int | None = None) -> int:
        """Add a drafted token behind ``parent``; by default behind the main branch, 0 means the end of the final log.

        Returns the node's handle, which later drafts may name as their parent and which outlives streams. The same token
        behind the same parent is the same node. Drafting beyond ``room`` is allowed: the excess waits for credit.

        Raises ``LookupError`` when the parent is not alive any more: a verdict overtook it.
        """
        node, is_new = self._tree.add(self._anchor(parent), token_id, rank)
        if is_new:
            self._last_handle += 1
            node.handle = self._last_handle
            self._by_handle[node.handle] = node
            self._outbox.add(node)
            self._extend_path(node)
        return node.handle

    def flush(self, passes: bool = False) -> Draft | None:
        """The nodes not sent yet, within the credit, none while none is worth it; None when there is nothing to say.

        ``passes``: nothing worth waiting for comes before the next verdict. Only the main branch is sent before ``Opened``.
        """
        nodes = () if self._withholds else self._outbox.take(self._credit, None if self._is_open else self._path)
        return Draft.of(nodes, len(self._final), passes, self._packs) if nodes or passes else None

    def cancel(self) -> Cancel:
        """Ask for the end; verdicts already under way may still arrive before ``Finished``."""
        self._cancelled = True
        return Cancel()

    def receive(self, message: CloudMessage) -> Update:
        """Take a message of the current stream.

        Raises ``VerdictGapError`` for a verdict beyond the log's end and ``MalformedMessageError`` for one that contradicts a
        final token, names a node that cannot be final, lacks a log probability, or comes out of order; ``HandshakeError`` where
        the verifier tells none, and they were asked for. After any of them the stream must be dropped.
        """
        if isinstance(message, Verdict):
            return self._receive_verdict(message)
        if isinstance(message, Opened):
            return self._receive_opened(message)
        return self._receive_finished(message)

    def _start_stream(self) -> None:
        self._outbox = Outbox(self._by_handle.values())  # in order of drafting
        self._is_open = self._packs = False
        self._credit = INITIAL_CREDIT
        self._advice, self._withholds = 0, False

    def _anchor(self, parent: int | None) -> TreeNode | None:
        if parent is None:
            return self._path[-1] if self._path else None
        if parent in (0, self._end_handle):
            return None
        if parent not in self._by_handle:
            raise LookupError(f"node {parent} is not alive")
        return self._by_handle[parent]

    def _extend_path(self, node: TreeNode) -> None:
        """Keep the main branch the chain of lowest ranks (``DraftTree.likeliest``) without walking it."""
        index = node.position - len(self._final)
        before = self._path[index - 1] if 0 < index <= len(self._path) else None
        if node.parent is not before:
            return
        if index == len(self._path):
            self._path.append(node)
        elif node.rank < self._path[index].rank:
            self._path[index:] = [node]

    def _is_path_complete(self) -> bool:
        if not self._path:
            return self.is_complete
        last = self._path[-1]
        return last.position + 1 >= self.limit or last.token_id in self._end_token_ids

    def _receive_opened(self, opened: Opened) -> Update:
        if opened.session_id != self.session_id:
            raise MalformedMessageError(f"session {opened.session_id!r} was opened, not {self.session_id!r}")
        if self.logprobs is not None and opened.logprobs != self.logprobs:
            asked = "the log probabilities that were asked for; an older one tells none"
            raise HandshakeError(f"this verifier does not tell {asked}: leave logprobs out, or renew it")
        changed = self.fingerprint not in ("", opened.fingerprint)
        self.fingerprint = opened.fingerprint
        self._credit = max(opened.credit, self._credit) if self._is_open else opened.credit
        self._is_open, self._packs = True, opened.reads_packed
        return Update(len(self._final), opened=opened, fingerprint_changed=changed)

    def _receive_verdict(self, verdict: Verdict) -> Update:
        start = len(self._final)
        tokens = self._newly_final(verdict)
        self._require_room_for(tokens)
        logprobs = logprobs_of(verdict, len(tokens), self.logprobs)
        self._advice, self._withholds = verdict.advice, verdict.withholds
        kept = self._apply(tokens)
        return Update(start, tuple(tokens), kept, verdict.kind, logprobs)  # by place: there is one for each token

    def _receive_finished(self, finished: Finished) -> Update:
        self._require_open()
        self.finish_reason = finished.reason
        self.usage = finished.usage
        return Update(len(self._final), finished=finished)

    def _newly_final(self, verdict: Verdict) -> list[int]:
        """The verdict's tokens behind the end of the log; what overlaps it is compared, as far as it is still known."""
        self._require_open()
        if verdict.start > len(self._final):
            raise VerdictGapError(f"a verdict starts at {verdict.start}, but the final log has {len(self._final)} tokens")
        tokens = self._run_tokens(verdict) if verdict.last_node or verdict.count else []
        position = verdict.start + verdict.count
        if verdict.choice is not None and position >= len(self._final):
            tokens.append(verdict.choice)
        elif verdict.choice is not None and self._final[position] != verdict.choice:
            raise MalformedMessageError(f"a verdict contradicts the final token at {position}")
        return tokens

    def _run_tokens(self, verdict: Verdict) -> list[int]:
        end = verdict.start + verdict.count
        node = self._sent_node(verdict.last_node)
        if end <= len(self._final):
            return []
        if node is None or node.position != end - 1:
            raise MalformedMessageError(f"a verdict ends at {end - 1} in node {verdict.last_node}, which is not alive there")
        tokens = []
        while node is not None:
            tokens.append(node.token_id)
            node = node.parent
        return tokens[::-1]

    def _sent_node(self, number: int) -> TreeNode | None:
        try:
            return self._outbox.find(number)
        except LookupError as error:
            raise MalformedMessageError(f"a verdict names a node that does not exist: {error}") from error

    def _require_open(self) -> None:
        if not self._is_open:
            raise MalformedMessageError("Opened must come first on a stream")

    def _require_room_for(self, tokens: list[int]) -> None:
        is_over = self.is_complete or self.finish_reason is not None
        if tokens and (is_over or len(self._final) + len(tokens) > self.limit):
            raise MalformedMessageError("a verdict goes on behind the end of the text")
        if len(tokens) > 1 and any(token_id in self._end_token_ids for token_id in tokens[:-1]):
            raise MalformedMessageError("a verdict goes on behind an end token")

    def _apply(self, tokens: list[int]) -> bool:
        """Let the log grow; returns whether the main branch holds all of ``tokens``."""
        if not self._by_handle:
            self._final += tokens
            self._tree.pass_by(len(tokens))
            self._end_handle = 0 if tokens else self._end_handle
            return not tokens
        kept = [node.token_id for node in self._path[: len(tokens)]] == tokens
        for token_id in tokens:
            survivor, lost = self._tree.advance(token_id)
            self._final.append(token_id)
            self._settle([survivor, *lost] if survivor is not None else lost)
            self._end_handle = survivor.handle if survivor is not None else 0
        self._path = self._path[len(tokens) :] if kept else list(self._tree.likeliest())
        return kept

    def _settle(self, nodes: Sequence[TreeNode]) -> None:
        for node in nodes:
            del self._by_handle[node.handle]
            self._outbox.settle(node)
