"""The verifier's figures: under the virtual clock to the digit, then over real HTTP behind the door."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import asynccontextmanager

import httpx
import pytest

from cloud_verifier.counts import MAX_POSITIONS, Counts, Times
from cloud_verifier.metrics import VerifierMetrics
from cloud_verifier.room import Room
from cloud_verifier.server import serve
from speculation.errors import CapacityError, ConfigurationError, InvalidRequestError
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Cancel, Draft, Node
from speculation.tenants import bearer
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import collect, settings, wait_until
from tests.cloud_verifier.sessions import LIMIT_S, check_texts, held, opened, refusal, truth_of
from tests.cloud_verifier.virtual import PASS_S, TimedEngine, follow, running, virtually
from tests.support.certificates import made
from tests.support.figures import Figures
from tests.support.keys import ALICE, BOB, WRONG, key_file

OURS, THEIRS = "outrider_verifier_", "vllm:"
VLLM_TYPES = {
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "request_time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "prompt_tokens": "counter",
    "generation_tokens": "counter",
    "request_success": "counter",
    "spec_decode_num_drafts": "counter",
    "spec_decode_num_draft_tokens": "counter",
    "spec_decode_num_accepted_tokens": "counter",
    "spec_decode_num_accepted_tokens_per_pos": "counter",
}


@asynccontextmanager
async def measured(compat=None, engine=None, **changes):
    """A verifier under the virtual clock, and a function that reads its figures."""
    async with running(engine or TimedEngine(), **changes) as (_, verifier, connector):
        metrics = VerifierMetrics(verifier, "model", compat)
        yield lambda: Figures.of(metrics.registry), verifier, connector


@virtually
async def test_times_are_those_of_the_loops_clock():
    async with measured() as (figures, _, connector):
        await follow(await opened(connector, max_tokens=5))
        told = figures()
    assert told[OURS + "passes_total"] == told[OURS + "pass_seconds_count"] == 5
    assert told[OURS + "pass_seconds_sum"] == 5 * PASS_S
    assert told[OURS + "rows_total"] == 3 + 4
    assert told[OURS + "queue_seconds_sum"] == 0
    assert told[OURS + "first_token_seconds_sum"] == told[OURS + "prefill_seconds_sum"] == PASS_S
    assert (told[OURS + "inter_token_seconds_count"], told[OURS + "inter_token_seconds_sum"]) == (4, 4 * PASS_S)
    assert told[OURS + "decode_seconds_sum"] == 4 * PASS_S
    assert told[OURS + "token_seconds_sum"] == PASS_S
    assert told[OURS + "session_seconds_sum"] == 5 * PASS_S
    assert told[OURS + "prompt_tokens_total"] == 3
    assert told[OURS + "final_tokens_total"] == 5


@virtually
async def test_a_session_that_comes_during_a_pass_waits_in_the_queue_until_the_next():
    async with measured() as (figures, _, connector):
        first = await opened(connector, session_id="first")
        await asyncio.sleep(PASS_S / 4)
        second = await opened(connector, session_id="second")
        now = figures()
        assert (now[OURS + "sessions_running"], now[OURS + "sessions_waiting"]) == (0, 2)  # the pass is not over
        for link in (first, second):
            await follow(link)
        told = figures()
    assert told[OURS + "queue_seconds_sum"] == PASS_S * 3 / 4
    assert (told[OURS + "sessions_running"], told[OURS + "sessions_waiting"]) == (0, 0)
    assert told.get(OURS + "sessions_ended_total", reason="length") == told[OURS + "sessions_opened_total"] == 2


@virtually
async def test_drafts_are_counted_by_place_in_their_chain_and_a_wrong_one_as_a_correction():
    truth = truth_of((1, 2, 3), SamplingParameters(), 8)
    wrong = (truth[6] + 1) % doubles.VOCABULARY
    nodes = (Node(1, 0, truth[4], 4), Node(2, 1, truth[5]), Node(3, 2, wrong))
    async with measured(patience=1000) as (figures, _, connector):
        link = await opened(connector)
        await link.receive()
        await link.send(Draft(nodes, 4))
        await link.receive()
        told = figures()
        assert told[OURS + "patience_seconds"] == 1
    assert told[OURS + "chains_total"] == told[OURS + "corrections_total"] == 1
    assert (told[OURS + "drafted_tokens_total"], told[OURS + "accepted_tokens_total"]) == (3, 2)
    places = [told.get(OURS + "accepted_tokens_by_place_total", position=str(place)) for place in range(4)]
    assert places == [1, 1, 0, 0]
    assert told[OURS + "final_tokens_total"] == 4
    assert told[OURS + "inter_token_seconds_count"] == 3  # three at once: each counts


@virtually
async def test_memory_of_caches_is_told_by_size_class_where_it_is_limited():
    async with measured() as (figures, verifier, connector):
        verifier.seats.limit(Room(doubles.CONTEXT, doubles.CONTEXT, lambda num_tokens: num_tokens))
        await opened(connector, max_tokens=doubles.CONTEXT // 2 - 3)
        told = figures()
        classes = [told.get(OURS + "cache_bytes", context=share) for share in ("1/4", "1/2", "1/1")]
        assert classes == [0, doubles.CONTEXT // 2, 0]


@virtually
async def test_caches_in_use_are_seen_and_given_back():
    async with measured() as (figures, verifier, connector):
        link = await opened(connector)
        await link.receive()
        now = figures()
        assert (now[OURS + "slots"], now[OURS + "slots_used"]) == (8, 1)
        assert now[OURS + "cache_usage_ratio"] == 3 / (8 * doubles.CONTEXT)
        assert now.get(OURS + "tenant_sessions", tenant="") == 1
        await link.send(Cancel())
        await wait_until(lambda: verifier.num_sessions == 0)
        told = figures()
    assert told[OURS + "slots_used"] == told[OURS + "cache_usage_ratio"] == 0
    assert told.get(OURS + "sessions_ended_total", reason="cancelled") == 1
    assert told.get(OURS + "tenant_sessions", tenant="") == 0
    assert told[OURS + "session_seconds_count"] == 0  # it was not written to its end


@virtually
async def test_every_session_that_began_ends_once_whatever_ends_it():
    async with measured() as (figures, verifier, connector):
        await follow(await opened(connector, session_id="written"))
        await opened(connector, session_id="taken over")
        await (await opened(connector, session_id="taken over", attempt=2)).aclose()
        await opened(connector, session_id="late", deadline_ms=1, max_tokens=300)
        await asyncio.sleep(1)
        broken = await opened(connector, session_id="broken")
        await broken.send(Draft((Node(9, 8, 5),), 3))
        await wait_until(lambda: verifier.num_sessions == 0)
        told = figures()
    reasons = ("length", "aborted", "unavailable", "deadline_exceeded", "invalid_argument")
    assert [told.get(OURS + "sessions_ended_total", reason=reason) for reason in reasons] == [1, 1, 1, 1, 1]
    assert told[OURS + "sessions_opened_total"] == 5
    assert (told[OURS + "sessions_running"], told[OURS + "sessions_waiting"]) == (0, 0)


@virtually
async def test_all_of_vllms_names_are_there_with_their_types_and_our_figures():
    async with measured("vllm") as (figures, _, connector):
        await follow(await opened(connector))
        cancelled = await opened(connector, session_id="cancelled")
        await cancelled.send(Cancel())
        await follow(cancelled)
        told = figures()
    model = {"model_name": "model"}
    assert {name: told.type_of(THEIRS + name) for name in VLLM_TYPES} == VLLM_TYPES
    assert {family for family in told.families if family.startswith(THEIRS)} == {THEIRS + name for name in VLLM_TYPES}
    assert told.get(THEIRS + "generation_tokens_total", **model) == told[OURS + "final_tokens_total"] == 8
    assert told.get(THEIRS + "request_success_total", finished_reason="length", **model) == 1
    assert told.get(THEIRS + "request_success_total", finished_reason="abort", **model) == 1
    assert told.get(THEIRS + "time_to_first_token_seconds_count", **model) == 1
    assert told.get(THEIRS + "time_to_first_token_seconds_bucket", le="0.001", **model) == 0
    assert told.get(THEIRS + "spec_decode_num_accepted_tokens_per_pos_total", position="0", **model) == 0


@virtually
async def test_without_the_setting_no_name_is_vllms():
    async with measured() as (figures, *_):
        assert [family for family in figures().families if not family.startswith(OURS)] == []


def test_a_chain_longer_than_the_counted_places_counts_as_a_whole():
    told = Counts.zero((), ())
    told.chain(MAX_POSITIONS + 9, MAX_POSITIONS + 5)
    assert (told.accepted, sum(told.accepted_at)) == (MAX_POSITIONS + 5, MAX_POSITIONS)


def test_one_token_has_no_time_between_tokens():
    times = Times(0.0, 0.0, 1.0, 1.0, 1)
    assert (times.decode_s, times.token_s) == (0.0, None)


@asynccontextmanager
async def served(**changes):
    """A verifier over gRPC that serves its figures over HTTP, and a client of these."""
    engine, full_model = doubles.watched()
    config = settings(metrics_port=0, **changes)
    async with asyncio.timeout(LIMIT_S), serve(config, full_model=full_model) as running, httpx.AsyncClient() as client:
        try:
            yield engine, running, client
        finally:
            engine.gate.set()


async def test_figures_are_served_over_http_and_count_what_came_over_grpc():
    async with served() as (engine, running, client):
        connector = GrpcConnector(running.target)
        engine.pass_s = 0.003  # drafts come in time
        await check_texts(connector, 0.7)
        await held(engine, connector, session_id="0")
        for number in range(1, 8):
            await opened(connector, session_id=str(number))
        with pytest.raises(CapacityError):
            await refusal(connector, session_id="8")
        response = await client.get(running.metrics_url)
        await connector.aclose()
    told = Figures(response.text)
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "_created" not in response.text
    assert told[OURS + "final_tokens_total"] == 6 * 40
    assert told.get(OURS + "sessions_ended_total", reason="length") == 6
    assert told.get(OURS + "refusals_total", status="resource_exhausted") == 1
    assert told[OURS + "received_bytes_total"] > 6 * 100
    assert told[OURS + "sent_bytes_total"] > 6 * 100
    assert told[OURS + "accepted_tokens_total"] > 0
    assert told.get(OURS + "info", model_name=running.verifier.description.name, version="0.1.0") == 1


async def test_a_stream_that_asks_for_more_than_a_message_holds_is_counted_and_logged_as_what_its_device_is_told(caplog):
    """It was as a device that went away."""
    truth = truth_of((1, 2, 3), SamplingParameters(), 40)
    caplog.set_level(logging.INFO, "cloud_verifier.telling")
    async with served(max_message_bytes=1024) as (engine, running, client):
        connector = GrpcConnector(running.target)
        link = await held(engine, connector, max_tokens=40, logprobs=20)
        await link.send(Draft(tuple(Node(n, n - 1, truth[2 + n], 3 if n == 1 else 0) for n in range(1, 21)), 3))
        (live,) = running.verifier.seats.all
        await wait_until(lambda: live.state.live_nodes == 20)
        engine.gate.set()
        with pytest.raises(InvalidRequestError, match=r"makes an answer \(Verdict\) of"):
            await collect(link)
        told = Figures((await client.get(running.metrics_url)).text)
        await connector.aclose()
    assert told.get(OURS + "sessions_ended_total", reason="invalid_argument") == 1
    assert not told.has(OURS + "sessions_ended_total", reason="unavailable")
    assert [record.status for record in caplog.records if record.getMessage() == "a session ended"] == ["INVALID_ARGUMENT"]


async def test_with_keys_the_figures_want_one_and_name_tenants_never_keys(tmp_path, caplog):
    async with served(keys=key_file(tmp_path)) as (_, running, client):
        alice, nobody = GrpcConnector(running.target, key=ALICE), GrpcConnector(running.target)
        await collect(await opened(alice))
        with pytest.raises(Exception, match="wants a key"):
            await refusal(nobody)
        url = running.metrics_url
        for path in (url, url.replace("/metrics", "/"), url + "/x"):
            for headers in ({}, {"authorization": bearer(WRONG)}):
                assert (await client.get(path, headers=headers)).status_code == 401
        response = await client.get(url, headers={"authorization": bearer(BOB)})
        for connector in (alice, nobody):
            await connector.aclose()
    assert response.status_code == 200
    assert Figures(response.text).get(OURS + "tenant_final_tokens_total", tenant="alice") == 8
    assert Figures(response.text).get(OURS + "refusals_total", status="unauthenticated") == 1
    assert [secret for secret in (ALICE, BOB, WRONG) if secret in response.text] == []
    assert "in plain text" not in caplog.text


async def test_a_page_that_reaches_loopback_under_another_name_gets_no_figures():
    async with served() as (_, running, client):
        assert (await client.get(running.metrics_url, headers={"host": "evil.example"})).status_code == 403
        assert (await client.get(running.metrics_url, headers={"host": "localhost:1"})).status_code == 200


async def test_without_a_port_nothing_is_served_and_nobody_is_told():
    _, full_model = doubles.watched()
    async with serve(settings(), full_model=full_model) as running:
        assert running.metrics_url is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metrics_port": 70000}, "metrics_port"),
        ({"metrics_port": 1, "metrics_host": "0.0.0.0"}, "nothing guards it"),
        ({"metrics_compat": "tgi"}, "metrics_compat"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        settings(**changes)


async def test_a_port_that_is_taken_is_told_by_name():
    async with served() as (_, running, _):
        port = running.metrics_url.split(":")[2].split("/")[0]
        _, full_model = doubles.watched()
        with pytest.raises(ConfigurationError, match=rf"metrics: cannot listen on 127.0.0.1:{port}"):
            async with serve(settings(metrics_port=int(port)), full_model=full_model):
                pass


async def test_beside_figures_too_a_verifier_that_cannot_listen_says_why_in_one_error():
    """The command tells that one in a line; a group of errors would be a traceback."""
    async with served() as (_, running, _):
        _, full_model = doubles.watched()
        with pytest.raises(ConfigurationError, match=f"cannot listen on {running.target}"):
            async with serve(settings(port=running.port, metrics_port=0), full_model=full_model):
                pass


async def test_where_the_verifier_speaks_tls_its_figures_do_too_and_want_a_devices_certificate(tmp_path):
    service, device, stranger = (made(tmp_path, name, name) for name in ("127.0.0.1", "device", "stranger"))
    tls = {"tls_cert": service.cert, "tls_key": service.key, "tls_client_ca": device.ca}

    async def status(url, own=None):
        context = ssl.create_default_context(cafile=service.ca)
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        async with httpx.AsyncClient(verify=context) as client:
            return (await client.get(url)).status_code

    async with served(**tls) as (_, running, _):
        url = running.metrics_url
        assert url.startswith("https://")
        assert await status(url, device) == 200
        for own in (None, stranger):
            with pytest.raises(httpx.TransportError):
                await status(url, own)
        with pytest.raises(httpx.TransportError):
            await status(url.replace("https", "http"), device)


async def test_a_key_that_crosses_the_network_for_figures_in_plain_text_is_told(tmp_path, caplog):
    _, full_model = doubles.watched()
    config = settings(keys=key_file(tmp_path), metrics_host="0.0.0.0", metrics_port=0)
    async with asyncio.timeout(LIMIT_S), serve(config, full_model=full_model):
        assert "in plain text" in caplog.text
