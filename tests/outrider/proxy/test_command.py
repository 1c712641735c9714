"""``outrider proxy``: what it takes and refuses, and the kernel commands that it prints."""

import math
from importlib import resources

import pytest

from outrider.proxy.command import chosen_network
from speculation.errors import UnknownNameError
from speculation.shaping.catalogue import Catalogue
from speculation.shaping.outages import Outage
from speculation.shaping.traces import Trace


def test_the_kernel_commands_of_a_network_have_its_figures(outrider):
    code, shown, _ = outrider("proxy", "--print-tc", "comcast-3g", "--device", "wlan0")
    assert code == 0
    assert "tc qdisc add dev wlan0 root netem limit 71 delay 125000us loss 1.5% rate 750000bit" in shown
    assert "tc qdisc add dev ifb0 root netem" in shown


def test_what_the_kernel_cannot_do_is_said(outrider):
    _, shown, _ = outrider("proxy", "--print-tc", "lte-verizon")
    assert "# not in netem: a radio that falls asleep" in shown
    _, shown, _ = outrider("proxy", "--print-tc", "train")
    assert "# not in netem: outages" in shown


def test_a_trace_and_a_plan_of_outages_become_part_of_the_network(tmp_path):
    file = tmp_path / "up.trace"
    file.write_text("10\n20\n")
    network = chosen_network("none", file, None, "10-12,30-31.5")
    assert network.name != "none"
    assert network.uplink.trace == Trace((10, 20))
    assert network.downlink.trace is None
    assert network.outages == (Outage(10, 12), Outage(30, 31.5))
    assert chosen_network("lte", None, None, "") is not chosen_network("lte", file, None, "")


def test_networks_without_a_rate_or_a_delay_have_kernel_commands_too(outrider):
    for name in ("none", "5g-mmwave", "comcast-starlink", "mahimahi-verizon-lte", "satellite"):
        code, shown, _ = outrider("proxy", "--print-tc", name)
        assert code == 0
        assert shown.count("netem limit") == 2
        assert str(math.inf) not in shown


BOTH = ("--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a proxy needs --listen HOST:PORT and --upstream HOST:PORT"),
        (("--listen", "127.0.0.1:0", "--upstream", "nowhere"), "upstream must be host:port"),
        (("--listen", "0.0.0.0:0", "--upstream", "127.0.0.1:1"), "set insecure"),
        ((*BOTH, "--control", "0.0.0.0:0"), "set insecure"),
        ((*BOTH, "--network", "abacus"), "unknown network 'abacus'; known: 5g-mmwave"),
        ((*BOTH, "--outages", "12"), "outages are START-END in seconds"),
        ((*BOTH, "--outages", "12-10"), "an outage begins at 0 s or later and ends after that, not 12 to 10 s"),
        ((*BOTH, "--uplink-trace", "there-is-none"), "cannot be read"),
        ((*BOTH, "--seed", "-1"), "--seed"),
        (("--print-tc", "abacus"), "unknown network"),
    ],
    ids=str,
)
def test_bad_input_is_one_clear_line_and_exit_code_2(arguments, said, outrider):
    code, out, err = outrider("proxy", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("outrider: error: ")
    assert err.count("\n") == 1
    assert said in err


def test_a_trace_that_goes_back_is_refused_with_its_file_line_and_rule(outrider, tmp_path):
    file = tmp_path / "down.trace"
    file.write_text("5\n4\n")
    code, _, err = outrider("proxy", *BOTH, "--downlink-trace", file)
    assert code == 2
    assert f"{file}:2: 4 ms comes before 5 ms" in err


def test_a_network_of_the_users_own_is_known_by_name(tmp_path):
    (tmp_path / "networks").mkdir()
    bundled = resources.files("speculation.shaping").joinpath("data", "networks", "lte.toml").read_text("utf-8")
    (tmp_path / "networks" / "mine.toml").write_text(bundled.replace("LTE, typical", "Mine"), "utf-8")
    assert chosen_network("mine", None, None, "", Catalogue(tmp_path)).title == "Mine"
    with pytest.raises(UnknownNameError, match="mine"):
        chosen_network("yours", None, None, "", Catalogue(tmp_path))
