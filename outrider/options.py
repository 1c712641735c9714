"""Options that several commands of `outrider` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from outrider import completing
from speculation.engines import providers
from speculation.shaping import phone_state
from speculation.telemetry import choices

Phone = Annotated[str | None, typer.Option(help="Phone to emulate by name, or none.", autocompletion=completing.phones)]
Network = Annotated[str | None, typer.Option(help="Network to emulate by name, or none.", autocompletion=completing.networks)]
Cloud = Annotated[str | None, typer.Option(help="Cloud machine to emulate by name, or none.", autocompletion=completing.clouds)]
Agent = Annotated[str | None, typer.Option(metavar="URL", help="Use this running agent instead of starting one inside.")]
KeyFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A file with the key to send; else the variable OUTRIDER_API_KEY.")
]
Ca = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="The authority that signed the verifier's certificate: over TLS.")
]
Cert = Annotated[
    Path | None, typer.Option("--cert", metavar="FILE", help="A certificate of one's own, where the verifier wants one.")
]
CertKey = Annotated[Path | None, typer.Option("--cert-key", metavar="FILE", help="Its key.")]
Keys = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A TOML file that says who may call: each caller then needs a key.")
]
Qr = Annotated[bool, typer.Option("--qr", help="Show a QR code that opens the page on a phone; for a terminal alone.")]
QrKeyFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The key in that code; the one beside --keys by default.")]
MaxTokens = Annotated[int, typer.Option(metavar="N", help="At most so many tokens.")]
Temperature = Annotated[float, typer.Option(metavar="T", help="0 is greedy.")]
TopP = Annotated[float, typer.Option(metavar="P", help="Choose among the likeliest tokens that sum up to this.")]
TopK = Annotated[int, typer.Option(metavar="K", help="Choose among so many tokens; 0 is off.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON event a line.")]
Config = Annotated[Path | None, typer.Option(metavar="FILE", help="A TOML file with settings.")]
Port = Annotated[int | None, typer.Option(help="0 takes a free one.")]
Insecure = Annotated[bool | None, typer.Option("--insecure", help="Allow an address that others can reach.")]
Profiles = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Profiles of your own, beside those that `outrider profiles` lists.")
]
Heat = Annotated[
    phone_state.Heat | None, typer.Option(help="Whether the phone gets hot and slow: from a cold start (on), or hot already.")
]
Pair = Annotated[Path | None, typer.Option(metavar="FOLDER", help="A pair of models; the bundled one by default.")]
Draft = Annotated[Path | None, typer.Option(metavar="FOLDER", help="The draft model, in any layout that loads.")]
Full = Annotated[Path | None, typer.Option(metavar="FOLDER", help="The full model, in any layout that loads.")]
DraftVariant = Annotated[str | None, typer.Option("--variant", metavar="NAME", help="Graph of the draft, or random.")]
Provider = Annotated[providers.Provider | None, typer.Option(help="What runs the models; cpu by default.")]
FullVariant = Annotated[
    str | None, typer.Option(metavar="NAME", help="Graph of the full model (q4_kv16: q4, caches in 16 bits).")
]
MetricsCompat = Annotated[str | None, typer.Option(metavar="NAMES", help="Tell figures under these names, too: vllm.")]
OtlpEndpoint = Annotated[
    str | None, typer.Option(metavar="URL", help="Collector to send traces to by OTLP over gRPC (extra: otel).")
]
PadBytes = Annotated[int | None, typer.Option(metavar="N", help="Pad messages on the wire to a multiple of N bytes; 0 is off.")]
TickMs = Annotated[int | None, typer.Option(metavar="MS", help="Send messages only on a tick of MS milliseconds; 0 is off.")]
RagModel = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="The embedding model; that of the installed wheel by default.")
]
LogFormat = Annotated[choices.LogFormat | None, typer.Option(help="Lines for people, or one JSON object a line.")]
