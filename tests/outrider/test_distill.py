"""`outrider models distill`: a tiny full model, a tiny draft, a few dozen steps."""

import itertools
import json
import math
import shutil
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from outrider import cli
from speculation.engines.base import Chunk
from speculation.engines.package import Package
from speculation.engines.package_writer import PackageSource, write_package
from speculation.engines.pairs import pair_of
from speculation.errors import CapacityError, ConfigurationError
from tests.speculation.engines.families import config_of, weights_of, write_checkpoint
from tests.speculation.engines.tiny import tiny_tokenizer

torch = pytest.importorskip("torch", reason="the training framework is an extra")

from outrider.training import job as jobs  # noqa: E402
from outrider.training import loop  # noqa: E402
from outrider.training.distillation import GREEDY, SAMPLED  # noqa: E402
from outrider.training.network import Decoder  # noqa: E402
from outrider.training.optimiser import optimisers  # noqa: E402
from outrider.training.plot import points_of  # noqa: E402
from outrider.training.request import Job  # noqa: E402
from outrider.training.samples import type_of_ids  # noqa: E402
from outrider.training.trainable import load_draft, shape_of  # noqa: E402

TEACHER = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 300,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "eos_token_id": 0,
}
SHAPE = (32, 64, 1, 2, 1)
WORDS = ("thread", "lock", "queue", "wait", "join", "event", "start", "the", "a", "of", "until", "returns")
SMALL = {
    "rows": 64,
    "batch": 4,
    "samples": 32,
    "samples_at_once": 8,
    "checkpoint_steps": 10,
    "warmup_steps": 5,
    "held_out_share": 0.2,
}


def text(seed, num_words):
    rng = np.random.default_rng(seed)
    ends = rng.choice([" ", ".", "\n"], num_words, p=[0.8, 0.1, 0.1])
    return "".join(WORDS[n] + end for n, end in zip(rng.integers(0, 12, num_words), ends, strict=True))


def weights_of_teacher(config, steps=120):
    """A model that has learned a little to spell these words, as float16 holds it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    decoder, windows = Decoder(shape_of(architecture_from(config))), np.array(byte_ids(text(9, 2000)), np.int64)
    opts, rng = optimisers(decoder), np.random.default_rng(0)
    for _ in range(steps):
        starts = rng.integers(0, len(windows) - 65, 4)
        loop.cross_entropy(decoder, torch.from_numpy(np.stack([windows[s : s + 65] for s in starts]))).backward()
        for opt in opts:
            opt.step()
            opt.zero_grad()
    return {name: values.half().float().numpy() for name, values in decoder.state_dict().items()}


def byte_ids(words):
    return Tokenizer.from_buffer(tiny_tokenizer()).encode(words).ids


def architecture_from(config):
    from speculation.engines.architecture import Architecture

    return Architecture.from_config(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A full model as a package and as a checkpoint, and texts."""
    path = tmp_path_factory.mktemp("distill")
    weights = weights_of_teacher(TEACHER)
    write_package(path / "full", PackageSource("full", TEACHER, weights, tiny_tokenizer(), (0,), "MIT", "made by a test"))
    write_checkpoint(path / "checkpoint", TEACHER, weights)
    (path / "a.txt").write_text(text(0, 3000))
    (path / "b.jsonl").write_text("".join(json.dumps({"text": text(n, 60)}) + "\n" for n in range(1, 30)))
    return path


def asked(folder, tmp_path, **more):
    steps = more.pop("steps", 40)
    given = {"full": folder / "full", "out": tmp_path / "made", "work": tmp_path / "run", "shape": SHAPE, **SMALL, **more}
    given.setdefault("data", (folder / "a.txt", folder / "b.jsonl"))
    return Job(**{"tokens": steps * given["batch"] * given["rows"], **given})


def quiet(line):
    pass


