"""The packed graph of ``graph.py`` on ONNX Runtime: many sessions, one pool of cache slots a layer, ragged passes in place.

Rolling back is keeping a smaller length. Idle slots inside the range of a pass cost next to nothing.

The even-row rule: ONNX Runtime gives a lone attention row (one new token, or one left over by the tile of its flash kernel) to
another kernel, which differs in the last bits. So the attention node always gets an even number of rows a session, the last
one repeated where the count is odd; it lands in the cache behind the real tokens, where the next pass overwrites it. Where the
self-test finds that linear layers do the same (products of 4 bits, on some processors), they get even numbers, too.

A graph is loaded in the form that is fastest (``loading.py``): its attention may have a second node for few tokens behind many
(``head_groups.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from speculation.engines import arena
from speculation.engines.architecture import slot_capacity
from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.bindings import BIAS_BOUND, Bias, Binding, bias_width
from speculation.engines.cache_pages import CAN_RETURN, CachePages
from speculation.engines.handover import computing
from speculation.engines.head_groups import TOKENS_BOUND, Share
from speculation.engines.kept_logits import LOGITS_KEPT_BOUND, KeptLogits
from speculation.engines.loading import load
from speculation.engines.packing import Packing, concatenated, pack
from speculation.engines.slots import Slot, Slots
from speculation.errors import ConfigurationError, EngineError

if TYPE_CHECKING:
    from speculation.engines.package import Package

MAX_BINDINGS = 256


class OnnxEngine:
    """An ``Engine``, ``Forkable``, ``GivesBack``, ``Reserves``, ``CanPairRows`` and ``CanGroupHeads`` over one variant of a
    package. Not for use by two threads at once.

    Raises ``PackageError`` when the graph is damaged or not of the form that ``graph.py`` builds, ``ConfigurationError`` for
    numbers that cannot work, and for 8-bit blocks whose sums this processor cuts off. Calls raise ``InvalidRequestError`` for
    chunks that mean nothing, besides what ``Engine`` says.
    """

    _rows_multiple: ClassVar[int] = 2

    def __init__(self, package: Package, variant: str = "fp32", num_slots: int = 8, threads: int = 1) -> None:
        if num_slots < 1 or threads < 1:
            raise ConfigurationError(f"an engine needs at least 1 slot and 1 thread, not {num_slots} and {threads}")
        shape = package.architecture
        self.head_size = shape.head_size
        self._architecture = shape
        self._capacity = slot_capacity(package.context_length)
        loaded = load(package, variant, threads)
        # The session computes with memory of the matrices, where they are convolved.
        self._session, self._matrices = loaded.session, loaded.matrices
        self._groups, self._is_grouping = loaded.groups, loaded.groups is not None
        self._is_half = loaded.cache_type is np.float16
        self._bias = Bias(loaded.groups, loaded.cache_type) if loaded.groups is not None else None
        most_rows = loaded.groups.num_rows(TOKENS_BOUND, self._rows_multiple) if loaded.groups is not None else 0
        self._has_room_always = num_slots * most_rows * self._capacity <= BIAS_BOUND
        self._least_logits = int(self.is_convolved)
        names = [f"{n}.{kind}" for n in range(shape.num_layers) for kind in ("key", "value")]
        size = (len(names), num_slots, shape.num_kv_heads, self._capacity, shape.head_size)
        self._pages, self._gives_back = CachePages(size, loaded.cache_type), False
        self._memory = self._pages.array
        self._pools = dict(zip(names, self._memory, strict=True))
        self._bindings: dict[tuple[int, int, Packing | None], Binding] = {}
        self._last: Binding | None = None
        self._description = EngineDescription(
            name=f"{package.name}:{variant}",
            vocabulary_size=shape.vocabulary_size,
            context_length=package.context_length,
            num_slots=num_slots,
            num_parameters=package.num_parameters,
            weight_bytes=package.weight_bytes(variant),
            kv_bytes_per_token=shape.kv_bytes_per_token * self._memory.itemsize // np.dtype(np.float32).itemsize,
        )
        self._slots = Slots(self._description)
        self._kept_logits = KeptLogits(shape.vocabulary_size)
        self._tokens_multiple = 1

    @property
    def description(self) -> EngineDescription:
        return self._description

    @property
    def is_convolved(self) -> bool:
        """Whether its matrices are multiplied as convolutions (``pointwise.py``)."""
        return self._matrices is not None

    def open(self) -> CacheId:
        return self._slots.open()

    def length(self, cache: CacheId) -> int:
        return self._slots[cache].length

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        if not chunks:
            return np.empty((0, self._description.vocabulary_size), np.float32)
        slots = self._slots.of(chunks)
        if self._is_half and len(chunks) > 1 and max([len(chunk.token_ids) for chunk in chunks]) > TOKENS_BOUND:
            return self._apart(chunks)
        numbers = [slot.number for slot in slots]
        low, high = min(numbers), max(numbers) + 1
        # Lists: NumPy's own way to the least and the largest of few takes longer than all of them.
        token_ids: list[int] = []
        shares: list[Share] = []
        groups, is_any_grouped = self._groups if self._is_grouping else None, False
        for slot, chunk in zip(slots, chunks, strict=True):
            count = len(chunk.token_ids)
            is_grouped = groups is not None and groups.pays(slot.length, count)
            is_any_grouped |= is_grouped
            token_ids += chunk.token_ids
            shares.append((slot.number - low, count, chunk.num_logits, is_grouped))
        self._slots.check_token_ids(min(token_ids), max(token_ids))
        if is_any_grouped and not (self._has_room_always or self._has_room(slots, shares, high - low)):
            shares = [(*share[:3], False) for share in shares]
        key = tuple(shares), high - low, self._rows_multiple, self._tokens_multiple, self._least_logits, self._groups
        packing = pack(*key)
        binding = self._binding(low, high, packing)
        logits = binding.prepare(packing, self._kept_logits)
        binding.fill(token_ids, slots)
        try:
            computing()
            self._session.run_with_iobinding(binding.io)
        except Exception as error:
            raise EngineError(f"{self._description.name} could not be run: {error}") from error
        for number, slot in enumerate(slots):
            slot.length += shares[number][1]
        return logits if packing.num_logits == packing.num_rows else logits[: packing.num_logits]

    def truncate(self, cache: CacheId, length: int) -> None:
        self._slots.truncate(cache, length)

    def close(self, cache: CacheId) -> None:
        slot = self._slots.close(cache)
        if self._gives_back:
            self._pages.give_back(slot.number)

    def pair_rows(self, is_wanted: bool) -> None:
        self._tokens_multiple = 2 if is_wanted else 1

    @property
    def is_grouping(self) -> bool:
        return self._is_grouping

    def group_heads(self, is_wanted: bool) -> None:
        self._is_grouping = is_wanted and self._groups is not None

    def give_back_memory(self) -> None:
        if not CAN_RETURN:
            raise ConfigurationError("memory of caches can be given back on Linux only")
        if self._slots.num_open:
            raise ConfigurationError("memory of caches is given back from the start on, before one is opened")
        self._pages.in_small_pages()
        self._gives_back = True

    def cache_bytes(self, num_tokens: int) -> int:
        behind = self._rows_multiple - 1
        if self._groups is not None:
            behind = max(behind, self._groups.most_rows(num_tokens, self._rows_multiple))
        return self._pages.bytes_of(num_tokens + behind)

    def reserve(self, num_rows: int) -> None:
        arena.reserve(self._scratch_bytes(num_rows))
        if self._bias is not None:
            self._bias.touch()

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        self._memory[:, slot.number, :, : slot.length] = self._memory[:, parent.number, :, : slot.length]
        return child

    def _scratch_bytes(self, num_rows: int) -> int:
        """What a pass of at most so many rows computes with, however they fall on the slots, and a quarter more for holes.

        Attention has a padded batch: all slots, each as many rows as the longest share, of queries, keys and values, those
        turned for the kernel, and what comes out. Beside that the scores of one session, and the feed-forward layer. The node
        with grouped rows has a batch of its own, with the scores of all sessions, and what both give is put together. With
        caches in 16 bits the scores are of all sessions everywhere, which have few rows each, or of one that is alone.
        """
        shape, num_slots, groups = self._architecture, self._description.num_slots, self._groups
        longest, capacity = min(num_rows, shape.context_length), slot_capacity(shape.context_length)
        queries, keys = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
        padded = num_slots * (longest + longest % 2) * (2 * (queries + 2 * keys) + queries)
        rows = longest * shape.num_heads * capacity
        rows += num_rows * (2 * shape.intermediate_size + 2 * shape.hidden_size)
        if self._is_half:
            rows += num_slots * min(longest, TOKENS_BOUND) * shape.num_heads * bias_width(shape.context_length + 1, capacity)
        if groups is not None:
            grouped = num_slots * groups.num_rows(min(TOKENS_BOUND, longest), 2)
            padded += grouped * 8 * keys + num_slots * (longest + longest % 2) * queries
            rows += groups.num_groups * min(BIAS_BOUND, grouped * capacity)
        return (padded + rows) * 4 * 5 // 4

    def _apart(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        """A pass for each long chunk, and one for all others: of float16 the runtime keeps the scores of all rows at once, as
        wide as the longest of a padded batch."""
        self._slots.check_tokens(concatenated(chunks))
        ends = np.cumsum([chunk.num_logits for chunk in chunks])
        logits = np.empty((int(ends[-1]), self._description.vocabulary_size), np.float32)
        places = [range(end - chunk.num_logits, end) for chunk, end in zip(chunks, ends.tolist(), strict=True)]
        is_long = [len(chunk.token_ids) > TOKENS_BOUND for chunk in chunks]
        passes = [[number] for number, long in enumerate(is_long) if long]
        passes.append([number for number, long in enumerate(is_long) if not long])
        for numbers in passes:
            wanted = [place for number in numbers for place in places[number]]
            logits[wanted] = self.extend([chunks[number] for number in numbers])
        return logits

    def _has_room(self, slots: Sequence[Slot], shares: Sequence[Share], batch: int) -> bool:
        """Whether the bias has room for all sessions whose heads are to be grouped."""
        groups = self._groups
        assert groups is not None
        grouped = [(slot.length, share[1]) for slot, share in zip(slots, shares, strict=True) if share[3]]
        rows = groups.num_rows(max(count for _, count in grouped), self._rows_multiple)
        return batch * rows * bias_width(max(grouped)[0] + rows, self._capacity) <= BIAS_BOUND

    def _binding(self, low: int, high: int, packing: Packing) -> Binding:
        # Drafts make the passes of a session that is alone take turns between few shapes, and to bind one anew costs as much as
        # its choice. Those of many sessions hardly ever come again.
        is_alone = self._slots.num_open == 1 and packing.num_tokens <= LOGITS_KEPT_BOUND
        key = (low, high, packing if is_alone else None)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= MAX_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            binding = self._bindings[key] = Binding(self._session, self._pools, low, high, self._capacity, is_alone, self._bias)
        if self._last is not binding:
            if self._last is not None:
                # Else every range of slots would keep the arrays of a pass that never comes again.
                self._last.forget()
            self._last = binding
        return binding
