"""The commands `outrider plan` and `outrider tokenspeed`: what they take, and what they print."""

from __future__ import annotations

import dataclasses
import importlib.util
import json as encoder
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from outrider.pictures import check_can_be_drawn
from outrider.planning import plan as planning
from outrider.planning import report, token_speed
from outrider.planning.answers import QUICK, Asked, Effort
from outrider.planning.scene import Place
from outrider.planning.synthetic import Acceptance
from speculation.errors import ConfigurationError, InvalidRequestError
from speculation.settings import require_one_source
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import UNSHAPED

if TYPE_CHECKING:
    from outrider.planning.sources import RealPair

FILE_WIDTH = 160
FEWEST_TOKENS = 16
PLOT_TYPES = (".png", ".svg")
TEMPERATURE = 0.8


def run_plan(
    phone: str,
    network: str,
    cloud: str,
    draft: str,
    full: str,
    acceptance: float,
    second_covers: float,
    pair: Path | None,
    prompts: Path | None,
    temperature: float | None,
    rate: float,
    prompt_tokens: int,
    max_tokens: int | None,
    context: int,
    is_quick: bool,
    is_json: bool,
    plot: Path | None,
    folder: Path | None = None,
) -> None:
    """Ask, and print. Raises ``InvalidRequestError`` for what cannot be asked, ``CapacityError`` for what does not fit."""
    check_plot(plot)
    if plot is not None:
        check_can_be_drawn(plot, "plot")
    if prompts is not None and pair is None:
        raise InvalidRequestError("--prompts: they are for a pair of models; name one with --pair", "prompts")
    if temperature is not None and pair is None:
        raise InvalidRequestError("--temperature: it is for a pair of models; name one with --pair", "temperature")
    effort = _effort(is_quick, max_tokens)
    asked = Asked(
        place=_place(Catalogue(folder), phone, network, cloud, draft, full),
        acceptance=_acceptance(acceptance, second_covers),
        prompt_length=prompt_tokens,
        context_length=_context(context, prompt_tokens, effort),
        rate_tokens_per_s=_positive(rate, "rate"),
        effort=effort,
        pair=None if pair is None else _real(pair, prompts, TEMPERATURE if temperature is None else temperature),
    )
    with telling(planning.num_steps(effort)) as tell:
        found = planning.plan(asked, tell)
    if is_json:
        print(encoder.dumps({"asked": asked_json(asked), **found.to_json()}, indent=1))
    else:
        printed(report.rendered(asked, found))
    if plot is not None:
        from outrider.planning import plots

        with telling(plots.num_steps(effort)) as tell:
            plots.draw(asked, found, plot, tell)


def run_token_speed(
    phone: str | None, bandwidth: float | None, streams: int, is_json: bool, plot: Path | None, folder: Path | None = None
) -> None:
    """The talk's table, for a bandwidth in GB/s or that of a phone. Raises ``InvalidRequestError``."""
    check_plot(plot)
    if phone is not None and bandwidth is not None:
        raise InvalidRequestError("--phone and --bandwidth both say how fast the memory is; leave out one", "bandwidth")
    bytes_per_s = token_speed.LPDDR5T_9600_BYTES_PER_S
    if bandwidth is not None:
        bytes_per_s = _positive(bandwidth, "bandwidth") * 1e9
    elif phone is not None:
        bytes_per_s = Catalogue(folder).phone(phone).bandwidth_bytes_per_s
        if math.isinf(bytes_per_s):
            raise InvalidRequestError(f"{phone} emulates nothing: name another phone, or a bandwidth", "phone")
    if streams < 1:
        raise InvalidRequestError(f"streams are at least 1, not {streams}", "streams")
    found = token_speed.speeds(bytes_per_s, num_streams=streams)
    if is_json:
        print(encoder.dumps(found.to_json(), indent=1))
    else:
        printed(report.token_speeds(found))
    if plot is not None:
        from outrider.planning import plots

        plots.token_speeds(found, plot)


