"""The packed graph of ``graph.py`` on ONNX Runtime: many sessions, one pool of cache slots a layer, ragged passes in place.

Rolling back is keeping a smaller length. Idle slots inside the range of a pass cost next to nothing.

The even-row rule: ONNX Runtime gives a lone attention row (one new token, or one left over by the tile of its flash kernel) to
another kernel, which differs in the last bits. So the attention node always gets an even number of rows a session, the last
one repeated where the count is odd; it lands in the cache behind the real tokens, where the next pass overwrites it. Where the
self-test finds that linear layers do the same (products of 4 bits, on some processors), they get even numbers, too.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from speculation.engines import arena
from speculation.engines.architecture import Architecture, slot_capacity
from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.cache_pages import CAN_RETURN, CachePages
from speculation.engines.files import read_graph
from speculation.engines.handover import computing
from speculation.engines.kept_logits import LOGITS_KEPT_BOUND, KeptLogits
from speculation.engines.large_pages import in_large_pages
from speculation.engines.packing import Packing, Share, pack
from speculation.engines.pointwise import Convolved, convolved
from speculation.engines.quantise import Int8Linear
from speculation.engines.slots import Slot, Slots
from speculation.engines.variants import LINEARS
from speculation.engines.whole_sums import are_whole
from speculation.errors import ConfigurationError, EngineError, PackageError

if TYPE_CHECKING:
    from speculation.engines.package import Package

MAX_BINDINGS = 256
_NO_TOKENS = np.zeros(0, np.int64)
_INT64 = _NO_TOKENS.data.format
_NO_ROWS = Packing(0, 0, 0, np.zeros((0, 0), np.int64), _NO_TOKENS, _NO_TOKENS, np.zeros(0, np.int32), ())


class _Binding:
    """The pool's slots ``[low, high)`` bound to the graph, and the small arrays of the pass bound last; or, where it stays,
    those of one shape of pass."""

    def __init__(
        self, engine_session: Any, pools: dict[str, NDArray[np.float32]], low: int, high: int, capacity: int, stays: bool
    ) -> None:
        self._stays = stays
        self.io = engine_session.io_binding()
        # Views are written to: for a few numbers NumPy's way to an array touches more than a pass does otherwise.
        seqlens_k = np.zeros(high - low, np.int32)
        self.seqlens_k = seqlens_k.data
        self.token_ids = _NO_TOKENS.data
        self._packing: Packing | None = None
        self._logits: Any = None
        # Arrays are bound by what they are: the runtime holds them, and that takes a third of binding their addresses.
        self.io.bind_cpu_input("seqlens_k", seqlens_k)
        self.io.bind_cpu_input("total_sequence_length", np.array(capacity, np.int32))
        for name, pool in pools.items():
            part = pool[low:high]
            self.io.bind_cpu_input(f"past_key_values.{name}", part)
            self.io.bind_output(f"present.{name}", "cpu", 0, np.float32, part.shape, part.ctypes.data)

    def prepare(self, packing: Packing, kept: KeptLogits) -> NDArray[np.float32]:
        """Bind what differs from the last pass; the array that will hold the logits comes back, from what is ``kept`` if that
        has the rows."""
        if packing is not self._packing:
            self._bind_rows(packing, np.zeros(len(packing.unpad_idx), np.int64))  # fillers are tokens, too
            self._packing, self._logits = packing, None
        num_rows = packing.num_rows
        found = kept.first(num_rows)
        if found is not None:
            logits, value = found
            if self._logits is not value:
                self.io.bind_ortvalue_output("logits", value)
                self._logits = value
            return logits
        self._logits = None
        logits = np.empty((num_rows, kept.vocabulary_size), np.float32)
        self.io.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        return logits

    def forget(self) -> None:
        """Hold on to nothing of the last pass, unless it is one that comes again."""
        if self._stays or self._packing is None:
            return
        self._bind_rows(_NO_ROWS, _NO_TOKENS)
        self._packing = self._logits = None

    def _bind_rows(self, packing: Packing, input_ids: NDArray[np.int64]) -> None:
        self.token_ids = input_ids.data
        self.io.bind_cpu_input("input_ids", input_ids)
        self.io.bind_cpu_input("pad_idx", packing.pad_idx)
        self.io.bind_cpu_input("unpad_idx", packing.unpad_idx)
        self.io.bind_cpu_input("out_idx", packing.out_idx)
        self.io.bind_cpu_input("query_seqlens", packing.query_seqlens)


class OnnxEngine:
    """An ``Engine``, ``Forkable``, ``GivesBack``, ``Reserves`` and ``CanPairRows`` over one variant of a package. Not for use
    by two threads at once.

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
        # The session computes with memory of the matrices, where they are convolved.
        self._session, self._matrices = _load(package, variant, threads)
        self._least_logits = int(self.is_convolved)
        names = [f"{n}.{kind}" for n in range(shape.num_layers) for kind in ("key", "value")]
        size = (len(names), num_slots, shape.num_kv_heads, self._capacity, shape.head_size)
        self._pages, self._gives_back = CachePages(size), False
        self._memory = self._pages.array
        self._pools = dict(zip(names, self._memory, strict=True))
        self._bindings: dict[tuple[int, int, Packing | None], _Binding] = {}
        self._last: _Binding | None = None
        self._description = EngineDescription(
            name=f"{package.name}:{variant}",
            vocabulary_size=shape.vocabulary_size,
            context_length=package.context_length,
            num_slots=num_slots,
            num_parameters=package.num_parameters,
            weight_bytes=package.weight_bytes(variant),
            kv_bytes_per_token=shape.kv_bytes_per_token,
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
        numbers = [slot.number for slot in slots]
        low, high = min(numbers), max(numbers) + 1
        # Lists: NumPy's own way to the least and the largest of few takes longer than all of them.
        token_ids: list[int] = []
        shares: list[Share] = []
        for number, chunk in enumerate(chunks):
            token_ids += chunk.token_ids
            shares.append((numbers[number] - low, len(chunk.token_ids), chunk.num_logits))
        self._slots.check_token_ids(min(token_ids), max(token_ids))
        packing = pack(tuple(shares), high - low, self._rows_multiple, self._tokens_multiple, self._least_logits)
        binding = self._binding(low, high, packing)
        logits = binding.prepare(packing, self._kept_logits)
        binding.token_ids[: packing.num_tokens] = array(_INT64, token_ids)
        _fill_lengths(binding.seqlens_k, packing.rows, slots, low)
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

    def give_back_memory(self) -> None:
        if not CAN_RETURN:
            raise ConfigurationError("memory of caches can be given back on Linux only")
        if self._slots.num_open:
            raise ConfigurationError("memory of caches is given back from the start on, before one is opened")
        self._pages.in_small_pages()
        self._gives_back = True

    def cache_bytes(self, num_tokens: int) -> int:
        return self._pages.bytes_of(num_tokens + self._rows_multiple - 1)

    def reserve(self, num_rows: int) -> None:
        arena.reserve(_scratch_bytes(self._architecture, self._description.num_slots, num_rows))

    def fork(self, cache: CacheId, length: int | None = None) -> CacheId:
        child, slot, parent = self._slots.fork(cache, length)
        self._memory[:, slot.number, :, : slot.length] = self._memory[:, parent.number, :, : slot.length]
        return child

    def _binding(self, low: int, high: int, packing: Packing) -> _Binding:
        # Drafts make the passes of a session that is alone take turns between few shapes, and to bind one anew costs as much as
        # its choice. Those of many sessions hardly ever come again.
        is_alone = self._slots.num_open == 1 and packing.num_tokens <= LOGITS_KEPT_BOUND
        key = (low, high, packing if is_alone else None)
        binding = self._bindings.get(key)
        if binding is None:
            if len(self._bindings) >= MAX_BINDINGS:
                del self._bindings[next(iter(self._bindings))]
            binding = self._bindings[key] = _Binding(self._session, self._pools, low, high, self._capacity, is_alone)
        if self._last is not binding:
            if self._last is not None:
                # Else every range of slots would keep the arrays of a pass that never comes again.
                self._last.forget()
            self._last = binding
        return binding


def _fill_lengths(seqlens_k: memoryview, rows: Sequence[int], slots: Sequence[Slot], low: int) -> None:
    """Tokens behind this pass minus one. Idle slots have no rows, so that theirs is not looked at beyond being in range."""
    if len(slots) < len(rows):
        seqlens_k[:] = np.zeros(len(rows), np.int32).data
    for slot in slots:
        place = slot.number - low
        seqlens_k[place] = slot.length + rows[place] - 1


def _scratch_bytes(shape: Architecture, num_slots: int, num_rows: int) -> int:
    """What a pass of at most so many rows computes with, however they fall on the slots, and a quarter more for holes.

    Attention has a padded batch: all slots, each as many rows as the longest share, of queries, keys and values, those turned
    for the kernel, and what comes out. Beside that the scores of one session, and the feed-forward layer.
    """
    longest = min(num_rows, shape.context_length)
    queries, keys = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
    padded = num_slots * (longest + longest % 2) * (2 * (queries + 2 * keys) + queries)
    rows = longest * shape.num_heads * slot_capacity(shape.context_length)
    rows += num_rows * (2 * shape.intermediate_size + 2 * shape.hidden_size)
    return (padded + rows) * 4 * 5 // 4


def _load(package: Package, variant: str, threads: int) -> tuple[Any, Convolved | None]:
    """A session of ONNX Runtime on the CPU, and what has to live as long; the graph's file is checked before it is opened."""
    linear = LINEARS.get(variant)
    if isinstance(linear, Int8Linear) and not are_whole(linear.block):
        name = f"{package.name}:{variant}"
        raise ConfigurationError(f"{name}: ONNX Runtime cuts off sums of 8-bit blocks on this processor; take i8, q4 or fp32")
    options = arena.in_shared_arena()
    options.intra_op_num_threads = threads
    # It would keep a plan of memory for every shape of a pass, and hardly two ragged passes have the same.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path = package.graph(variant)
    with in_large_pages():
        made = convolved(path, read_graph(path))
        if made is not None:
            made.tell(options, path.parent)
        try:
            graph = str(path) if made is None else made.graph
            session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise PackageError(f"{path} cannot be loaded by ONNX Runtime: {error}") from error
    _check_interface(session, package, path.name)
    return session, made


def _check_interface(session: Any, package: Package, name: str) -> None:
    """The graph must have exactly the inputs that ``graph.py`` gives it, with the cache that ``config.json`` says."""
    shape = package.architecture
    caches = {f"past_key_values.{n}.{kind}" for n in range(shape.num_layers) for kind in ("key", "value")}
    small = {"input_ids", "pad_idx", "unpad_idx", "out_idx", "seqlens_k", "query_seqlens", "total_sequence_length"}
    found = {value.name: value.shape for value in session.get_inputs()}
    if found.keys() != caches | small:
        wrong = ", ".join(sorted(found.keys() ^ (caches | small)))
        raise PackageError(f"{name} is not a packed graph with {shape.num_layers} layers; missing or unexpected: {wrong}")
    sizes = {tuple(found[cache][1::2]) for cache in caches}  # as many as there are: a damaged graph may have fewer dimensions
    if sizes != {(shape.num_kv_heads, shape.head_size)}:
        wanted = f"{shape.num_kv_heads} heads of {shape.head_size}"
        raise PackageError(f"{name} keeps key-value heads of {sorted(map(str, sizes))}; config.json says {wanted}")
    vocabulary = next(iter(session.get_outputs()[0].shape[1:]), None)
    if vocabulary != shape.vocabulary_size:
        raise PackageError(f"{name} has a vocabulary of {vocabulary}; config.json says {shape.vocabulary_size}")
