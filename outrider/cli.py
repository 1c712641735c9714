"""The command ``outrider``. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. Errors are one line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

import cloud_verifier.config
import device_agent.config
from device_agent.request import Mode
from outrider import conformance_command, key_folder, models, options, profile_list
from outrider.config import caller_key
from outrider.planning import cli as planning
from outrider.proxy import command as proxying
from outrider.running import run as _run
from outrider.running import say as _say
from outrider.running import start_log as _start_log
from speculation.errors import ConfigurationError, InvalidRequestError, OutriderError
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE, UNSHAPED

app = typer.Typer(
    name="outrider",
    help="A phone drafts, the cloud verifies: the text is the full model's.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.add_typer(models.app, name="models")
app.command()(planning.plan)
app.command()(planning.tokenspeed)
app.command("profiles")(profile_list.profiles_command)
app.command("proxy")(proxying.proxy)
app.command("keys")(key_folder.keys_command)
app.command("conformance")(conformance_command.conformance)


@app.command()
def demo(
    prompt: Annotated[int | None, typer.Option(metavar="N", help="Number of a held-out prompt.")] = None,
    list_prompts: Annotated[bool, typer.Option("--list-prompts", help="List the held-out prompts and stop.")] = False,
    max_tokens: options.MaxTokens = 128,
    temperature: options.Temperature = 0.8,
    top_p: options.TopP = 1.0,
    top_k: options.TopK = 0,
    seed: Annotated[int, typer.Option(metavar="S", help="Seed of the shared noise.")] = 1,
    phone: options.Phone = None,
    heat: options.Heat = None,
    network: options.Network = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    agent: options.Agent = None,
    key_file: options.KeyFile = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: options.DraftVariant = None,
    full_variant: options.FullVariant = None,
    provider: options.Provider = None,
    json: options.Json = False,
) -> None:
    """Stream one answer, then compare: collaborative, cloud alone, device alone."""
    from outrider import demo as front
    from outrider.generate import Request
    from outrider.local import Emulation, Models

    models = Models(draft, full, variant, full_variant, provider)
    models.check_agent(agent)
    played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
    emulation = Emulation.chosen(agent, played, Emulation(DEFAULT_PHONE, DEFAULT_NETWORK, DEFAULT_CLOUD))
    if list_prompts:
        front.list_prompts()
        return
    text = front.choose_prompt(prompt, is_quiet=json)
    request = Request(text, Mode.COLLABORATE, max_tokens, temperature, top_p, top_k, seed)
    _run(front.run(request, emulation, agent, is_json=json, models=models, key=caller_key(agent, key_file)), bool(emulation))


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="The text to go on from.")],
    chat: Annotated[
        bool, typer.Option("--chat", help="PROMPT is a user's message, written as the model's template says.")
    ] = False,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message before it; implies --chat.")] = None,
    mode: Annotated[Mode, typer.Option(help="Who writes.")] = Mode.COLLABORATE,
    max_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="At most so many tokens; else the model's limit, or 128, as far as they fit."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 is greedy; else as the model suggests.")] = None,
    top_p: Annotated[
        float | None, typer.Option(metavar="P", help="Choose among the likeliest tokens that sum up to this.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Choose among so many tokens; 0 is off.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="S", help="Seed of the shared noise; one is drawn otherwise.")] = None,
    phone: options.Phone = None,
    heat: options.Heat = None,
    network: options.Network = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    agent: options.Agent = None,
    key_file: options.KeyFile = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: options.DraftVariant = None,
    full_variant: options.FullVariant = None,
    provider: options.Provider = None,
    json: options.Json = False,
) -> None:
    """Write the continuation of PROMPT."""
    from outrider import generate as front
    from outrider.local import Emulation, Models

    models = Models(draft, full, variant, full_variant, provider)
    models.check_agent(agent)
    played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
    emulation = Emulation.chosen(agent, played, Emulation())
    request = front.Request(prompt, mode, max_tokens, temperature, top_p, top_k, seed, chat or system is not None, system)
    _run(front.run(request, emulation, agent, is_json=json, models=models, key=caller_key(agent, key_file)), bool(emulation))


@app.command()
def verifier(
    host: Annotated[str | None, typer.Option(help="Address to bind; 127.0.0.1 by default.")] = None,
    port: options.Port = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    pair: options.Pair = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: Annotated[str | None, typer.Option(help="Graph of the full model, or transformers.")] = None,
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
    keys: options.Keys = None,
    insecure: options.Insecure = None,
    config: options.Config = None,
) -> None:
    """Serve the full model. Settings: defaults < --config FILE < OUTRIDER_VERIFIER_* < flags."""
    from cloud_verifier import server

    flags: dict[str, Any] = {"host": host, "port": port, "cloud": cloud, "profiles": profiles}
    flags |= {"pair": pair, "variant": variant}
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
    flags |= {"engine_pool": engine_pool, "replicas": replicas, "ray_address": ray_address}
    flags |= {"replica_cpus": replica_cpus, "replica_ports": replica_ports}
    settings = cloud_verifier.config.load_config(config, flags)
    _start_log()
    if settings.engine_pool is not None:
        from outrider.pool import running as pool

        _run(pool.run(settings, _say))
        return
    _run(server.run(settings, lambda running: _say(f"verifier on {running.target}")), settings.cloud != UNSHAPED)


@app.command()
def agent(
    host: Annotated[str | None, typer.Option(help="Address to bind; 127.0.0.1 by default.")] = None,
    port: options.Port = None,
    verifier: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the verifier is, or several: A,B or a URL.")
    ] = None,
    phone: options.Phone = None,
    heat: options.Heat = None,
    network: options.Network = None,
    cloud: Annotated[
        str | None, typer.Option(help="Cloud machine that the verifier emulates, for what figures are called.")
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
    generation_defaults: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Defaults of a request: the full model's, or none (greedy).")
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that requests may use; may repeat.")
    ] = None,
    keys: options.Keys = None,
    insecure: options.Insecure = None,
    config: options.Config = None,
) -> None:
    """Serve the device's REST endpoint. Settings: defaults < --config FILE < OUTRIDER_AGENT_* < flags."""
    from device_agent import server

    flags: dict[str, Any] = {"host": host, "port": port, "verifier": verifier, "phone": phone, "network": network}
    flags |= {"profiles": profiles, "heat": heat}
    flags |= {"cloud": cloud, "emulate": emulate, "pair": pair, "variant": variant, "insecure": insecure, "provider": provider}
    flags |= {"draft": draft, "full": full, "drafting": drafting, "draft_length": draft_length, "draft_width": draft_width}
    flags |= {"draft_lookup": draft_lookup, "generation_defaults": generation_defaults}
    flags |= {"keys": keys, "allowed_hosts": allowed_host or None}
    settings = device_agent.config.load_config(config, flags)
    _start_log()
    _run(server.run(settings, lambda running: _say(f"agent on {running.url}")), settings.is_emulated)


@app.command()
def version() -> None:
    """Print the version."""
    print(metadata.version("outrider"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    sys.exit(run(lambda: app(arguments, standalone_mode=False)))


def run(command: Callable[[], Any]) -> int:
    """The exit code of a command; what it fails with becomes one line on stderr."""
    try:
        return int(command() or 0)
    except typer.TyperException as error:
        describe = getattr(error, "format_message", error.__str__)
        return _fail(describe(), 2)
    except (InvalidRequestError, ConfigurationError) as error:
        return _fail(str(error), 2)
    except OutriderError as error:
        return _fail(str(error), 1)
    except typer.Abort:
        return _fail("the input ended", 1)


def _fail(message: str, code: int) -> int:
    _say("outrider: error: " + " ".join(message.split()))
    return code