def asked_json(asked: Asked) -> dict[str, Any]:
    """What was asked, by the names of the flags."""
    place = asked.place
    return {
        "phone": place.phone.name,
        "network": place.network.name,
        "cloud": place.cloud.name,
        "draft": place.draft.name,
        "full": place.full.name,
        "is_real_pair": asked.pair is not None,
        "second_covers": asked.acceptance.cover2,
        "rate_tokens_per_s": asked.rate_tokens_per_s,
        "prompt_tokens": asked.prompt_length,
        "context_tokens": asked.context_length,
        "basis": "emulated",
    }


def check_plot(plot: Path | None) -> None:
    """Raises ``InvalidRequestError`` for a picture of another type, ``ConfigurationError`` where nothing can draw one."""
    if plot is None:
        return
    if plot.suffix not in PLOT_TYPES:
        raise InvalidRequestError(f"--plot: a file that ends in {' or '.join(PLOT_TYPES)} (got {str(plot)!r})", "plot")
    if not plot.parent.is_dir():
        raise InvalidRequestError(f"--plot: there is no folder {plot.parent}", "plot")
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError("--plot needs matplotlib: pip install 'outrider[plot]'")


@contextmanager
def telling(num_steps: int) -> Iterator[Callable[[str], None]]:
    """A bar on stderr that a step's name moves on, where somebody watches."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("", total=num_steps, completed=-1)

        def tell(name: str) -> None:
            progress.update(task, description=name, advance=1)

        yield tell


def printed(content: Any) -> None:
    Console(width=None if sys.stdout.isatty() else FILE_WIDTH).print(content)


def _place(catalogue: Catalogue, phone: str, network: str, cloud: str, draft: str, full: str) -> Place:
    why = "takes no time, so that nothing has a rate there: name another"
    if phone == UNSHAPED:
        raise InvalidRequestError(f"--phone {phone} {why}", "phone")
    if cloud == network == UNSHAPED:
        raise InvalidRequestError(f"--cloud {cloud} beside --network {network} {why}", "cloud")
    machines = catalogue.phone(phone), catalogue.network(network), catalogue.cloud(cloud)
    return Place(*machines, parse_model(draft), parse_model(full))


def _acceptance(alpha: float, cover2: float) -> Acceptance:
    for name, value in (("acceptance", alpha), ("second-covers", cover2)):
        if not 0 < value < 1:
            raise InvalidRequestError(f"--{name} is a share between 0 and 1, such as 0.8 (got {value:g})", name)
    return Acceptance(alpha, cover2)


def _effort(is_quick: bool, max_tokens: int | None) -> Effort:
    effort = QUICK if is_quick else Effort()
    if max_tokens is None:
        return effort
    if max_tokens < FEWEST_TOKENS:
        rule = f"at least {FEWEST_TOKENS}, for fewer tell nothing of a rate"
        raise InvalidRequestError(f"--max-tokens: {rule} (got {max_tokens})", "max_tokens")
    served = min(max_tokens, effort.num_served_tokens)
    return dataclasses.replace(effort, num_tokens=max_tokens, num_served_tokens=served)


def _context(context: int, prompt_tokens: int, effort: Effort) -> int:
    if prompt_tokens < 2:
        raise InvalidRequestError(f"--prompt-tokens: at least 2 (got {prompt_tokens})", "prompt_tokens")
    needed = prompt_tokens + effort.num_tokens + 1
    if context < needed:
        raise InvalidRequestError(f"--context: a prompt and an answer take {needed} tokens (got {context})", "context")
    return context


def _positive(value: float, name: str) -> float:
    if not 0 < value < math.inf:
        raise InvalidRequestError(f"--{name} is a number above 0 (got {value:g})", name)
    return value


def _real(folder: Path, file: Path | None, temperature: float) -> RealPair:
    from outrider.planning.sources import RealPair

    if temperature < 0:
        raise InvalidRequestError(f"--temperature is 0 or more (got {temperature:g})", "temperature")
    prompts = _prompts(file)
    require_one_source(folder, None, None)
    return RealPair(folder, prompts, temperature)


def _prompts(file: Path | None) -> list[str]:
    """The lines of a file that are not empty."""
    if file is None:
        return []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"--prompts: {file} cannot be read: {error}", "prompts") from error
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise InvalidRequestError(f"--prompts: {file} has no line with a prompt in it", "prompts")
    return prompts
