"""The QR code: what a phone's camera reads, for whom it is shown, and that the key in it opens the agent's door."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from itertools import chain
from urllib.parse import unquote, urlsplit

import httpx
import numpy as np
import pytest
import segno
import zxingcpp
from rich.console import Console

from device_agent.config import AgentConfig
from outrider import phone_page
from outrider.key_folder import make_keys
from outrider.phone_page import PhonePage, code_of, show
from speculation.errors import ConfigurationError

LAN = "192.168.1.20"
PIXELS = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}


def picture(drawn):
    """What a camera sees of half blocks, three pixels a module."""
    rows = [list(zip(*(PIXELS[block] for block in line), strict=True)) for line in drawn.splitlines()]
    return np.array(list(chain.from_iterable(rows)), np.uint8).repeat(3, 0).repeat(3, 1)


def read(drawn):
    (found,) = zxingcpp.read_barcodes(picture(drawn))
    return found.text


def blocks_in(screen):
    """The lines of a screen that are drawn of half blocks, without what colours them."""
    plain = screen.replace("\x1b[38;2;255;255;255;48;2;0;0;0m", "").replace("\x1b[0m", "")
    return "\n".join(line for line in plain.replace("\r", "").splitlines() if set(line) <= PIXELS.keys() and "█" in line)


@pytest.fixture(autouse=True)
def at_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)


@pytest.fixture
def folder(tmp_path):
    make_keys(tmp_path / "keys", "phone")
    return tmp_path / "keys"


def test_what_is_drawn_is_read_as_the_address():
    url = f"https://{LAN}:8080/#key=1TvG29iutM_lvU8Vq5eNY5HlIPih22avFxj6BGL1DMQ"
    assert read(code_of(url)) == url
    ours = picture(code_of(url))[::3, ::3]
    theirs = 255 * (1 - np.array(list(segno.make_qr(url).matrix_iter(border=4)), np.uint8))
    assert np.array_equal(ours[: len(theirs)], theirs)


@pytest.mark.parametrize(
    ("page", "url"),
    [
        (PhonePage("http", LAN, None), f"http://{LAN}:8080/"),
        (PhonePage("https", "phone.example", "sesame-sesame"), "https://phone.example:8080/#key=sesame-sesame"),
        (PhonePage("http", "[fd00::2]", None), "http://[fd00::2]:8080/"),
        (PhonePage("http", "fd00::1", "a#b%c/d"), "http://[fd00::1]:8080/#key=a%23b%25c%2Fd"),
    ],
)
def test_the_key_stands_in_the_fragment_alone(page, url):
    assert page.url(8080) == url
    parts = urlsplit(url)
    assert (parts.path, parts.query) == ("/", "")
    assert unquote(parts.fragment).removeprefix("key=") == (page.key or "")


def test_the_key_beside_the_file_of_keys_is_taken_unless_another_is_named(folder, tmp_path):
    settings = AgentConfig(host=LAN, keys=folder / "keys.toml")
    key = (folder / "key").read_text().strip()
    assert phone_page.phone_page(settings, None) == PhonePage("http", LAN, key)
    moved = tmp_path / "phone.key"
    (folder / "key").rename(moved)
    assert phone_page.phone_page(settings, moved) == PhonePage("http", LAN, key)
    with pytest.raises(ConfigurationError, match="name the phone's with --qr-key-file FILE"):
        phone_page.phone_page(settings, None)
    moved.write_text("sesame-sesame-sesame")
    with pytest.raises(ConfigurationError, match="does not let in the key") as refused:
        phone_page.phone_page(settings, moved)
    assert "sesame" not in str(refused.value)


def test_an_agent_without_keys_has_none_to_show(tmp_path):
    settings = AgentConfig(host=LAN, insecure=True)
    assert phone_page.phone_page(settings, None) == PhonePage("http", LAN, None)
    with pytest.raises(ConfigurationError, match="asks for no key; add --keys"):
        phone_page.phone_page(settings, tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_an_agent_that_no_phone_reaches_says_which_host_would_do(host):
    with pytest.raises(ConfigurationError, match=rf"a phone cannot reach {host}; add --host 0\.0\.0\.0"):
        phone_page.phone_page(AgentConfig(host=host), None)


@pytest.mark.parametrize("found", ["127.0.0.1", OSError("Network is unreachable")], ids=str)
def test_a_machine_on_no_network_is_told_so(found, monkeypatch):
    class Probe:
        def __init__(self, *_): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def connect(self, _):
            if isinstance(found, OSError):
                raise found

        def getsockname(self):
            return found, 1

    monkeypatch.setattr("outrider.phone_page.socket.socket", Probe)
    with pytest.raises(ConfigurationError, match="name the address that a phone sees as --host"):
        phone_page.phone_page(AgentConfig(host="0.0.0.0", insecure=True), None)


@pytest.mark.parametrize("verb", ["agent", "serve"])
def test_nothing_is_shown_where_it_could_end_up_in_a_log(folder, monkeypatch, outrider, verb):
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    code, out, err = outrider(verb, "--host", LAN, "--keys", folder / "keys.toml", "--qr")
    assert (code, out) == (2, "")
    assert "standard error is no terminal" in err
    assert (folder / "key").read_text().strip() not in err


@pytest.mark.parametrize("verb", ["agent", "serve"])
def test_a_key_for_a_code_that_nobody_asked_for_is_refused(folder, outrider, verb):
    code, _, err = outrider(verb, "--qr-key-file", folder / "key")
    assert (code, "give that, too" in err) == (2, True)


@pytest.mark.parametrize(("columns", "is_drawn"), [(60, True), (36, False)])
def test_a_code_that_is_wider_than_the_terminal_is_left_out_and_the_address_is_whole(columns, is_drawn):
    console = Console(file=io.StringIO(), width=columns, force_terminal=True, color_system="truecolor")
    page = PhonePage("http", LAN, "1TvG29iutM_lvU8Vq5eNY5HlIPih22avFxj6BGL1DMQ")
    show(page, 8080, console)
    printed = console.file.getvalue()
    assert page.url(8080) in printed
    assert (blocks_in(printed) != "") is is_drawn
    assert ("a terminal of 41 columns" in printed) is not is_drawn
    if is_drawn:
        assert read(blocks_in(printed)) == page.url(8080)


@pytest.mark.parametrize("verb", ["agent", "serve"])
def test_what_a_phone_reads_off_the_terminal_opens_the_door(folder, verb):
    try:
        host = phone_page.phone_page(AgentConfig(host="0.0.0.0", keys=folder / "keys.toml"), None).host
    except ConfigurationError:
        pytest.skip("this machine is on no network")
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "outrider", verb, "--host", "0.0.0.0", "--port", "0", "--qr", "--variant", "random"]
    colours = ["env", "COLUMNS=100", "TERM=xterm", "COLORTERM=truecolor"]
    process = subprocess.Popen([*colours, *command, "--keys", folder / "keys.toml"], stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    screen = b""
    try:
        while b"key=" not in screen:
            screen += os.read(ours, 65536)
        url = read(blocks_in(screen.decode()))
        parts = urlsplit(url)
        assert parts.hostname == host
        asked = f"http://{parts.netloc}/v1/models"
        headers = {"authorization": f"Bearer {parts.fragment.removeprefix('key=')}"}
        assert [httpx.get(asked).status_code, httpx.get(asked, headers=headers).status_code] == [401, 200]
    finally:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        os.close(ours)
    assert (process.returncode, out) == (0, b"")
