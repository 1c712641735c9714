"""A plan in words and tables, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from device_agent.request import Mode
from outrider.comparison import TITLES
from outrider.planning.answers import PAYS_FROM, Asked, Mean, Plan
from outrider.planning.token_speed import TOKENS_PER_WORD, WORDS_PER_MINUTE, Speeds

NOTHING = "-"
BOUNDS = {
    "rate": "more would get less than {rate:g} tokens a second each",
    "memory": "more contexts of {context} tokens do not fit beside the model",
    "tried": "more were not tried",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table of modes: its name, the attribute, what it is multiplied by, and its decimals."""

    title: str
    attribute: str
    scale: float = 1.0
    decimals: int = 2


ROWS = (
    Figure("tokens a second", "tokens_per_s", decimals=1),
    Figure("first visible token, ms", "first_visible_ms", decimals=0),
    Figure("first final token, ms", "first_final_ms", decimals=0),
    Figure("full-model passes a token", "passes_per_token"),
    Figure("drafts that agreed", "acceptance"),
    Figure("shown tokens that were revoked", "revoked_share"),
    Figure("draft steps a token", "draft_steps_per_token"),
    Figure("bytes up a token", "bytes_up_per_token", decimals=1),
    Figure("bytes down a token", "bytes_down_per_token", decimals=1),
    Figure("phone's work, mJ a token", "work_j_per_token", 1000, 0),
    Figure("phone's radio, mJ a token", "radio_j_per_token", 1000, 0),
)


def rendered(asked: Asked, found: Plan) -> RenderableType:
    """All of it, in the order in which people ask."""
    return Group(*_parts(asked, found))


def sentence(found: Plan) -> str:
    """Whether it pays."""
    up = found.speed_up
    range_ = f"95 %: {up.low:.2f} to {up.high:.2f}"
    if found.pays:
        return f"It pays: {up.mean:.2f} times as many tokens a second as the cloud alone ({range_})."
    if up.mean >= PAYS_FROM:
        return f"It may pay: {up.mean:.2f} times as many tokens a second as the cloud alone, but {range_}."
    return (
        f"It does not pay: {up.mean:.2f} times as many tokens a second as the cloud alone ({range_}); "
        f"below {PAYS_FROM:g} the battery is better spent otherwise."
    )


def heading(asked: Asked, found: Plan) -> list[str]:
    """What was asked: machines, models, and whose tokens."""
    place = asked.place
    if asked.pair is None:
        tokens = f"the synthetic pair at an acceptance of {found.acceptance:g}, of whose misses a second choice covers "
        tokens += f"{asked.acceptance.cover2:.0%}"
    else:
        tokens = (
            f"the pair's own, which agrees in {found.acceptance:.0%}; round trips, settings and devices by the synthetic pair"
        )
    return [
        f"phone    {place.phone.name}: {place.phone.title}; draft {place.draft.name}",
        f"network  {place.network.name}: {place.network.title}",
        f"cloud    {place.cloud.name}: {place.cloud.title}; full model {place.full.name}",
        f"tokens   {tokens}",
    ]


def token_speeds(found: Speeds) -> RenderableType:
    """The table of token speeds, and what readers want."""
    gb = found.bandwidth_bytes_per_s / 1e9
    shared = f", shared by {found.num_streams} streams" if found.num_streams > 1 else ""
    shares = list(found.rows[0].tokens_per_s)
    table = Table(
        "model",
        "weights, GB",
        *(f"{share:.0%} used" for share in shares),
        *found.reading_tokens_per_s,
        title=f"Tokens a second under {gb:g} GB/s{shared}",
    )
    for row in found.rows:
        speeds = [f"{row.tokens_per_s[share]:.2f}" for share in shares]
        fast = [_share_that_keeps_up(row.tokens_per_s, speed) for speed in found.reading_tokens_per_s.values()]
        table.add_row(f"{row.model} {row.number_type.upper()}", f"{row.weight_bytes / 1e9:g}", *speeds, *fast)
    reading = "; ".join(f"{name} {speed:.1f}" for name, speed in found.reading_tokens_per_s.items())
    words = ", ".join(f"{words:g}" for words in WORDS_PER_MINUTE.values())
    return Group(
        table,
        Text(
            f"Reading, in tokens a second: {reading} ({words} words a minute at {TOKENS_PER_WORD:.2f} tokens a word). "
            "The last columns: which use of the bandwidth keeps up. Weights alone are counted, read once a token."
        ),
    )


