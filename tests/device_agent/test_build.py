"""Which engine drafts, and how prompts are read, by the configuration and the models on disk."""

from __future__ import annotations

import json

import pytest

from device_agent.build import defaults_of, draft_engine, facts_of
from device_agent.config import AgentConfig
from speculation.engines.blended import BlendedEngine
from speculation.engines.files import file_digest
from speculation.engines.lookup import LookupEngine
from speculation.engines.onnx import OnnxEngine
from speculation.engines.pairs import pair_of
from speculation.engines.random import RandomEngine
from speculation.errors import ConfigurationError, PackageError, UnknownNameError
from speculation.parameters import NO_DEFAULTS, GenerationDefaults
from tests.speculation.engines.tiny import tiny_package

MESSAGES = [{"role": "user", "content": "Tiny"}]
TEMPLATE = {"chat_template": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"}


@pytest.fixture
def package(tmp_path):
    return tiny_package(tmp_path / "package", variants=("fp32", "q4"))


def with_template(package, is_listed=True):
    """The package with a template beside its files, or among them."""
    path = package.path / "tokenizer_config.json"
    path.write_text(json.dumps(TEMPLATE))
    if is_listed:
        manifest = json.loads((package.path / "manifest.json").read_text())
        manifest["files"][path.name] = file_digest(path)
        (package.path / "manifest.json").write_text(json.dumps(manifest))
    return pair_of(package.path, package.path)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, OnnxEngine),
        ({"variant": "fp32"}, OnnxEngine),
        ({"variant": "random"}, RandomEngine),
        ({"variant": "lookup"}, LookupEngine),
        ({"draft_lookup": 0.2}, BlendedEngine),
        ({"variant": "random", "draft_lookup": 0.2}, RandomEngine),
    ],
)
def test_the_configuration_says_who_drafts(package, settings, kind):
    engine = draft_engine(package, AgentConfig(max_streams=2, draft_width=3, **settings))
    assert type(engine) is kind
    assert engine.description.num_slots == 6
    assert engine.description.vocabulary_size == package.vocabulary_size


def test_a_variant_that_is_not_there_is_refused_with_those_that_are(package):
    with pytest.raises(UnknownNameError, match="known: fp32, lookup, q4, random"):
        draft_engine(package, AgentConfig(variant="q5"))


@pytest.mark.parametrize("share", [-0.1, 1.0, 2])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ConfigurationError, match="draft_lookup"):
        AgentConfig(draft_lookup=share)


def facts(pair):
    return facts_of(pair, draft_engine(pair.draft, AgentConfig()))


def test_a_model_without_a_template_leaves_conversations_to_the_agent(package):
    assert facts(pair_of(package.path, package.path)).chat is None


def test_a_template_writes_the_prompt_and_its_special_tokens(package):
    pair = with_template(package)
    ids = facts(pair).chat(MESSAGES)
    assert ids == pair.full.tokenizer.encode("<user>Tiny", add_special_tokens=False).ids


def test_a_template_that_the_manifest_does_not_list_is_not_read(package):
    assert facts(with_template(package, is_listed=False)).chat is None


def test_a_template_that_was_changed_is_refused(package):
    pair = with_template(package)
    (package.path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(PackageError, match="is damaged"):
        facts(pair)


def with_generation(package, entries):
    """The package whose makers suggest something."""
    path = package.path / "generation_config.json"
    path.write_text(json.dumps(entries))
    manifest = json.loads((package.path / "manifest.json").read_text())
    manifest["files"][path.name] = file_digest(path)
    (package.path / "manifest.json").write_text(json.dumps(manifest))
    return pair_of(package.path, package.path).full


def test_what_the_model_suggests_is_the_default_and_what_is_not_applied_is_told_once(package, caplog):
    full = with_generation(package, {"do_sample": True, "temperature": 0.5, "repetition_penalty": 1.2})
    assert defaults_of(full, AgentConfig()) == GenerationDefaults(0.5, unused=("repetition_penalty = 1.2",))
    assert [record.getMessage() for record in caplog.records] == [
        "tiny suggests what is not implemented and not applied: repetition_penalty = 1.2"
    ]


def test_a_model_need_not_be_asked_what_it_suggests(package, caplog):
    full = with_generation(package, {"do_sample": True, "temperature": "hot", "repetition_penalty": 1.2})
    assert defaults_of(full, AgentConfig(generation_defaults="none")) == NO_DEFAULTS
    assert not caplog.records
    with pytest.raises(PackageError, match="temperature must be a number"):
        defaults_of(full, AgentConfig())
    with pytest.raises(ConfigurationError, match="generation_defaults"):
        AgentConfig(generation_defaults="auto")
