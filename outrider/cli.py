"""The command ``outrider``. Errors are one line on stderr; ``docs/command-line.md`` says what the exit codes mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Annotated, Any

import typer

from device_agent.request import Mode
from outrider import conformance_command, key_folder, models, options, profile_list, rag, services, tasks_command
from outrider.config import caller_key
from outrider.planning import cli as planning
from outrider.proxy import command as proxying
from outrider.running import choose_fast, run_loop, say
from speculation.errors import ConfigurationError, InvalidRequestError, OutriderError
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE

NAME = "outrider"

app = typer.Typer(
    name=NAME,
    help="A phone drafts, the cloud verifies: the text is the full model's.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. What went wrong is one line on standard error.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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
    from outrider.generate import Request, told
    from outrider.local import Emulation, Models

    with told(json):
        models = Models(draft, full, variant, full_variant, provider)
        models.check_agent(agent)
        played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
        emulation = Emulation.chosen(agent, played, Emulation(DEFAULT_PHONE, DEFAULT_NETWORK, DEFAULT_CLOUD))
        if list_prompts:
            front.list_prompts(json)
            return
        text = front.choose_prompt(prompt, is_quiet=json)
        request = Request(text, Mode.COLLABORATE, max_tokens, temperature, top_p, top_k, seed)
        key = caller_key(agent, key_file)
    run_loop(front.run(request, emulation, agent, is_json=json, models=models, key=key), bool(emulation))


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address of the agent; 127.0.0.1 by default.")] = None,
    port: Annotated[int | None, typer.Option(help="8080 by default; 0 takes a free one.")] = None,
    phone: options.Phone = None,
    heat: options.Heat = None,
    network: options.Network = None,
    cloud: options.Cloud = None,
    profiles: options.Profiles = None,
    draft: options.Draft = None,
    full: options.Full = None,
    variant: options.DraftVariant = None,
    full_variant: options.FullVariant = None,
    provider: options.Provider = None,
    keys: options.Keys = None,
    insecure: options.Insecure = None,
    qr: options.Qr = False,
    qr_key_file: options.QrKeyFile = None,
) -> None:
    """Serve both services here, with a page to try them in a browser, until Ctrl-C."""
    from device_agent.config import AgentConfig
    from outrider import serving
    from outrider.local import Emulation, Models
    from outrider.phone_page import way_in

    played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
    emulation = Emulation.chosen(None, played, Emulation(DEFAULT_PHONE, DEFAULT_NETWORK, DEFAULT_CLOUD))
    assert emulation is not None  # it is None with an agent of somebody else's
    settings = {"host": host, "port": port, "keys": keys, "insecure": insecure}
    given: dict[str, Any] = {name: value for name, value in settings.items() if value is not None}
    models = Models(draft, full, variant, full_variant, provider)
    show = way_in(AgentConfig(verifier=None, **given), qr, qr_key_file)
    choose_fast()
    run_loop(serving.run(emulation, models, given, show), is_emulated=True)  # or later: what is emulated changes while it runs


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

    with front.told(json):
        models = Models(draft, full, variant, full_variant, provider)
        models.check_agent(agent)
        played = {"phone": phone, "network": network, "cloud": cloud, "profiles": profiles, "heat": heat}
        emulation = Emulation.chosen(agent, played, Emulation())
        is_chat = chat or system is not None
        request = front.Request(prompt, mode, max_tokens, temperature, top_p, top_k, seed, is_chat, system)
        key = caller_key(agent, key_file)
    run_loop(front.run(request, emulation, agent, is_json=json, models=models, key=key), bool(emulation))


app.command()(services.agent)
app.command()(services.verifier)
app.command("keys")(key_folder.keys_command)
app.command("proxy")(proxying.proxy)
app.add_typer(models.app, name="models")
app.add_typer(rag.app, name="rag")
app.command("profiles")(profile_list.profiles_command)
app.command()(planning.plan)
app.command()(planning.tokenspeed)
app.command("conformance")(conformance_command.conformance)
app.command("tasks")(tasks_command.tasks)


@app.command()
def version() -> None:
    """Print the version."""
    print(metadata.version("outrider"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code."""
    sys.exit(run(lambda: app(arguments, prog_name=NAME, standalone_mode=False)))


def run(command: Callable[[], Any]) -> int:
    """The exit code of a command; what it fails with becomes one line on stderr."""
    try:
        code = int(command() or 0)
        sys.stdout.flush()  # not only at the exit, where Python tells in its own words what fails, with a code of its own
        return code
    except typer.TyperException as error:
        return _fail(_described(error), 2)
    except (InvalidRequestError, ConfigurationError) as error:
        return _fail(str(error), 2)
    except OutriderError as error:
        return _fail(str(error), 1)
    except typer.Abort:
        return _fail("the input ended", 1)
    except BrokenPipeError:
        _drop_output()
        return 1
    except OSError as error:
        _drop_output()
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror or error) if part), 1)


def _drop_output() -> None:
    """What standard output does not take would be tried again at the exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _described(error: Exception) -> str:
    """What is wrong with the arguments, and which page of help says what would be right."""
    describe = getattr(error, "format_message", error.__str__)
    path = getattr(getattr(error, "ctx", None), "command_path", None)
    return describe() if path is None else f"{describe()} (see: {path} --help)"


def _fail(message: str, code: int) -> int:
    say("outrider: error: " + " ".join(message.split()))
    return code
