"""``python -m loadtest.guidellm``: a load generator of others asks an agent; its own table, and whether it met an error.

guidellm has many dependencies and is no extra: install it in an environment of its own, and say where (``--guidellm``). It asks
``/v1/completions`` in streams, with the bundled pair's held-out prompts, needs no tokenizer and reaches for nothing outside.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from loadtest.services import service
from outrider import cli
from speculation.engines.package import load_pair
from speculation.errors import ConfigurationError, LinkError
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE

Name = Annotated[str, typer.Option(metavar="NAME", help="To emulate, or none.")]


def main(
    guidellm: Annotated[str, typer.Option(metavar="FILE", help="The command; by default the one on the path.")] = "guidellm",
    agent: Annotated[str | None, typer.Option(metavar="URL", help="An agent that runs already.")] = None,
    phone: Name = DEFAULT_PHONE,
    network: Name = DEFAULT_NETWORK,
    cloud: Name = DEFAULT_CLOUD,
    requests: Annotated[int, typer.Option(min=1, metavar="N", help="Requests, one after the other.")] = 16,
    max_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of each answer.")] = 64,
) -> None:
    """Let guidellm ask an agent, and print what it found. Without --agent both services are started. Exit code 1: an error."""
    if (command := shutil.which(guidellm)) is None:
        raise ConfigurationError(f"there is no command {guidellm!r}: pip install guidellm, and --guidellm FILE says where")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with _services(folder, phone, network, cloud) if agent is None else _given(agent) as url:
            report = folder / "report.json"
            code = subprocess.run(_command(command, url, folder, requests, max_tokens, report)).returncode
        if code or not report.exists():
            raise LinkError(f"guidellm ended with code {code}; what it says stands above")
        num_failed = _num_failed(report)
    print(f"\n{num_failed} of {requests} requests met an error", file=sys.stderr)
    raise typer.Exit(1 if num_failed else 0)


@contextmanager
def _given(agent: str) -> Iterator[str]:
    yield agent


@contextmanager
def _services(folder: Path, phone: str, network: str, cloud: str) -> Iterator[str]:
    """The URL of an agent of one's own, with a verifier behind it."""
    outrider = [sys.executable, "-m", "outrider"]
    verify = [*outrider, "verifier", "--port", "0", "--cloud", cloud]
    with service("verifier", verify, folder / "verifier.log") as target:
        draft = [*outrider, "agent", "--port", "0", "--verifier", target, "--phone", phone, "--network", network]
        with service("agent", draft, folder / "agent.log") as url:
            yield url


def _command(command: str, url: str, folder: Path, requests: int, max_tokens: int, report: Path) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt["text"]}) + "\n" for prompt in load_pair().prompts), "utf-8")
    asked = f"kind=openai_http,target={url},request_format=/v1/completions,max_tokens={max_tokens}"
    flags = ["--backend", asked, "--data", f"kind=json_file,path={prompts}", "--profile", "kind=synchronous"]
    flags += ["--constraint", f"kind=max_requests,count={requests}", "--disable-progress"]
    return [command, "run", *flags, "--output", "kind=console", "--output", f"kind=json,path={report}"]


def _num_failed(report: Path) -> int:
    told: dict[str, Any] = json.loads(report.read_text("utf-8"))
    return sum(run["metrics"]["request_totals"]["errored"] for run in told["benchmarks"])


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(cli.run(lambda: app(standalone_mode=False)))
