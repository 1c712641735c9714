"""What a hostile peer may send. A step is six bytes, so that Hypothesis draws, shrinks and repeats whole histories cheaply."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from speculation.protocol.messages import CHOICE_RULE, PairIdentity
from speculation.wire.v1 import verification_pb2 as pb

GIANTS = (0, 1, 2, 3, 127, 128, 2**16, 2**31 - 1, 2**31, 2**32 - 1)
ODD_FLOATS = (0.0, 0.5, 1.0, 5e-324, 1e-300, 100.0, -1.0, float("inf"), float("nan"))
ODD_TEXTS = ("", "x", "é" * 40, "0" * 64, "y" * 20_000, "😀" * 5_000)
STEP = st.binary(min_size=6, max_size=6)
VOCABULARY = 8


def good_open(identity: PairIdentity, session_id: str, prefix: list[int], max_tokens: int) -> pb.VerifyRequest:
    """An ``Open`` that is served."""
    return pb.VerifyRequest(
        open=pb.Open(
            session_id=session_id,
            attempt=1,
            identity=pb.PairIdentity(**{name: getattr(identity, name) for name in identity.__dataclass_fields__}),
            choice_rule=CHOICE_RULE,
            prefix=prefix,
            generation_start=len(prefix),
            max_tokens=max_tokens,
            parameters=pb.SamplingParameters(temperature=0.8, top_p=0.95, seed=11),
        )
    )


def odd_open(good: pb.VerifyRequest, step: bytes) -> pb.VerifyRequest:
    """A good ``Open`` with one of its fields made to something else."""
    a, b, c = step[0], step[1], step[2]
    number, text, numbers = GIANTS[b % 10], ODD_TEXTS[b % 6], [GIANTS[b % 10]] * (c % 40)
    floats = dict.fromkeys(("temperature", "top_p", "min_p")[c % 3 :][:1], ODD_FLOATS[b % 9])
    changes = (
        {"attempt": number},
        {"choice_rule": text},
        {"prefix": numbers},
        {"generation_start": number},
        {"max_tokens": number},
        {"end_token_ids": numbers},
        {"priority": number - 2**31},
        {"deadline_ms": number * 2**32},
        {"logprobs": number},
        {"fingerprint": text},
        {"parameters": pb.SamplingParameters(**{"temperature": 0.8, "top_k": number} | floats)},
        {"identity": pb.PairIdentity(tokenizer_digest=text)},
        {"session_id": text},
    )
    wire = pb.VerifyRequest(open=good.open)
    for name, value in changes[a % len(changes)].items():
        wire.open.ClearField(name)
        wire.open.MergeFrom(pb.Open(**{name: value}))
    return wire


class HostileDevice:
    """Keeps its numbers in order, and half of its drafts right, until a step says otherwise."""

    def __init__(self, good: pb.VerifyRequest, truth: Sequence[int]) -> None:
        self._good = good
        self._truth = truth
        self._next = 1

    def request(self, step: bytes, known: int) -> bytes:
        """The bytes that a step stands for, to a verifier whose log has at least ``known`` tokens."""
        kind, a, b, c, _, _ = step
        match kind % 16:
            case 11:
                return pb.VerifyRequest(draft=pb.Draft(known=known, passes=True)).SerializeToString()
            case 12 if a < 128:
                return pb.VerifyRequest(cancel=pb.Cancel()).SerializeToString()
            case 12:
                return odd_open(self._good, step[1:]).SerializeToString()
            case 13:
                return pb.VerifyRequest(draft=_giant(step)).SerializeToString()
            case 14:
                numbers = [known, self._next, *[GIANTS[byte % 10] if byte > 128 else byte % 9 for byte in (a, b, c)] * 2]
                return pb.VerifyRequest(draft=pb.Draft(packed=numbers[: 2 + a % 7])).SerializeToString()
            case 15:
                return damaged(self._draft(step, known), step)
        return self._draft(step, known)

    def _draft(self, step: bytes, known: int) -> bytes:
        """A chain, or several branches; where a step says so, of wrong numbers, at a wrong place, too long, or packed."""
        kind, a, b, c, d, e = step
        length = 20 + a % 24 if kind % 16 == 7 else 1 + a % 8
        first = max(1, self._next - a % 4) if kind % 16 == 8 else self._next
        first += GIANTS[1 + b % 9] if kind % 16 == 9 else 0
        ahead = GIANTS[1 + b % 9] if kind % 16 == 10 else 0
        root = known + (b % 3 if kind % 16 == 5 else 0)
        parent = 1 + b % self._next if kind % 16 in (4, 6) else 0
        tokens = [self._token(root + index, b, d) for index in range(length)]
        self._next = max(self._next, min(first, self._next) + length)
        if kind % 2 and root == known and not parent:
            codes = [2 * token for token in tokens]
            numbers = [known + ahead, first, codes[0] + 1, c % 4 if c < 200 else c, *codes[1:]]
            return pb.VerifyRequest(draft=pb.Draft(packed=[n % 2**32 for n in numbers])).SerializeToString()
        branch = pb.Branch(parent=parent, root_position=root, rank=c % 3, token_ids=tokens)
        draft = pb.Draft(known=(known + ahead) % 2**32, first_number=first % 2**32, branches=[branch], passes=e > 200)
        return pb.VerifyRequest(draft=draft).SerializeToString()

    def _token(self, position: int, b: int, d: int) -> int:
        is_right = d % 2 and position < len(self._truth)
        return self._truth[position] if is_right else GIANTS[d % 10] if d > 225 else (b + position) % VOCABULARY


def _giant(step: bytes) -> pb.Draft:
    known, first, parent, root, rank = [GIANTS[byte % 10] for byte in step[1:]]
    return pb.Draft(
        known=known, first_number=first, branches=[pb.Branch(parent=parent, root_position=root, rank=rank, token_ids=[root, 1])]
    )


def damaged(data: bytes, step: bytes) -> bytes:
    """Cut, changed, doubled, with a tail, or nothing of it."""
    _, _, _, how, at, value = step
    at %= len(data) + 1
    match how % 5:
        case 0:
            return data[:at]
        case 1:
            return data[:at] + bytes([value]) + data[at + 1 :]
        case 2:
            return data + data
        case 3:
            return data + step
    return step


class HostileVerifier:
    """Answers a device whose nodes it was told of; most of its verdicts could be true."""

    def __init__(self) -> None:
        self._positions = {0: -1}

    def heard(self, nodes: Sequence[object]) -> None:
        """What the device sent."""
        for node in nodes:
            parent = self._positions[node.parent] if node.parent else node.root_position - 1
            self._positions[node.number] = parent + 1

    def response(self, step: bytes, length: int) -> bytes:
        """The bytes that a step stands for, to a device whose log has ``length`` tokens."""
        kind, a, b, c, _, _ = step
        match kind % 16:
            case 11:
                return pb.VerifyResponse(
                    finished=pb.Finished(reason=a % 8, usage=pb.Usage(late=GIANTS[b % 10]))
                ).SerializeToString()
            case 12:
                wire = pb.Opened(
                    session_id=("s", "s", "s", *ODD_TEXTS)[a % 9], credit=GIANTS[b % 10], fingerprint=ODD_TEXTS[c % 6]
                )
                return pb.VerifyResponse(opened=wire).SerializeToString()
            case 13:
                start, count, node, choice, advice = [GIANTS[byte % 10] for byte in step[1:]]
                wire = pb.Verdict(start=start, count=count, last_node=node, choice=choice, kind=1 + a % 3, advice=advice)
                return pb.VerifyResponse(verdict=wire).SerializeToString()
            case 14 | 15:
                return damaged(self._verdict(step, length), step)
        return self._verdict(step, length)

    def _verdict(self, step: bytes, length: int) -> bytes:
        kind, a, b, c, d, _ = step
        start = max(0, length + (b % 5 - 2 if kind % 16 in (8, 9) else 0))
        sent = sorted(number for number, position in self._positions.items() if position >= start)
        node = sent[a % len(sent)] if sent and kind % 3 else 0
        count = self._positions[node] + 1 - start if node else 0
        count += c % 2 if kind % 16 in (6, 7) and node else 0
        wire = pb.Verdict(start=start, count=count, last_node=node, choice=d % VOCABULARY, kind=1 + a % 3, advice=c % 40)
        return pb.VerifyResponse(verdict=wire).SerializeToString()
