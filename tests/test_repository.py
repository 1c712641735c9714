"""What the pages promise is there: commands, links, files, versions; and no module outgrows its reader."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from docs.modules import BEGIN, END, PACKAGES, lines, modules
from outrider import cli
from tests.support.code_blocks import PAGES, SHELL, blocks, parts

ROOT = Path(__file__).resolve().parents[1]
MAX_LINES = 300


def commands(program):
    """Every line in a page's blocks that runs ``program``, with its comment taken off."""
    found = []
    for block in blocks():
        for line in block.commands if block.language in SHELL else ():
            for words in parts(line):
                if words.startswith(program + " "):
                    found.append((block.page, words.rstrip("& ")))
    return found


def verbs_of_make():
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize(("page", "command"), commands("make"))
def test_every_make_verb_in_a_page_exists(page, command):
    assert shlex.split(command)[1] in verbs_of_make()


VERBS = {"models": 2, "rag": 2, "rag delta": 3}
"""Words that name a command, where that is more than one."""


@pytest.mark.parametrize(("page", "command"), commands("outrider"))
def test_every_outrider_command_in_a_page_is_understood(page, command, capsys):
    words = shlex.split(command)[1:]
    verb = words[: VERBS.get(" ".join(words[:2]), VERBS.get(words[0], 1))]
    flags = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert cli.run(lambda: cli.app([*verb, "--help"], standalone_mode=False)) == 0
    shown = capsys.readouterr().out
    assert [flag for flag in flags if f" {flag}" not in shown] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []


def anchors(page):
    """What the headings of a page are called in links, as GitHub names them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_finds_it(page):
    links = re.findall(r"\]\(([^)#\s:]*)#([^)]+)\)", page.read_text("utf-8"))
    lost = [(file, name) for file, name in links if name not in anchors(page.parent / file if file else page)]
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_module_that_a_page_names_exists(page):
    folders = "|".join((*PACKAGES, "benchmarks", "models", "loadtest", "protos", "tests"))
    named = set(re.findall(rf"`((?:{folders})/[\w/.-]+\.\w+)`", page.read_text("utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_row_of_what_is_tried_that_the_security_model_names_is_there():
    rows = set(re.findall(r"^\| ([^|]+) \|", (ROOT / "SECURITY.md").read_text("utf-8"), re.MULTILINE))
    model = (ROOT / "docs/security.md").read_text("utf-8").partition("## Holes that others have had")[2]
    named = [name for line in model.splitlines() if line.startswith("|") for name in re.findall(r"\*([^*]+)\*", line)]
    assert len(named) > 10
    assert [name for name in named if name not in rows] == []


def test_every_test_that_the_page_on_security_names_is_where_it_says():
    text = (ROOT / "SECURITY.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", text)
    assert len(named) > 10
    sources = {path: (ROOT / path).read_text("utf-8") for path, _ in named}
    assert [
        (path, test) for path, tests in named for test in re.findall(r"\w+", tests) if f"def {test}(" not in sources[path]
    ] == []


def test_the_architecture_has_a_line_for_every_module():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert BEGIN + lines() + END in text, "run: make fmt"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_is_short_enough_to_read(path):
    assert len(path.read_text("utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_says_that_it_is_typed(package):
    assert (ROOT / package / "py.typed").exists()


def test_the_pages_around_the_code_are_there():
    licence = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in licence
    assert "Version 2.0, January 2004" in licence
    notice = (ROOT / "NOTICE").read_text("utf-8")
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in notice
    assert "ZERO-CLAUSE BSD LICENSE" in notice
    assert (ROOT / "CHANGELOG.md").read_text("utf-8").startswith("# Changelog\n\n## The compatibility promise")
    assert (ROOT / "SECURITY.md").exists()


def test_one_version_stands_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_opening_of_the_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.findall(r"^(make \w+)  ", text, re.MULTILINE)[:2] == ["make demo", "make test"]
    assert "pip install . && outrider demo" in text


def test_the_readme_opens_with_a_sentence_a_picture_a_table_and_commands_and_leads_to_every_page():
    text = (ROOT / "README.md").read_text("utf-8")
    assert re.match(r"# Outrider\n\n[A-Z][^#|`]+\.\n\n```text\n", text)
    assert re.search(r"figures:fresh-clone:begin.*figures:collaboration:begin", text, re.DOTALL)
    linked = set(re.findall(r"\]\(([\w/.-]+\.md)\)", text.partition("## Learn more")[2]))
    assert {str(page.relative_to(ROOT)) for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]} - linked == {"README.md"}


def test_the_compose_file_starts_only_what_the_command_line_knows(capsys):
    lines = (ROOT / "docker-compose.yml").read_text("utf-8")
    flags = set(re.findall(r"--[a-z-]+", lines)) - {"--insecure"}
    shown = ""
    for verb in ("keys", "verifier", "agent", "demo", "proxy"):
        cli.run(lambda verb=verb: cli.app([verb, "--help"], standalone_mode=False))
        shown += capsys.readouterr().out
    assert [flag for flag in flags if f" {flag}" not in shown] == []


def test_importing_the_public_names_starts_nothing():
    code = "import json, sys, outrider, outrider.client; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert [name for name in ("torch", "onnxruntime", "cloud_verifier") if name in loaded] == []


def test_operations_tell_every_setting():
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    settings = {*VerifierConfig.model_fields, *AgentConfig.model_fields}
    assert [name for name in sorted(settings) if f"`{name}`" not in text] == []
