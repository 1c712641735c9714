"""Models as others publish them, behind real gRPC and HTTP: collaborative text is the cloud's alone, token for token."""

import json
import shutil

import pytest

from cloud_verifier.patience import NEVER
from outrider import cli
from outrider.local import Models
from speculation.engines.pairs import load_model, pair_of
from tests.speculation.engines.stock_graphs import HALF, export_folder, genai_folder, split_graphs
from tests.speculation.engines.tiny import tiny_package
from tests.support.both_ways import PROMPT, both_ways_of, check_same_text

LIMIT_S = 60
GREEDY, SAMPLED = {}, {"temperature": 0.8, "top_p": 0.95}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One full model in four layouts, and drafts: that model too, another one, and others with more and fewer rows."""
    path = tmp_path_factory.mktemp("folders")
    tiny_package(path / "package", seed=2, variants=("fp32", "q4"))
    export_folder(path / "plain", seed=2)
    export_folder(path / "gqa", seed=2, graphs={"model_fp16.onnx": {"attention": "gqa", "cache": HALF}})
    export_folder(path / "shared-scale", seed=2, graphs={"model_quantized.onnx": {"shares_a_scale": True}})
    export_folder(path / "older", seed=2, graphs={"decoder_model_merged.onnx": {}})
    export_folder(path / "split", seed=2, graphs=split_graphs())
    export_folder(path / "one-token", seed=2, graphs=split_graphs(num_tokens=1))
    genai_folder(path / "genai", seed=2)
    tiny_package(path / "other-package", seed=1, variants=("fp32",), num_hidden_layers=1)
    export_folder(path / "other", seed=1, num_hidden_layers=1)
    export_folder(path / "more-rows", seed=1, num_hidden_layers=1, vocab_size=288)
    export_folder(path / "fewer-rows", seed=1, num_hidden_layers=1, vocab_size=260)
    return path


@pytest.mark.parametrize("parameters", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("draft", "full"),
    [
        ("other", "plain"),
        ("other", "older"),
        ("older", "plain"),
        ("other", "one-token"),
        ("one-token", "split"),
        ("other", "gqa"),
        ("other", "genai"),
        ("plain", "plain"),
        ("genai", "plain"),
        ("other-package", "plain"),
        ("package", "gqa"),
        ("other", "package"),
        ("plain", "package"),
        ("more-rows", "plain"),
        ("fewer-rows", "plain"),
        ("fewer-rows", "package"),
        ("other", "shared-scale"),
    ],
)
async def test_collaborative_text_is_that_of_the_cloud_alone(folders, draft, full, parameters):
    together, alone = await both_ways_of(Models(folders / draft, folders / full), LIMIT_S, **parameters)
    check_same_text(together, alone)
    for collaborative, cloud in zip(together, alone, strict=True):
        assert collaborative.text == pair_of(folders / draft, folders / full).full.tokenizer.decode(cloud.token_ids)


async def test_a_draft_that_is_the_full_model_in_another_layout_is_never_corrected(folders):
    together, _ = await both_ways_of(Models(folders / "genai", folders / "plain"), LIMIT_S, patience=NEVER)
    for done in together:
        assert done.usage["accepted"] > 0
        assert done.usage["corrections"] == 0


async def test_the_full_model_may_choose_tokens_that_the_draft_has_not(folders):
    """Random weights do; the draft has 260 rows and reads on all the same."""
    together, _ = await both_ways_of(Models(folders / "fewer-rows", folders / "plain"), LIMIT_S, temperature=3.0)
    assert max(token for done in together for token in done.token_ids) >= 260


def test_the_command_takes_two_folders(folders, capsys):
    names = ["--draft", str(folders / "package"), "--full", str(folders / "plain"), "--variant", "q4", "--full-variant", "fp32"]
    texts = []
    for mode in ("collaborate", "cloud"):
        arguments = ["generate", PROMPT, *names, "--mode", mode, "--max-tokens", "20", "--seed", "1", "--json"]
        assert cli.run(lambda arguments=arguments: cli.app(arguments, standalone_mode=False)) == 0
        texts.append(json.loads(capsys.readouterr().out.splitlines()[-1])["token_ids"])
    assert texts[0] == texts[1]
    assert len(texts[0]) <= 20


def test_the_command_says_which_graphs_there_are(folders, capsys):
    names = ["--draft", str(folders / "other"), "--full", str(folders / "plain"), "--variant", "q9"]
    assert cli.run(lambda: cli.app(["generate", PROMPT, *names], standalone_mode=False)) == 2
    assert "unknown variant of other 'q9'; known: fp32, lookup, random" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "messages"),
    [
        (["--chat"], [{"role": "user", "content": "Tiny"}]),
        (["--system", "Huge"], [{"role": "system", "content": "Huge"}, {"role": "user", "content": "Tiny"}]),
    ],
)
def test_a_conversation_is_written_as_the_full_models_template_says(folders, tmp_path, capsys, flags, messages):
    full = tmp_path / "full"
    shutil.copytree(folders / "plain", full)
    template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[answer]{% endif %}"
    )
    (full / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    names = ["--draft", str(folders / "other"), "--full", str(full), "--max-tokens", "4", "--json", *flags]
    assert cli.run(lambda: cli.app(["generate", "Tiny", *names], standalone_mode=False)) == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])
    model = load_model(full)
    text = "".join(f"[{message['role']}] {message['content']}\n" for message in messages) + "[answer]"
    assert done["prompt_token_ids"] == model.tokenizer.encode(text, add_special_tokens=False).ids
