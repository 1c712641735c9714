"""Over how many tokens agreement was measured: texts that are drawn end sooner, so it is told by temperature."""

from benchmarks import lookup, quantisation
from benchmarks.lookup import Row
from benchmarks.trace_file import load
from speculation.engines.package import load_pair


def test_the_title_has_the_tokens_of_each_temperature():
    rows = [Row(way, t, count, 0.5, 0.5, 9.0) for way in ("model", "lookup") for t, count in ((0.0, 3072), (0.8, 2866))]
    assert (
        lookup.grid(rows).title == "Measured along the full model's own paths, 3,072 tokens at temperature 0 and 2,866 at 0.8"
    )


def test_of_fewer_bits_too():
    traces = load().traces
    counts = [sum(len(t.token_ids) for t in traces if t.temperature == wanted) for wanted in (0.0, 0.8)]
    assert counts[0] > counts[1]
    plain = quantisation.Measured("draft", "fp32", 1.0, 1.0, {0.0: 1.0, 0.8: 1.0}, dict.fromkeys(quantisation.PASSES, 1.0))
    title = quantisation.quantised_grid([plain], quantisation.Extent(load_pair(), ("draft",), traces, 2, 1)).title
    assert f"agreement over {counts[0]:,} tokens at temperature 0 and {counts[1]:,} at 0.8, speeds" in title
