from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class VerdictKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_KIND_UNSPECIFIED: _ClassVar[VerdictKind]
    VERDICT_KIND_ACCEPT: _ClassVar[VerdictKind]
    VERDICT_KIND_REVOKE_AND_CORRECT: _ClassVar[VerdictKind]
    VERDICT_KIND_DECODED: _ClassVar[VerdictKind]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
    FINISH_REASON_DEADLINE: _ClassVar[FinishReason]
    FINISH_REASON_SHUTDOWN: _ClassVar[FinishReason]
VERDICT_KIND_UNSPECIFIED: VerdictKind
VERDICT_KIND_ACCEPT: VerdictKind
VERDICT_KIND_REVOKE_AND_CORRECT: VerdictKind
VERDICT_KIND_DECODED: VerdictKind
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason
FINISH_REASON_DEADLINE: FinishReason
FINISH_REASON_SHUTDOWN: FinishReason

class VerifyRequest(_message.Message):
    __slots__ = ("open", "draft", "cancel", "padding")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    DRAFT_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    open: Open
    draft: Draft
    cancel: Cancel
    padding: bytes
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., draft: _Optional[_Union[Draft, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., padding: _Optional[bytes] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ("opened", "verdict", "finished", "padding")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    opened: Opened
    verdict: Verdict
    finished: Finished
    padding: bytes
    def __init__(self, opened: _Optional[_Union[Opened, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ..., padding: _Optional[bytes] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("session_id", "attempt", "identity", "choice_rule", "prefix", "generation_start", "max_tokens", "parameters", "end_token_ids", "priority", "deadline_ms", "fingerprint", "logprobs", "cover", "timings")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_FIELD_NUMBER: _ClassVar[int]
    CHOICE_RULE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_FIELD_NUMBER: _ClassVar[int]
    GENERATION_START_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    END_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    COVER_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    attempt: int
    identity: PairIdentity
    choice_rule: str
    prefix: _containers.RepeatedScalarFieldContainer[int]
    generation_start: int
    max_tokens: int
    parameters: SamplingParameters
    end_token_ids: _containers.RepeatedScalarFieldContainer[int]
    priority: int
    deadline_ms: int
    fingerprint: str
    logprobs: int
    cover: Cover
    timings: bool
    def __init__(self, session_id: _Optional[str] = ..., attempt: _Optional[int] = ..., identity: _Optional[_Union[PairIdentity, _Mapping]] = ..., choice_rule: _Optional[str] = ..., prefix: _Optional[_Iterable[int]] = ..., generation_start: _Optional[int] = ..., max_tokens: _Optional[int] = ..., parameters: _Optional[_Union[SamplingParameters, _Mapping]] = ..., end_token_ids: _Optional[_Iterable[int]] = ..., priority: _Optional[int] = ..., deadline_ms: _Optional[int] = ..., fingerprint: _Optional[str] = ..., logprobs: _Optional[int] = ..., cover: _Optional[_Union[Cover, _Mapping]] = ..., timings: _Optional[bool] = ...) -> None: ...

class Cover(_message.Message):
    __slots__ = ("pad_bytes", "tick_ms")
    PAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    TICK_MS_FIELD_NUMBER: _ClassVar[int]
    pad_bytes: int
    tick_ms: int
    def __init__(self, pad_bytes: _Optional[int] = ..., tick_ms: _Optional[int] = ...) -> None: ...

class PairIdentity(_message.Message):
    __slots__ = ("tokenizer_digest", "pair_digest", "full_digest", "version")
    TOKENIZER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    PAIR_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FULL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    tokenizer_digest: str
    pair_digest: str
    full_digest: str
    version: int
    def __init__(self, tokenizer_digest: _Optional[str] = ..., pair_digest: _Optional[str] = ..., full_digest: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class SamplingParameters(_message.Message):
    __slots__ = ("temperature", "top_k", "top_p", "min_p", "seed")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., seed: _Optional[int] = ...) -> None: ...

class Draft(_message.Message):
    __slots__ = ("known", "first_number", "branches", "passes", "packed")
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    FIRST_NUMBER_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    known: int
    first_number: int
    branches: _containers.RepeatedCompositeFieldContainer[Branch]
    passes: bool
    packed: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, known: _Optional[int] = ..., first_number: _Optional[int] = ..., branches: _Optional[_Iterable[_Union[Branch, _Mapping]]] = ..., passes: _Optional[bool] = ..., packed: _Optional[_Iterable[int]] = ...) -> None: ...

class Branch(_message.Message):
    __slots__ = ("parent", "root_position", "rank", "token_ids")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    ROOT_POSITION_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    parent: int
    root_position: int
    rank: int
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, parent: _Optional[int] = ..., root_position: _Optional[int] = ..., rank: _Optional[int] = ..., token_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session_id", "credit", "fingerprint", "is_exact", "cached", "reads_packed", "newest_pair", "logprobs", "cover")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    IS_EXACT_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    READS_PACKED_FIELD_NUMBER: _ClassVar[int]
    NEWEST_PAIR_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    COVER_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    credit: int
    fingerprint: str
    is_exact: bool
    cached: int
    reads_packed: bool
    newest_pair: int
    logprobs: int
    cover: Cover
    def __init__(self, session_id: _Optional[str] = ..., credit: _Optional[int] = ..., fingerprint: _Optional[str] = ..., is_exact: _Optional[bool] = ..., cached: _Optional[int] = ..., reads_packed: _Optional[bool] = ..., newest_pair: _Optional[int] = ..., logprobs: _Optional[int] = ..., cover: _Optional[_Union[Cover, _Mapping]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("start", "count", "last_node", "choice", "kind", "advice", "withhold", "logprobs", "timing")
    START_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LAST_NODE_FIELD_NUMBER: _ClassVar[int]
    CHOICE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ADVICE_FIELD_NUMBER: _ClassVar[int]
    WITHHOLD_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    start: int
    count: int
    last_node: int
    choice: int
    kind: VerdictKind
    advice: int
    withhold: bool
    logprobs: Logprobs
    timing: Timing
    def __init__(self, start: _Optional[int] = ..., count: _Optional[int] = ..., last_node: _Optional[int] = ..., choice: _Optional[int] = ..., kind: _Optional[_Union[VerdictKind, str]] = ..., advice: _Optional[int] = ..., withhold: _Optional[bool] = ..., logprobs: _Optional[_Union[Logprobs, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("pass_us", "rows", "held_us")
    PASS_US_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    HELD_US_FIELD_NUMBER: _ClassVar[int]
    pass_us: int
    rows: int
    held_us: int
    def __init__(self, pass_us: _Optional[int] = ..., rows: _Optional[int] = ..., held_us: _Optional[int] = ...) -> None: ...

class Logprobs(_message.Message):
    __slots__ = ("values", "top_ids", "top_values")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    TOP_IDS_FIELD_NUMBER: _ClassVar[int]
    TOP_VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    top_ids: _containers.RepeatedScalarFieldContainer[int]
    top_values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ..., top_ids: _Optional[_Iterable[int]] = ..., top_values: _Optional[_Iterable[float]] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("reason", "usage")
    REASON_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    reason: FinishReason
    usage: Usage
    def __init__(self, reason: _Optional[_Union[FinishReason, str]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("prompt_tokens", "completion_tokens", "passes", "proposed", "accepted", "late", "corrections", "bonus", "discarded", "near_ties")
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PROPOSED_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    CORRECTIONS_FIELD_NUMBER: _ClassVar[int]
    BONUS_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    NEAR_TIES_FIELD_NUMBER: _ClassVar[int]
    prompt_tokens: int
    completion_tokens: int
    passes: int
    proposed: int
    accepted: int
    late: int
    corrections: int
    bonus: int
    discarded: int
    near_ties: int
    def __init__(self, prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., passes: _Optional[int] = ..., proposed: _Optional[int] = ..., accepted: _Optional[int] = ..., late: _Optional[int] = ..., corrections: _Optional[int] = ..., bonus: _Optional[int] = ..., discarded: _Optional[int] = ..., near_ties: _Optional[int] = ...) -> None: ...
