"""The peers of the measured capacity: who is asked, and what is said of those that are not there."""

from pathlib import Path

from benchmarks import capacity_peers
from benchmarks.capacity_peers import SERVER, peers


async def test_a_peer_that_is_not_installed_is_left_out_with_the_reason(monkeypatch, capsys):
    monkeypatch.setattr(capacity_peers, "NEEDS", {"another": ("other", ("no_such_module",))})
    assert await peers([1], Path("no-such-server")) == {0.0: {}}
    assert capsys.readouterr().err.splitlines() == [
        "left out: another (no_such_module not installed; pip install 'outrider[rivals]')",
        f"left out: {SERVER} (no program no-such-server; name one by --llama-server PATH)",
    ]


async def test_the_server_has_a_rate_at_each_temperature_and_its_greedy_texts_are_judged(monkeypatch, capsys):
    async def asked(module, what, counts, *flags):
        told = {"texts": 7, "same_texts": 5}
        return [{"temperature": t, "count": n, "tokens_per_s": 100 * n + t} | told for n in counts for t in (0.0, 0.8)]

    monkeypatch.setattr(capacity_peers, "NEEDS", {})
    monkeypatch.setattr(capacity_peers, "SERVER_NEEDS", ())
    monkeypatch.setattr(capacity_peers, "_asked", asked)
    found = await peers([1, 4], Path("/bin/sh"))
    assert found == {0.0: {SERVER: {1: 100.0, 4: 400.0}}, 0.8: {SERVER: {1: 100.8, 4: 400.8}}}
    assert capsys.readouterr().err.splitlines() == [
        f"{SERVER}, {count} clients, temperature 0: 5 of 7 texts are the recorded ones" for count in (1, 4)
    ]
