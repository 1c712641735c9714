"""Writes the sequence diagrams of docs/protocol.md: ``python -m docs.diagrams``. None of them is drawn by hand.

Each is a transcript of ``docs/vectors``, played again by the production sessions; what they did is what is drawn. An arrow
stands where its message arrives, or, with a cross at its end, where one that never arrives was sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import PairIdentity
from speculation.protocol.verifier import VerifierSession
from speculation.wire import codec

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "protocol.md"
VECTORS = ROOT / "docs" / "vectors"
BEGIN, END = "<!-- diagrams:begin -->\n", "<!-- diagrams:end -->"
TITLES = {
    "accept": "Drafts that are right",
    "revoke_and_correct": "Drafts that are wrong",
    "decoded": "No drafts",
    "late": "Drafts that come too late",
    "resume": "The link breaks",
    "elsewhere": "The verifier is lost, another takes over",
}
Step = dict[str, Any]


class Drawing:
    """One transcript, and both ends while they play it."""

    def __init__(self, name: str) -> None:
        transcript = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        self.about: str = transcript["about"]
        self._steps: list[Step] = transcript["steps"]
        self._credit: int = transcript["credit"]
        self._device = _device(transcript["session"])
        self._verifiers: dict[int, VerifierSession] = {}
        self._ends = _ends(self._steps)
        self._messages = {sent["message"]: sent for step in self._steps for sent in step.get("sends", ())}
        self._sent_at = {sent["message"]: at for at, step in enumerate(self._steps) for sent in step.get("sends", ())}
        self._received = {step["receives"] for step in self._steps if "receives" in step}

    def lines(self) -> Iterator[str]:
        """The diagram, as Mermaid reads it."""
        yield "sequenceDiagram"
        yield "participant D as device"
        names = dict.fromkeys(self._ends.values())
        yield from (f"participant {name} as {'verifier' if len(names) == 1 else f'verifier {name[1:]}'}" for name in names)
        for at, step in enumerate(self._steps):
            yield from self._device_step(at, step) if step["at"] == "device" else self._verifier_step(at, step)
            yield from (self._lost(step, sent) for sent in step.get("sends", ()) if sent["message"] not in self._received)

    def _device_step(self, at: int, step: Step) -> Iterator[str]:
        match step:
            case {"receives": number}:
                yield self._arrow(self._ends[step["stream"]], "D", number, at)
                yield from self._heard(number)
            case {"does": "open"}:
                self._device.open()
            case {"does": "cancel"}:
                self._device.cancel()
            case {"does": "draft"}:
                for node in step["nodes"]:
                    self._device.drafted(**node)
                self._device.flush(step["passes"])

    def _heard(self, number: int) -> Iterator[str]:
        """What a message changed on the device."""
        length, path = len(self._device.final), self._device.path
        self._device.receive(codec.decode_response(bytes.fromhex(self._messages[number]["hex"])))
        new, still = self._device.final[length:], self._device.path
        if new:
            told = [f"final {_ids(new)}"]
            withdrawn = path[_agreeing(path, (*new, *still)) :]
            told += [f"withdrawn {_ids(withdrawn)}"] if withdrawn else []
            told += [f"still tentative {_ids(still)}"] if still else []
            yield f"Note over D: {', '.join(told)}"

    def _verifier_step(self, at: int, step: Step) -> Iterator[str]:
        stream, end = step["stream"], self._ends[step["stream"]]
        match step:
            case {"receives": number}:
                yield self._arrow("D", end, number, at)
                yield from self._taken(stream, number)
            case {"does": "pass"}:
                verifier = self._verifiers[stream]
                verifier.commit(verifier.plan(len(step["nodes"])), step["choices"])
                over = f"over node{'s'[: len(step['nodes']) - 1]} {_ids(step['nodes'])}" if step["nodes"] else "without drafts"
                yield f"Note over {end}: pass {over}, the full model chooses {_ids(step['choices'])}"
        if "status" in step:
            yield f"{end}--xD: the older stream ends with {step['status']['code']}"

    def _taken(self, stream: int, number: int) -> Iterator[str]:
        """What became at once of drafts that arrived."""
        message: Any = codec.decode_request(bytes.fromhex(self._messages[number]["hex"]))
        if stream not in self._verifiers:
            self._verifiers[stream] = VerifierSession(message, self._credit)
            return
        verifier = self._verifiers[stream]
        before = verifier.usage
        verifier.receive(message)
        after = verifier.usage
        told = [f"{after.late - before.late} final already, compared and not run"] if after.late > before.late else []
        told += [f"{after.discarded - before.discarded} new, dead"] if after.discarded > before.discarded else []
        if after.proposed == before.proposed and self._messages[number]["type"] == "Draft":
            told = ["came before, skipped"]
        if told:
            yield f"Note over {self._ends[stream]}: {', '.join(told)}"

    def _arrow(self, sender: str, receiver: str, number: int, at: int) -> str:
        heard = [step for step in self._steps[self._sent_at[number] + 1 : at] if "receives" in step]
        crossed = any((step["at"] == "device") == (sender == "D") for step in heard)
        return f"{sender}->>{receiver}: {_label(self._messages[number])}{', sent before that came' if crossed else ''}"

    def _lost(self, step: Step, sent: Step) -> str:
        end = self._ends[step["stream"]]
        sender, receiver = ("D", end) if step["at"] == "device" else (end, "D")
        return f"{sender}--x{receiver}: {_label(sent)}, lost"


def _ends(steps: Sequence[Step]) -> dict[int, str]:
    """The verifier of each stream. One that lives ends the older stream of a session; where none does, it is another one."""
    streams = sorted({step["stream"] for step in steps})
    superseded = {step["stream"] for step in steps if step.get("does") == "supersede"}
    ends, number = {}, 1
    for stream in streams:
        ends[stream] = f"V{number}"
        number += stream not in superseded
    return ends


def _device(given: dict[str, Any]) -> DeviceSession:
    parameters = given["parameters"] | {"seed": int(given["parameters"]["seed"])}
    values = {"identity": PairIdentity(**given["identity"]), "parameters": SamplingParameters(**parameters)}
    return DeviceSession(**given | values)


def _agreeing(path: Sequence[int], others: Sequence[int]) -> int:
    pairs = zip(path, others, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(path), len(others)))


def _ids(values: Sequence[int]) -> str:
    return " ".join(str(value) for value in values)


def _label(sent: Step) -> str:
    fields = sent["fields"]
    match sent["type"]:
        case "Open":
            return f"Open, attempt {fields['attempt']}, {len(fields['prefix'])} tokens are final"
        case "Opened":
            return f"Opened, credit {fields['credit']}"
        case "Verdict":
            choice = "no choice" if fields["choice"] is None else f"choice {fields['choice']}"
            return f"Verdict {fields['kind']}, start {fields['start']}, count {fields['count']}, {choice}"
        case "Finished":
            return f"Finished {fields['reason']}"
        case "Draft":
            passes = ", pass" if fields["passes"] else ""
            return f"Draft, known {fields['known']}, {', '.join(_branches(fields['nodes']))}{passes}"
        case name:
            return str(name)


def _branches(nodes: Sequence[Step]) -> Iterator[str]:
    """The nodes of a draft, those that hang one off the other together."""
    start = 0
    for index in range(1, len(nodes) + 1):
        if index == len(nodes) or nodes[index]["parent"] != nodes[index - 1]["number"] or nodes[index]["rank"]:
            yield _branch(nodes[start:index])
            start = index


def _branch(nodes: Sequence[Step]) -> str:
    first, last = nodes[0], nodes[-1]
    numbers = f"node {first['number']}" if first is last else f"nodes {first['number']} to {last['number']}"
    where = f"behind {first['parent']}" if first["parent"] else f"at {first['root_position']}"
    rank = f", rank {first['rank']}" if first["rank"] else ""
    return f"{numbers} {where}{rank} ({_ids([node['token_id'] for node in nodes])})"


def text() -> str:
    """All diagrams as Markdown."""
    parts = []
    for name, title in TITLES.items():
        drawing = Drawing(name)
        diagram = "\n    ".join(drawing.lines())
        parts.append(
            f"### {title}\n\n{drawing.about} ([{name}.json](vectors/{name}.json))\n\n```mermaid\n{diagram}\n```\n",
        )
    return "\n".join(parts)


def placed(page: str) -> str:
    """The page with the diagrams in their place."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + text() + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(placed(PAGE.read_text("utf-8")), "utf-8")