@pytest.fixture(scope="module")
def distilled(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("once")
    return jobs.distil(asked(folder, path), quiet), path / "made", path / "run"


def test_a_draft_learns_what_the_full_model_says(distilled):
    outcome, _, run = distilled
    assert (outcome.is_done, outcome.steps) == (True, 40)
    for name in (GREEDY, SAMPLED):
        before, after = outcome.acceptance[name]
        assert after > before + 0.1
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    assert losses[-1] < losses[0]
    assert [step for step, *_ in points_of(run / "log.jsonl")] == [0, 10, 20, 30, 40]


def test_the_package_runs_in_our_engine_as_in_pytorch(distilled, folder):
    _, out, run = distilled
    package = Package(out)
    assert package.variants == ("fp32", "q4")
    assert (package.end_token_ids, package.context_length, package.vocabulary_size) == ((0,), 96, 300)
    tokens = np.random.default_rng(0).integers(0, 300, 40).tolist()
    engine = package.engine("fp32", 1, 1)
    found = engine.extend([Chunk(engine.open(), tokens, len(tokens))])
    decoder = Decoder(load_draft(out).decoder.shape)
    state = torch.load(run / "final.pt", weights_only=True)["model"]
    decoder.load_state_dict({name: values.half().float() for name, values in state.items()})
    with torch.no_grad():
        wanted = decoder(torch.tensor([tokens]))[0].numpy()
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert pair_of(out, folder / "full").draft.name == "made"


def test_its_provenance_tells_what_it_was_made_of(distilled, folder):
    manifest = Package(distilled[1]).manifest
    for part in (Package(folder / "full").digest, "from random weights", "40 steps", "30 texts", "as its 4-bit graph computes"):
        assert part in manifest.provenance
    assert "that of the full model, full, may bind" in manifest.licence


@pytest.mark.parametrize("stopped_at", [7, 25])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(folder, tmp_path, monkeypatch, distilled, stopped_at):
    """In the constant phase and in the decay; step 7 is behind no checkpoint but the one that stopping leaves."""
    other = tmp_path / "other"
    other.mkdir()
    step = loop.Run._step

    def stops(self, *arguments):
        step(self, *arguments)
        if self.progress.step == stopped_at:
            import signal

            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop.Run, "_step", stops)
    job = asked(folder, other, is_resumed=True)
    told = []
    half = jobs.distil(job, told.append)
    assert f"no run lies in {job.work}: a new one begins" in told
    assert (half.is_done, half.steps, job.out.exists()) == (False, stopped_at, False)
    monkeypatch.undo()
    assert jobs.distil(job, quiet).is_done
    before, after = (torch.load(run / "final.pt", weights_only=True)["model"] for run in (distilled[2], job.work))
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_samples_that_were_drawn_before_a_stop_do_not_change_the_rest(folder, tmp_path, distilled):
    other = tmp_path / "other"
    other.mkdir()
    job = asked(folder, other, is_resumed=True)
    (job.work / "samples").mkdir(parents=True)
    for number in (0, 1):
        file = f"samples/{number:04}.npz"
        (job.work / file).write_bytes((distilled[2] / file).read_bytes())
    jobs.distil(job, quiet)
    assert Package(job.out).manifest.files["model.safetensors"] == Package(distilled[1]).manifest.files["model.safetensors"]


def test_a_run_goes_on_from_a_draft_that_is_there(folder, tmp_path, distilled):
    job = asked(
        folder, tmp_path / "next", shape=None, draft=distilled[1], steps=20, variants=("fp32",), adam_lr=1e-3, muon_lr=0.002
    )
    (tmp_path / "next").mkdir()
    again = jobs.distil(job, quiet)
    assert again.acceptance[SAMPLED][0] == pytest.approx(distilled[0].acceptance[SAMPLED][1], abs=0.1)
    assert "behind distilled from full" in Package(job.out).manifest.provenance
    assert Package(job.out).variants == ("fp32",)


def test_a_checkpoint_is_followed_as_its_package_is(folder, tmp_path, distilled):
    job = asked(folder, tmp_path / "of", full=folder / "checkpoint")
    (tmp_path / "of").mkdir()
    jobs.distil(job, quiet)
    assert Package(job.out).manifest.files["model.safetensors"] == Package(distilled[1]).manifest.files["model.safetensors"]


def test_any_causal_model_is_followed_by_transformers(folder, tmp_path):
    pytest.importorskip("transformers", reason="the library is an extra")
    config = config_of("qwen3", max_position_embeddings=96)
    write_checkpoint(tmp_path / "qwen", config, weights_of(config))
    outcome = jobs.distil(asked(folder, tmp_path, full=tmp_path / "qwen", steps=40), quiet)
    assert outcome.acceptance[SAMPLED][1] > outcome.acceptance[SAMPLED][0]
    assert Package(tmp_path / "made").vocabulary_size == config["vocab_size"]
    job = asked(folder, tmp_path / "x", full=folder / "full", draft=tmp_path / "qwen", shape=None)
    with pytest.raises(Exception, match=r"normed; .*; trained are decoders of model_type llama with tied"):
        jobs.distil(job, quiet)


