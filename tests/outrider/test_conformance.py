"""The conformance cases: a sound verifier passes all of them, and each way to break one is told by a case."""

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cloud_verifier import admission, covering, passes, scheduling
from cloud_verifier.batching import allot
from cloud_verifier.config import VerifierConfig
from cloud_verifier.live import LiveSession
from cloud_verifier.pairs import Pairs
from cloud_verifier.seats import Seats
from cloud_verifier.server import serve
from outrider import cli, conformance
from outrider.conformance_bench import TEXT_TOKENS, Subject
from speculation.certificates import ClientTls
from speculation.choice import choose
from speculation.errors import HandshakeError, LinkError, MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.protocol import verifier as protocol
from speculation.protocol.messages import CHOICE_RULE, Cancel, Draft, Finished, FinishReason, Opened
from speculation.protocol.verifier import Plan, VerifierSession
from speculation.wire import codec, packed
from speculation.wire.padding import Padder
from tests.cloud_verifier import doubles
from tests.speculation.engines.tiny import tiny_pair
from tests.speculation.links.endpoint import Script, listening
from tests.support.certificates import made
from tests.support.keys import ALICE, key_file

LIMIT_S = 60
FROM_THE_FUTURE = ["refuses-a-known-length-from-the-future", "refuses-a-root-from-the-future"]
SUBJECT = Subject(doubles.IDENTITY, doubles.VOCABULARY, doubles.CONTEXT, (1, 2, 3))


@asynccontextmanager
async def serving(**changes):
    _, full_model = doubles.watched()
    async with asyncio.timeout(LIMIT_S), serve(doubles.settings(**changes), full_model=full_model) as running:
        yield running.target


async def failures(target, *only, timeout_s=20.0, subject=SUBJECT, key=None, tls=None):
    """What failed, by the case's name."""
    results = [result async for result in conformance.check(target, subject, timeout_s, only, key, tls)]
    assert results
    return {result.name: result.failure for result in results if not result.passed}


@pytest.mark.parametrize("changes", [{}, {"max_rows": 3}, {"credit": 32}, {"credit": 5000}, {"outbox_messages": 1}], ids=str)
async def test_a_sound_verifier_passes_every_case(changes):
    async with serving(**changes) as target:
        assert await failures(target) == {}


async def test_a_verifier_that_is_set_to_cover_what_it_sends_passes_as_one_that_is_not():
    async with serving(pad_bytes=256, tick_ms=10) as target:
        assert await failures(target, "accepts-right-drafts", "answers-cancel", "stops-at-the-limit") == {}


async def test_a_verifier_with_keys_passes_every_case_with_one_and_none_without(tmp_path):
    async with serving(keys=key_file(tmp_path)) as target:
        assert await failures(target, key=ALICE) == {}
        assert "UNAUTHENTICATED" in (await failures(target, "decodes-without-drafts"))["decodes-without-drafts"]
        told = await failures(target, "stops-at-the-limit")  # fails for want of the text, and that says nothing of a key
        assert "UNAUTHENTICATED" in told["decodes-without-drafts"]


async def test_a_verifier_with_tls_passes_every_case_over_tls(tmp_path):
    files = made(tmp_path, "service")
    tls = ClientTls(files.ca, files.cert, files.key)
    async with serving(tls_cert=files.cert, tls_key=files.key, tls_client_ca=files.ca) as target:
        assert await failures(target, tls=tls) == {}


def test_files_for_tls_reach_the_cases(monkeypatch, tmp_path, outrider):
    files, seen = made(tmp_path, "service"), []

    async def run(*arguments):
        seen.append(arguments[-1])

    monkeypatch.setattr(conformance, "run", run)
    where = ("conformance", "--verifier", "127.0.0.1:1")
    own = ("--cert", files.cert, "--cert-key", files.key)
    assert [outrider(*where, *more)[0] for more in ((), ("--ca", files.ca), ("--ca", files.ca, *own))] == [0, 0, 0]
    assert seen == [None, ClientTls(files.ca), ClientTls(files.ca, files.cert, files.key)]
    for wrong, said in ((own, "--cert: without --ca"), (own[:2], "--cert and --cert-key"), (("--ca", "gone"), "--ca: gone")):
        code, _, err = outrider(*where, *wrong)
        assert (code, said in err) == (2, True)


def take_in_any_order(self, draft):
    for node in draft.nodes:
        self._next_number += 1
        self._place(node)


def hang_what_is_unknown(self, node):
    """The children of the dead hang off the log's end, and so does what comes from the future."""
    parent = self._nodes.get(node.parent)
    position = node.root_position if node.parent == 0 else len(self._final)
    self._hang(node, parent, position if parent is None else parent.position + 1)


def remember_all(self, number, node):
    self._nodes[number] = node


