"""Figures reach a page only through its marked block."""

import pytest

from benchmarks.report import Grid, fill


def test_only_the_named_block_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- figures:x:begin -->\nold\n<!-- figures:x:end -->\nb\n<!-- figures:y:begin --><!-- figures:y:end -->\n"
    )
    fill(page, "x", Grid("t", ["c"], [["1"]]).to_markdown())
    text = page.read_text()
    assert "old" not in text
    assert "| 1 |" in text
    assert text.startswith("a\n")
    assert text.endswith("b\n<!-- figures:y:begin --><!-- figures:y:end -->\n")


def test_a_page_without_the_block_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="figures:x"):
        fill(page, "x", "text")