def test_vocabularies_beyond_16_bits_are_kept_whole(folder, tmp_path):
    assert (type_of_ids(32768), type_of_ids(32769)) == (torch.int16, torch.int32)
    config = {**TEACHER, "vocab_size": 40000}
    vocabulary = {f"w{n}": n for n in range(40000)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.WhitespaceSplit(), decoders.Fuse()
    weights = weights_of_teacher(config, steps=0)
    write_checkpoint(tmp_path / "wide", config, weights, tokenizer=tokenizer.to_str().encode())
    words = np.random.default_rng(0).integers(33000, 40000, 3000)
    (tmp_path / "c.txt").write_text("\n".join(f"w{n}" for n in words))
    job = asked(folder, tmp_path, full=tmp_path / "wide", data=(tmp_path / "c.txt",), steps=2, samples=8, batch=2)
    jobs.distil(job, quiet)
    with np.load(job.work / "samples" / "0000.npz") as part:
        assert part["token_ids"].min() >= 0
        assert part["token_ids"].max() > 33000
        assert part["target_ids"].min() >= 0


def test_without_transformers_another_architecture_is_told_what_is_missing(folder, tmp_path, monkeypatch):
    config = config_of("qwen3", max_position_embeddings=96)
    write_checkpoint(tmp_path / "qwen", config, weights_of(config))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigurationError, match=r"queries and keys are normed; .*pip install 'outrider\[transformers\]'"):
        jobs.distil(asked(folder, tmp_path, full=tmp_path / "qwen"), quiet)