def _share_that_keeps_up(speeds: Mapping[float, float], wanted: float) -> str:
    """The least utilisation that is fast enough."""
    enough = [share for share, speed in speeds.items() if speed >= wanted]
    return f"at {min(enough):.0%}" if enough else "no"


def _parts(asked: Asked, found: Plan) -> Iterator[RenderableType]:
    yield Text("\n".join(heading(asked, found)))
    yield Text(f"\n{sentence(found)}\n", style="bold")
    yield _modes(found)
    best = f"{found.best.depth} deep, {found.best.width} wide, {found.best.tokens_per_s:.1f} tokens a second"
    yield Text(
        f"\nBest fixed setting: {best}; adaptive, the default, looks for its own: {found.best.adaptive_tokens_per_s:.1f}."
    )
    yield _distances(found)
    yield Text(_distance_sentence(found) + "\n")
    if found.heat:
        yield _heat(found)
        yield Text("")
    yield _servers(asked, found)
    yield Text("All figures are emulated: the production code under a virtual clock, machines and network by their profiles.")


def _modes(found: Plan) -> Table:
    table = Table("", *(TITLES[mode] for mode in (Mode.COLLABORATE, Mode.CLOUD, Mode.DEVICE)), title="One answer, emulated")
    for row in ROWS:
        table.add_row(row.title, *(_number(mean, row) for mean in (found.collaborate, found.cloud, found.device)))
    return table


def _number(mean: Mean, row: Figure) -> str:
    value = getattr(mean, row.attribute)
    return NOTHING if value is None else f"{value * row.scale:.{row.decimals}f}"


def _distances(found: Plan) -> Table:
    table = Table("round trip, ms", *(f"{ms:g}" for ms in found.by_round_trip), title="Were the network nearer or farther")
    table.add_row("speed-up", *(f"{speed_up:.2f}" for speed_up in found.by_round_trip.values()))
    return table


def _distance_sentence(found: Plan) -> str:
    if found.break_even_ms is None:
        return "It pays at every round trip that was tried."
    if found.break_even_ms == 0:
        return "It pays at no round trip."
    return f"Break-even: a round trip of about {found.break_even_ms:.0f} ms."


def _heat(found: Plan) -> Table:
    table = Table("", *(f"{warm.after_s:g} s" for warm in found.heat), title="Hot: after drafting without a pause for")
    table.add_row("phone, share of full speed", *(f"{warm.phone_speed:.2f}" for warm in found.heat))
    table.add_row("thermal status", *(warm.status for warm in found.heat))
    table.add_row("collaborative, tokens a second", *(f"{warm.tokens_per_s:.1f}" for warm in found.heat))
    cloud = found.cloud.tokens_per_s
    table.add_row("over the cloud alone", *(f"{warm.tokens_per_s / cloud:.2f}" for warm in found.heat))
    table.add_row("device alone, tokens a second", *(f"{warm.device_tokens_per_s:.1f}" for warm in found.heat))
    return table


def _servers(asked: Asked, found: Plan) -> Table:
    title = f"Devices a server, each with {asked.rate_tokens_per_s:g} tokens a second at least"
    table = Table("", "devices", "tokens a second each", "dollars a million tokens", "why not more", title=title)
    for mode, served in found.served.items():
        price = NOTHING if served.usd_per_million is None else f"{served.usd_per_million:.2f}"
        why = BOUNDS[served.bound].format(rate=asked.rate_tokens_per_s, context=asked.context_length)
        table.add_row(TITLES[Mode(mode)], str(served.num_devices), f"{served.tokens_per_s:.1f}", price, why)
    return table
