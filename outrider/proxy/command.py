"""``outrider proxy``: its flags, what it prints, and the kernel commands that do the same."""

from __future__ import annotations

import dataclasses
import json as to_json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from outrider import completing, options
from speculation.errors import ConfigurationError, InvalidRequestError
from speculation.shaping import exact_time
from speculation.shaping.catalogue import BUNDLED, Catalogue
from speculation.shaping.netem import tc_lines
from speculation.shaping.network import NetworkProfile
from speculation.shaping.outages import Outage
from speculation.shaping.profiles import UNSHAPED
from speculation.shaping.traces import Trace, parse_trace

TraceOption = Annotated[Path | None, typer.Option(metavar="FILE", help="A Mahimahi trace that replaces the rate.")]


def proxy(
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where clients connect; port 0 is a free one.")
    ] = None,
    upstream: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where their connections go on to.")] = None,
    network: Annotated[
        str, typer.Option(metavar="NAME", help="Network to emulate by name, or none.", autocompletion=completing.networks)
    ] = UNSHAPED,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="The same seed is the same day.")] = 0,
    uplink_trace: TraceOption = None,
    downlink_trace: TraceOption = None,
    outages: Annotated[str, typer.Option(metavar="PLAN", help="Seconds without network, such as 10-12,30-31.5.")] = "",
    control: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Control over HTTP, toxiproxy's API.")] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Name that requests to the control may use; may repeat.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Allow addresses that others can reach.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON event a line.")] = False,
    print_tc: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Print this network as tc commands, and stop.", autocompletion=completing.networks),
    ] = None,
    device: Annotated[str, typer.Option(metavar="DEV", help="The device in those commands.")] = "eth0",
    profiles: options.Profiles = None,
) -> None:
    """Pass TCP connections on through an emulated network, controllable while it runs."""
    catalogue = Catalogue(profiles)
    if print_tc is not None:
        print("\n".join(tc_lines(catalogue.network(print_tc), device)))
        return
    from outrider.proxy import serving
    from outrider.proxy.service import parse_address

    if listen is None or upstream is None:
        raise InvalidRequestError("a proxy needs --listen HOST:PORT and --upstream HOST:PORT")
    settings = serving.ProxySettings(
        listen=parse_address(listen, "listen"),
        upstream=parse_address(upstream, "upstream", first_port=1),
        network=chosen_network(network, uplink_trace, downlink_trace, outages, catalogue),
        seed=seed,
        control=None if control is None else parse_address(control, "control"),
        insecure=insecure,
        allowed_hosts=tuple(allowed_host or ()),
        catalogue=catalogue,
    )
    exact_time.run(serving.run(settings, _tell_json if json else _tell))


def chosen_network(
    name: str, uplink_trace: Path | None, downlink_trace: Path | None, outages: str, catalogue: Catalogue = BUNDLED
) -> NetworkProfile:
    """A network by name with traces and a plan of outages of one's own.

    Raises ``UnknownNameError``, ``ConfigurationError`` (a trace with its file, line and rule).
    """
    profile = catalogue.network(name)
    more: dict[str, Any] = {}
    if uplink_trace is not None:
        more["uplink_trace"] = read_trace(uplink_trace)
    if downlink_trace is not None:
        more["downlink_trace"] = read_trace(downlink_trace)
    if outages:
        more["outages"] = tuple(map(_outage, outages.split(",")))
    if not more:
        return profile
    # Else it would pass for the profile that emulates nothing.
    return dataclasses.replace(profile, name="custom" if name == UNSHAPED else name, **more)


def read_trace(path: Path) -> Trace:
    """A Mahimahi trace from a file. Raises ``ConfigurationError`` with the file, the line and the rule."""
    try:
        return parse_trace(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise ConfigurationError(f"the trace {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}:1: this is no trace: it is no text") from error


def _outage(text: str) -> Outage:
    start, dash, end = text.partition("-")
    try:
        if dash:
            return Outage(float(start), float(end))
    except ValueError:
        pass
    raise ConfigurationError(f"outages are START-END in seconds, such as 10-12,30-31.5, not {text!r}")


def _tell(event: dict[str, Any]) -> None:
    """People are told where it listens, and what cannot be reached."""
    if event["event"] == "listening":
        control = f", control on http://{event['control']}" if event["control"] else ""
        line = f"proxy on {event['listen']} to {event['upstream']}, network {event['network']}{control}"
        print(line, file=sys.stderr, flush=True)
    elif event["event"] == "unreachable":
        print(f"connection {event['connection']}: {event['error']}", file=sys.stderr, flush=True)


def _tell_json(event: dict[str, Any]) -> None:
    print(to_json.dumps(event), flush=True)
