"""Figures reach a page only through its marked block."""

import argparse
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.report import Grid, fill


def test_only_the_named_block_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- figures:x:begin -->\nold\n<!-- figures:x:end -->\nb\n<!-- figures:y:begin --><!-- figures:y:end -->\n"
    )
    fill(page, {"x": Grid("t", ["c"], [["1"]]).to_markdown()})
    text = page.read_text()
    assert "old" not in text
    assert "| 1 |" in text
    assert text.startswith("a\n")
    assert text.endswith("b\n<!-- figures:y:begin --><!-- figures:y:end -->\n")


def test_a_page_without_the_block_is_an_error(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(ValueError, match="figures:x"):
        fill(page, {"x": "text"})


def test_of_several_blocks_a_page_gets_those_that_it_has(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures:b:begin -->old<!-- figures:b:end -->", "utf-8")
    fill(page, {"a": "first", "b": "second"})
    assert page.read_text("utf-8") == "<!-- figures:b:begin -->\nsecond\n<!-- figures:b:end -->"


def test_a_block_without_an_end_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- figures:x:begin -->", "utf-8")
    with pytest.raises(ValueError, match="has no <!-- figures:x:end -->"):
        fill(page, {"x": "text"})


@pytest.mark.parametrize("flag", ["--json", "--fill", "--plot"])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(flag, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    parser.add_argument("--plot", type=report.picture)
    with pytest.raises(SystemExit) as left:
        parser.parse_args([flag, str(tmp_path / "nowhere" / "file")])
    assert left.value.code == 2
    assert f"argument {flag}: " in capsys.readouterr().err


PROGRAMS = sorted(path for path in Path(report.__file__).parent.glob("*.py") if "__main__" in path.read_text("utf-8"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_every_benchmark_takes_the_common_flags_and_heeds_them(path):
    text = path.read_text("utf-8")
    assert "add_arguments(parser)" in text
    assert any(call in text for call in ("publish(", "publish_blocks(", "write_json("))
    assert "arguments.quick" in text


def test_ci_runs_every_benchmark():
    root = Path(report.__file__).parents[1]
    assert "bench ARGS=--quick" in (root / ".ci" / "run").read_text("utf-8")
    assert "grep -l '__main__' benchmarks/*.py" in (root / "Makefile").read_text("utf-8")


def test_the_page_tells_of_every_benchmark_what_it_answers():
    page = (Path(report.__file__).parents[1] / "docs" / "benchmarks.md").read_text("utf-8")
    assert [path.stem for path in PROGRAMS if f"\n| `python -m benchmarks.{path.stem}` |" not in page] == []