def commit_another_choice(self, plan, choices, *rest, commit=VerifierSession.commit, **more):
    """A wrong draft is corrected by something else than the choice."""
    agreed = protocol.run_length(plan.token_ids, choices)
    if agreed < len(plan.token_ids):
        choices = [*choices[:agreed], (choices[agreed] + 1) % doubles.VOCABULARY, *choices[agreed + 1 :]]
    return commit(self, plan, choices, *rest, **more)


def choose_every_row(logits, runs):
    rows = [(run.position + place, run.parameters) for run in runs for place in range(len(run.drafted) + 1)]
    return choose(logits, *zip(*rows, strict=True))


def commit_a_gap(self, *arguments, commit=VerifierSession.commit, **more):
    verdict, finished = commit(self, *arguments, **more)
    return replace(verdict, start=verdict.start + 1), finished


def finish_without_counting(self, reason, finish=VerifierSession.finish):
    finish(self, reason)
    self.finished = Finished(reason)
    return self.finished


def begin_without_end_tokens(self, message, credit, begin=VerifierSession.__init__):
    begin(self, replace(message, end_token_ids=()), credit)


def pass_a_near_limit(self):
    """Not that of the text which the cases compare with: without it each of them fails, whatever it is for."""
    return self._limit + (3 if self._limit < len(SUBJECT.prompt) + TEXT_TOKENS else 0)


def attach_whoever_comes(self, message, tenant):
    return self.newest.attach(replace(message, identity=self.newest.identity, choice_rule=CHOICE_RULE), tenant)


def refuse_without_digests(self, message, tenant, attach=Pairs.attach):
    if message.identity != self.newest.identity:
        raise HandshakeError("another pair")
    return attach(self, message, tenant)


def hear_no_cancel(self, message, receive=LiveSession.receive):
    if not isinstance(message, Cancel):
        receive(self, message)


def unpack_what_hangs_nowhere(numbers, passes, unpack=packed.unpack):
    try:
        return unpack(numbers, passes)
    except MalformedMessageError:
        return Draft((), 0, passes)


def tell_the_first_alone(self, *arguments, commit=VerifierSession.commit, **more):
    verdict, finished = commit(self, *arguments, **more)
    return replace(verdict, logprobs=verdict.logprobs[:1] * (verdict.end - verdict.start)), finished


def wait_for_drafts(claims, drafts, max_rows):
    """No rows for a session with nothing but its prompt, or its last token."""
    wanted = [claim.num_uncached + count for claim, count in zip(claims, drafts, strict=True)]
    served = [claim.served for claim in claims]
    return [rows if rows > len(SUBJECT.prompt) else 0 for rows in allot(wanted, served, max_rows)]


BROKEN = [
    (Pairs, "attach", attach_whoever_comes, ["refuses-another-pair", "refuses-another-rule"]),
    (Pairs, "attach", refuse_without_digests, ["refuses-another-pair"]),
    (scheduling, "_allotted", wait_for_drafts, ["decodes-without-drafts"]),
    (VerifierSession, "plan", lambda self, _: Plan((), (), len(self.final)), ["accepts-right-drafts"]),
    (protocol, "run_length", lambda token_ids, _: len(token_ids), ["corrects-wrong-drafts"]),
    (VerifierSession, "commit", commit_another_choice, ["corrects-wrong-drafts"]),
    (VerifierSession, "commit", commit_a_gap, ["decodes-without-drafts", "accepts-right-drafts"]),
    (
        VerifierSession,
        "_take",
        take_in_any_order,
        ["ignores-repeated-drafts", "refuses-a-gap-in-numbers", FROM_THE_FUTURE[0]],
    ),
    (packed, "unpack", lambda numbers, passes: Draft((), numbers[0], passes), ["reads-packed-drafts"]),
    (packed, "unpack", unpack_what_hangs_nowhere, ["refuses-a-packed-draft-that-hangs-nowhere"]),
    (VerifierSession, "_place", hang_what_is_unknown, FROM_THE_FUTURE[1:]),
    (VerifierSession, "_remember", remember_all, ["refuses-more-than-its-credit"]),
    (VerifierSession, "_forget_below", lambda *_: None, ["gives-credit-back"]),
    (VerifierSession, "limit", property(pass_a_near_limit), ["stops-at-the-limit"]),
    (VerifierSession, "__init__", begin_without_end_tokens, ["stops-at-an-end-token", "finishes-a-complete-prefix"]),
    (VerifierSession, "finish", finish_without_counting, ["decodes-without-drafts", "answers-cancel"]),
    (LiveSession, "receive", hear_no_cancel, ["answers-cancel", "bears-its-credit"]),
    (LiveSession, "_start_deadline", lambda *_: None, ["keeps-the-deadline"]),
    (Seats, "find", lambda *_: None, ["lets-a-higher-attempt-take-over"]),
    (Padder, "encode", lambda _, message: codec.encode(message).SerializeToString(), ["covers-what-it-sends"]),
    (VerifierSession, "commit", tell_the_first_alone, ["tells-log-probabilities"]),
    (passes, "token_logprobs", lambda *_: TokenLogprobs(-1.0, ((5, -2.0), (4, -2.0), (3, -0.1))), ["tells-log-probabilities"]),
    (admission, "MAX_LOGPROBS", 2**32, ["refuses-absurdly-many-log-probabilities"]),
    (covering, "granted", lambda message, _: message, ["refuses-an-absurd-cover"]),
]