def test_a_run_may_be_ended_by_time(folder, tmp_path, monkeypatch):
    """By a clock that goes on a second whenever it is looked at: no machine is too slow for it."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=partial(next, itertools.count())))
    outcome = jobs.distil(asked(folder, tmp_path, tokens=math.inf, until_minutes=0.3), quiet)
    assert outcome.is_done
    assert outcome.steps > 1
    assert json.loads((tmp_path / "run" / "run.json").read_text())["tokens"] is None


def test_a_memory_that_is_full_is_said_with_what_takes_less(folder, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop.Run, "_step", full)
    with pytest.raises(CapacityError, match="smaller --batch"):
        jobs.distil(asked(folder, tmp_path), quiet)


def test_samples_may_be_drawn_one_at_a_time(folder, tmp_path):
    assert jobs.distil(asked(folder, tmp_path, steps=2, samples=2, samples_at_once=1), quiet).is_done


def test_a_picture_is_drawn(folder, tmp_path):
    pytest.importorskip("matplotlib", reason="plots are an extra")
    jobs.distil(asked(folder, tmp_path, steps=4, checkpoint_steps=2, plot=tmp_path / "a.svg"), quiet)
    assert "acceptance on held-out text" in (tmp_path / "a.svg").read_text() or (tmp_path / "a.svg").stat().st_size > 1000


FLAGS = {"--shape": "32,64,1,2,1", "--rows": 64, "--batch": 4, "--samples": 8, "--samples-at-once": 8, "--steps": 4}


def arguments(folder, tmp_path, **changed):
    given = {"--full": folder / "full", "--out": tmp_path / "made", **FLAGS, **changed}
    flags = [str(word) for pair in given.items() if pair[1] is not None for word in pair]
    return ["models", "distill", *flags, "--data", str(folder / "a.txt"), str(folder / "b.jsonl")]


def test_the_command_makes_a_package_and_says_how_it_went(folder, tmp_path, outrider):
    code, shown, said = outrider(*arguments(folder, tmp_path))
    assert code == 0
    assert shown.startswith(f"{tmp_path / 'made'}: 4 steps, 0.00 M tokens; agreement, greedy ")
    assert "30 texts: " in said
    assert Package(tmp_path / "made").name == "made"
    code, shown, _ = outrider(*arguments(folder, tmp_path, **{"--out": tmp_path / "two"}), "--json")
    told = json.loads(shown)
    assert (told["package"], told["steps"], len(told["acceptance"][SAMPLED])) == (str(tmp_path / "two"), 4, 2)


def test_a_signal_leaves_a_checkpoint_and_the_exit_code_of_an_interrupt(folder, tmp_path, monkeypatch):
    step = loop.Run._step

    def stops(self, *given):
        step(self, *given)
        import signal

        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop.Run, "_step", stops)
    words = arguments(folder, tmp_path)
    assert cli.run(lambda: cli.app(words, standalone_mode=False)) == 130
    monkeypatch.undo()
    assert cli.run(lambda: cli.app(words, standalone_mode=False)) == 2
    assert cli.run(lambda: cli.app([*words, "--resume"], standalone_mode=False)) == 0


@pytest.mark.parametrize(
    ("changed", "more", "message"),
    [
        ({"--shape": None}, (), "either --draft or --shape"),
        ({"--shape": "32,64"}, (), "5 whole numbers"),
        ({"--shape": "32,64,1,3,1"}, (), "multiple of the heads"),
        ({"--shape": "40,64,1,2,1"}, (), "multiple of 16"),
        ({"--rows": 128}, (), "below the models' context, 96"),
        ({"--rows": 50}, (), "--rows must be at least 64"),
        ({"--batch": 0}, (), "--batch must be at least 1"),
        ({"--samples-at-once": 0}, (), "--samples-at-once must be at least 1"),
        ({"--checkpoint-steps": 0}, (), "--checkpoint-steps must be at least 1"),
        ({"--threads": 0}, (), "--threads must be at least 1"),
        ({"--seed": -1}, (), "--seed must be from 0 to"),
        ({"--precision": "fp16"}, (), "unknown precision 'fp16'; known: bf16, fp32"),
        ({"--muon-lr": "nan"}, (), "--muon-lr must be a number from 0 on, not nan"),
        ({"--steps": 0}, (), "more than 0"),
        ({"--tokens": 10}, (), "not in both"),
        ({"--device": "toaster"}, (), "--device toaster"),
        ({"--variant": "q9"}, (), "unknown variant 'q9'"),
        ({"--held-out": 1}, (), "between 0 and 1"),
        ({"--plot": "nowhere/a.png"}, (), "in a folder that is there"),
        ({}, ("nowhere.txt",), "nowhere.txt is not a file"),
        ({"--out": "."}, (), "exists already"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(folder, tmp_path, outrider, changed, more, message):
    code, shown, said = outrider(*arguments(folder, tmp_path, **changed), *more)
    assert (code, shown) == (2, "")
    assert message in said.splitlines()[-1]
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short.txt", b"too short", "too little text: "),
        ("latin.txt", b"\xe9" * 100, "is not UTF-8"),
        ("a.jsonl", b'{"text": "fine"}\n{"words": 1}\n', "line 2 must be a JSON object whose entry text is a string"),
        ("b.jsonl", b'{"text": ', "line 1 is not JSON"),
    ],
)
def test_texts_that_cannot_be_used_are_named(folder, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(jobs.InvalidRequestError, match=message):
        jobs.distil(asked(folder, tmp_path, data=(tmp_path / name,)), quiet)
    assert not (tmp_path / "run").exists()


def test_models_that_do_not_fit_are_told_apart(folder, tmp_path):
    other = Tokenizer.from_buffer(tiny_tokenizer())
    other.add_special_tokens(["<|other|>"])
    write_checkpoint(tmp_path / "other", TEACHER, weights_of_teacher(TEACHER, 0), tokenizer=other.to_str().encode())
    with pytest.raises(jobs.InvalidRequestError, match=r"differ: the token '<\|other\|>'"):
        jobs.distil(asked(folder, tmp_path, shape=None, draft=tmp_path / "other"), quiet)
    untied = {**TEACHER, "tie_word_embeddings": False}
    weights = weights_of_teacher(TEACHER, 0)
    write_checkpoint(tmp_path / "untied", untied, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
    with pytest.raises(jobs.InvalidRequestError, match="its embeddings are not tied; trained are decoders of"):
        jobs.distil(asked(folder, tmp_path, shape=None, draft=tmp_path / "untied"), quiet)
    write_checkpoint(tmp_path / "unlike", TEACHER, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"] + 1})
    with pytest.raises(jobs.PackageError, match="tie_word_embeddings is true, but lm_head"):
        jobs.distil(asked(folder, tmp_path, shape=None, draft=tmp_path / "unlike"), quiet)


def test_a_run_goes_on_with_what_it_began_with(folder, tmp_path, distilled):
    shutil.copytree(distilled[2], tmp_path / "run")
    job = asked(folder, tmp_path, out=tmp_path / "again", is_resumed=True, seed=1)
    with pytest.raises(jobs.InvalidRequestError, match="a run with another seed"):
        jobs.distil(job, quiet)
    job = asked(folder, tmp_path, out=tmp_path / "again", is_resumed=True, data=(folder / "a.txt",))
    with pytest.raises(jobs.InvalidRequestError, match="a run with another data"):
        jobs.distil(job, quiet)
    assert jobs.distil(asked(folder, tmp_path, out=tmp_path / "again", is_resumed=True), quiet).steps == 40


def test_without_the_extra_the_command_says_what_installs_it(folder, tmp_path, outrider, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, said = outrider(*arguments(folder, tmp_path))
    assert (code, "pip install 'outrider[train]'" in said) == (2, True)
