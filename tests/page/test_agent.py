"""The page's way to its agent, without a page, by node: against a small server that answers as an agent would."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

NODE = shutil.which("node")
STATIC = Path(__file__).parents[2] / "device_agent" / "static"
STORAGE = "({ getItem: () => 'sesame', setItem() {}, removeItem() {} })"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

pytestmark = pytest.mark.skipif(NODE is None, reason="the page's modules are run by node, which is not on the path")


class Answers:
    """A server that gives each connection its next answer, and keeps what was asked. ``None`` closes without a word."""

    def __init__(self, *answers: bytes | None) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    async def serve(self, reader, writer):
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(request.partition(" HTTP")[0])
        assert "authorization: Bearer sesame" in request
        answer = self._answers.pop(0) if self._answers else None
        writer.write(answer or b"")
        await writer.drain()
        writer.close()


def items(*numbers: int, is_whole: bool) -> bytes:
    pieces = (f'id: {number}\ndata: {{"kind": "pass", "number": {number}}}\n\n'.encode() for number in numbers)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + chunks + (b"0\r\n\r\n" if is_whole else b"")


async def ran(script: str, answers: Answers):
    """What a script with an ``agent`` prints, as JSON."""
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    module = json.dumps((STATIC / "agent.mjs").as_uri())
    head = f"import {{ Agent }} from {module};\nconst agent = new Agent('{url}', {STORAGE});\n"
    pipe = asyncio.subprocess.PIPE
    words = (NODE, "--input-type=module", "--eval", head + script)
    async with server, asyncio.timeout(30):
        process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
        out, shouts = await process.communicate()
    assert process.returncode == 0, shouts.decode()
    return json.loads(out)


FOLLOW = """
const told = [];
let failed = null;
try {
  for await (const { number } of agent.timeline("a b", new AbortController().signal)) told.push(number);
} catch (error) { failed = error.code ?? error.name; }
console.log(JSON.stringify([told, failed]));
"""


async def test_a_timeline_whose_connection_breaks_is_read_on_behind_its_last_item():
    answers = Answers(items(0, 1, is_whole=False), None, items(2, is_whole=False), items(3, is_whole=True))
    assert await ran(FOLLOW, answers) == [[0, 1, 2, 3], None]
    path = "GET /v1/stream/a%20b/timeline"
    assert answers.asked == [path, *(f"{path}?starting_after={last}" for last in (1, 1, 2))]


async def test_a_timeline_that_was_read_to_its_end_is_not_asked_for_again():
    answers = Answers(items(0, is_whole=False), b"HTTP/1.1 204 No Content\r\n\r\n")
    assert await ran(FOLLOW, answers) == [[0], None]


async def test_a_timeline_that_the_agent_refuses_or_never_gives_is_given_up():
    refusal = b'HTTP/1.1 404 Not Found\r\ncontent-length: 33\r\n\r\n{"error":{"code":"session_gone"}}\n'
    refused, silent = Answers(items(0, is_whole=False), refusal), Answers()
    assert await ran(FOLLOW, refused) == [[0], "session_gone"]
    assert await ran(FOLLOW, silent) == [[], "link"]
    assert (len(refused.asked), len(silent.asked)) == (2, 6)


async def test_an_answer_is_ended_at_the_agent_and_one_that_cannot_be_is_left():
    answers = Answers(b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\n{"state":"ended"}', None)
    assert await ran("await agent.cancel('a'); await agent.cancel('b'); console.log('null')", answers) is None
    assert answers.asked == ["DELETE /v1/stream/a", "DELETE /v1/stream/b"]