@pytest.mark.parametrize(("owner", "name", "broken", "told"), BROKEN, ids=lambda value: getattr(value, "__name__", None))
async def test_a_broken_verifier_is_told_by_the_case_that_is_for_it(owner, name, broken, told, monkeypatch):
    monkeypatch.setattr(owner, name, broken)
    monkeypatch.setattr(passes, "choose_runs", choose_every_row)  # who goes on behind a wrong draft has choices there
    hasty = replace(SUBJECT, context_length=128)  # what is refused too late, or never, runs to its limit: let that be near
    async with serving() as target:
        assert sorted(await failures(target, *told, timeout_s=1.5, subject=hasty)) == sorted(told)


async def test_a_verifier_that_says_nothing_right_passes_no_case():
    async with asyncio.timeout(LIMIT_S), listening(Script([Finished(FinishReason.LENGTH)])) as target:
        told = await failures(target, timeout_s=2.0)
    assert set(told) == {case.name for case in conformance.CASES}
    assert "expected Opened before Finished" in told["decodes-without-drafts"]


async def test_a_verifier_that_opens_another_session_is_told():
    async with asyncio.timeout(LIMIT_S), listening(Script([Opened("another", 32, "f")])) as target:
        told = await failures(target, "decodes-without-drafts", timeout_s=2.0)
    assert "got another" in told["decodes-without-drafts"]


async def test_a_silent_verifier_is_told_by_the_time_limit():
    async with asyncio.timeout(LIMIT_S), listening(Script(stays_open=True)) as target:
        told = await failures(target, "decodes-without-drafts", timeout_s=0.2)
    assert told == {"decodes-without-drafts": "no end of the case within 0.2 s"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair") / "tiny"
    tiny_pair(folder)
    return folder


async def test_the_command_prints_a_line_a_case_and_leaves_with_0(pair, capsys):
    async with asyncio.timeout(LIMIT_S), serve(VerifierConfig(port=0, pair=pair)) as running:
        assert await conformance.run(running.target, pair, is_json=False) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[1].rstrip(":") for line in lines] == [case.name for case in conformance.CASES]
    assert all(line.startswith("passed") for line in lines)
    assert last == f"{len(lines)} of {len(lines)} cases passed by the verifier at {running.target}"


async def test_the_command_tells_in_json_what_failed_and_leaves_with_1(capsys):
    """The bundled pair is not what this verifier runs."""
    async with serving() as target:
        assert await conformance.run(target, None, is_json=True, only=["decodes-without-drafts", "refuses-another-rule"]) == 1
    first, second, summary = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["event"], first["name"], first["passed"]) == ("case", "decodes-without-drafts", False)
    assert "FAILED_PRECONDITION" in first["failure"]
    assert (second["passed"], second["failure"]) == (True, None)
    assert summary == {"event": "summary", "verifier": target, "passed": 1, "failed": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--verifier"),
        (["--verifier", "nowhere"], "host:port"),
        (["--verifier", "127.0.0.1:1,127.0.0.1:2"], "the one to check"),
        (["--verifier", "http://127.0.0.1:1/v1/verifiers"], "the one to check"),
        (["--verifier", "127.0.0.1:1", "--pair", "there-is-no-such-folder"], "is not a folder"),
        (["--verifier", "127.0.0.1:1", "--case", "flies"], "decodes-without-drafts"),
        (["--verifier", "127.0.0.1:1", "--timeout", "0"], "over 0 s"),
    ],
    ids=" ".join,
)
def test_bad_arguments_are_one_line_and_exit_code_2(arguments, said, capsys):
    assert cli.run(lambda: cli.app(["conformance", *arguments], standalone_mode=False)) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


async def test_a_verifier_that_is_not_there_is_told_at_once(unused_tcp_port, pair):
    with pytest.raises(LinkError, match="no verifier"):
        await conformance.run(f"127.0.0.1:{unused_tcp_port}", pair, is_json=False)


def test_every_promise_of_a_case_is_in_the_protocols_page():
    page = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text("utf-8")
    assert [case.name for case in conformance.CASES if f"`{case.name}`" not in page] == []
