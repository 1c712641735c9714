"""`outrider verifier` and `outrider agent`: the two services, from their flags."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cloud_verifier.config
import device_agent.config
from outrider import completing, options
from outrider.running import choose_fast, run_loop, say
from speculation.engines.sharing import share_processor
from speculation.heap import freeze_heap
from speculation.shaping.profiles import UNSHAPED
from speculation.telemetry.choices import LogFormat
from speculation.telemetry.logs import start_log

if TYPE_CHECKING:
    from cloud_verifier.server import RunningVerifier
    from device_agent.server import RunningAgent

_log = logging.getLogger(__name__)

TOLD = ("speculation.engines.exports", "speculation.engines.remote", "outrider.pool", "cloud_verifier.assembly")
"""Loggers that are heard from INFO on: they say how a model is run, or by whom, and who serves."""


def verifier(
    host: Annotated[str | None, typer.Option(help="Address to bind; 127.0.0.1 by default.")] = None,
    port: options.Port = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    pair: options.Pair = None,
    draft: options.Draft = None,
    full: options.Full = None,
    previous_pair: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The pair before, served beside it while devices move over.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="Graph of the full model (q4_kv16: q4, caches in 16 bits), or transformers.")
    ] = None,
    full_url: Annotated[
        str | None, typer.Option(metavar="URL", help="A vLLM or SGLang server that runs the full model instead.")
    ] = None,
    full_route: Annotated[
        str | None, typer.Option(metavar="ROUTE", help="How it is asked: vllm, vllm-prefixes or sglang.")
    ] = None,
    full_model: Annotated[str | None, typer.Option(metavar="NAME", help="The model's name at that server.")] = None,
    full_logprobs: Annotated[
        int | None, typer.Option(metavar="N", help="Likeliest tokens of each position to ask for; -1 is all.")
    ] = None,
    provider: options.Provider = None,
    patience: Annotated[
        str | None, typer.Option(metavar="MS", help="Milliseconds to wait for drafts of a session; auto; or never.")
    ] = None,
    gather: Annotated[int | None, typer.Option(metavar="N", help="Drafts of a session that are enough not to wait.")] = None,
    run_drafts: Annotated[
        str | None, typer.Option(metavar="WHICH", help="Drafts to check: paying, by what passes cost here; or all.")
    ] = None,
    pass_interval_ms: Annotated[
        float | None, typer.Option(metavar="MS", help="Let passes begin at least so far apart; 0 is off.")
    ] = None,
    cache_bytes: Annotated[
        int | None,
        typer.Option(metavar="BYTES", help="Memory that caches may take; by default that of all slots in full length."),
    ] = None,
    max_queued: Annotated[
        int | None, typer.Option(metavar="N", help="Sessions that may wait for a seat; those beyond are refused.")
    ] = None,
    max_kept: Annotated[
        int | None, typer.Option(metavar="N", help="Caches of ended texts to keep for prompts that begin alike.")
    ] = None,
    draft_length: Annotated[
        int | None, typer.Option(metavar="N", help="Draft so many tokens here where a device has none; 0 is off.")
    ] = None,
    engine_pool: Annotated[
        str | None, typer.Option(metavar="NAME", help="Serve by several verifiers: ray places them (docs/operations.md).")
    ] = None,
    replicas: Annotated[int | None, typer.Option(metavar="N", help="Verifiers of that pool.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(metavar="ADDR", help="The Ray cluster; one on this machine by default.")
    ] = None,
    replica_cpus: Annotated[float | None, typer.Option(metavar="N", help="CPUs that Ray keeps for each replica.")] = None,
    replica_ports: Annotated[
        str | None, typer.Option(metavar="A-B", help="Ports that replicas may serve on; any by default.")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(metavar="N", help="Serve figures for Prometheus there; 0 takes a free port.")
    ] = None,
    metrics_host: Annotated[str | None, typer.Option(help="Address of the figures; 127.0.0.1 by default.")] = None,
    pad_bytes: options.PadBytes = None,
    tick_ms: options.TickMs = None,
    metrics_compat: options.MetricsCompat = None,
    log_format: options.LogFormat = None,
    otlp_endpoint: options.OtlpEndpoint = None,
    keys: options.Keys = None,
    insecure: options.Insecure = None,
    config: options.Config = None,
) -> None:
    """Serve the full model. Settings: defaults < --config FILE < OUTRIDER_VERIFIER_* < flags."""
    from cloud_verifier import server

    flags: dict[str, Any] = {"host": host, "port": port, "cloud": cloud, "profiles": profiles}
    flags |= {"pair": pair, "previous_pair": previous_pair, "variant": variant}
    flags |= {"full_url": full_url, "full_route": full_route, "full_model": full_model, "full_logprobs": full_logprobs}
    flags |= {
        "draft": draft,
        "full": full,
        "provider": provider,
        "patience": patience,
        "gather": gather,
        "draft_length": draft_length,
        "keys": keys,
        "insecure": insecure,
    }
    flags |= {"run_drafts": run_drafts, "pass_interval_ms": pass_interval_ms, "max_queued": max_queued, "max_kept": max_kept}
    flags |= {"cache_bytes": cache_bytes}
    flags |= {"engine_pool": engine_pool, "replicas": replicas, "ray_address": ray_address}
    flags |= {"replica_cpus": replica_cpus, "replica_ports": replica_ports}
    flags |= {"pad_bytes": pad_bytes, "tick_ms": tick_ms}
    flags |= {"metrics_host": metrics_host, "metrics_port": metrics_port}
    flags |= {"metrics_compat": metrics_compat, "log_format": log_format, "otlp_endpoint": otlp_endpoint}
    settings = cloud_verifier.config.load_config(config, flags)
    start_log(settings.log_format, TOLD)
    _tell_of_the_wait("loading the full model, and proving that its logits are exact ...")
    if settings.engine_pool is not None:
        from outrider.pool import running as pool

        run_loop(pool.run(settings, partial(_tell, settings.log_format)))
        return

    def on_ready(running: RunningVerifier) -> None:
        freeze_heap()
        figures = f", figures at {running.metrics_url}" if running.metrics_url else ""
        _tell(settings.log_format, f"verifier on {running.target}{figures}")

    choose_fast()
    share_processor()
    run_loop(server.run(settings, on_ready), settings.cloud != UNSHAPED)


def agent(
    host: Annotated[str | None, typer.Option(help="Address to bind; 127.0.0.1 by default.")] = None,
    port: options.Port = None,
    verifier: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the verifier is, or several: A,B or a URL.")
    ] = None,
    phone: options.Phone = None,
    heat: options.Heat = None,
    os_load: Annotated[
        str | None, typer.Option(metavar="NAME", help="What interrupts the emulated phone's draft: light, busy or game.")
    ] = None,
    max_queued_streams: Annotated[
        int | None, typer.Option(metavar="N", help="Answers that wait for a place where all are taken; 0 by default.")
    ] = None,
    network: options.Network = None,
    cloud: Annotated[
        str | None,
        typer.Option(
            help="Cloud machine that the verifier emulates, for what figures are called.", autocompletion=completing.clouds
        ),
    ] = None,
    profiles: options.Profiles = None,
    emulate: Annotated[str | None, typer.Option(metavar="SIZE:TYPE", help="Draft whose time the phone takes.")] = None,
    pair: options.Pair = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: Annotated[
        str | None, typer.Option(help="Graph of the draft model, or transformers, or lookup, or random.")
    ] = None,
    provider: options.Provider = None,
    drafting: Annotated[
        str | None, typer.Option(metavar="POLICY", help="adaptive, ahead, confidence-gate, fixed-length or second-branch.")
    ] = None,
    draft_length: Annotated[int | None, typer.Option(metavar="N", help="Drafts before fixed-length stops and waits.")] = None,
    draft_width: Annotated[int | None, typer.Option(metavar="N", help="Branches that one draft step extends.")] = None,
    draft_lookup: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Weight of looking up where the text repeats itself; 0 is off.")
    ] = None,
    rag_store: Annotated[
        Path | None, typer.Option(metavar="STORE", help="Documents that requests may use (outrider rag; extra rag).")
    ] = None,
    rag_model: options.RagModel = None,
    generation_defaults: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Defaults of a request: the full model's, or none (greedy).")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that requests may use; may repeat.")
    ] = None,
    pad_bytes: options.PadBytes = None,
    tick_ms: options.TickMs = None,
    metrics_compat: options.MetricsCompat = None,
    log_format: options.LogFormat = None,
    otlp_endpoint: options.OtlpEndpoint = None,
    keys: options.Keys = None,
    qr: options.Qr = False,
    qr_key_file: options.QrKeyFile = None,
    insecure: options.Insecure = None,
    config: options.Config = None,
) -> None:
    """Serve the device's REST endpoint. Settings: defaults < --config FILE < OUTRIDER_AGENT_* < flags."""
    from device_agent import server
    from outrider.phone_page import way_in

    flags: dict[str, Any] = {"host": host, "port": port, "verifier": verifier, "phone": phone, "network": network}
    flags |= {"profiles": profiles, "heat": heat, "os_load": os_load, "max_queued_streams": max_queued_streams}
    flags |= {"cloud": cloud, "emulate": emulate, "pair": pair, "variant": variant, "insecure": insecure, "provider": provider}
    flags |= {"draft": draft, "full": full, "drafting": drafting, "draft_length": draft_length, "draft_width": draft_width}
    flags |= {"draft_lookup": draft_lookup, "generation_defaults": generation_defaults}
    flags |= {"rag_store": rag_store, "rag_model": rag_model}
    flags |= {"pad_bytes": pad_bytes, "tick_ms": tick_ms}
    flags |= {"keys": keys, "allowed_hosts": allowed_host or None}
    flags |= {"metrics_compat": metrics_compat, "log_format": log_format, "otlp_endpoint": otlp_endpoint}
    settings = device_agent.config.load_config(config, flags)
    show = way_in(settings, qr, qr_key_file)
    start_log(settings.log_format, TOLD)
    _tell_of_the_wait("loading the draft model ...")

    def on_ready(running: RunningAgent) -> None:
        freeze_heap()
        _tell(settings.log_format, f"agent on {running.url}")
        show(running.port)

    choose_fast()
    run_loop(server.run(settings, on_ready), settings.is_emulated)


def _tell_of_the_wait(text: str) -> None:
    """To a person alone: a program waits for the line that says where the service listens."""
    if sys.stderr.isatty():
        say(text)


def _tell(log_format: LogFormat, text: str) -> None:
    """Where it listens: to a person, or in the log where a program reads that."""
    if log_format is LogFormat.JSON:
        _log.info(text)
    else:
        say(text)
