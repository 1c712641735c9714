"""One distillation from folders to a package: what is asked for, checked before anything is computed, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata

from outrider.training.distillation import GREEDY, HELD_OUT_PROMPTS, HELD_OUT_TOKENS, SAMPLED, Distillation, Recipe
from outrider.training.loop import FINAL, LOG, Measures, Progress, Run, Schedule, Watch, load, mean_loss
from outrider.training.network import Decoder, Shape
from outrider.training.place import Place
from outrider.training.plot import picture, points_of
from outrider.training.request import RUN, Job, check, remember
from outrider.training.samples import PROMPT_ROWS, FullModel, Tell, said
from outrider.training.texts import Corpus, TextWindows, corpus_of, held_out_windows
from outrider.training.trainable import Trainable, architecture_of, cut_to, load_draft, load_full, shape_of
from speculation.engines.architecture import DEFAULT_CONTEXT, Architecture
from speculation.engines.files import confined
from speculation.engines.manifest import TOKENIZER
from speculation.engines.model import Model
from speculation.engines.package import Package
from speculation.engines.package_writer import PackageSource, write_package
from speculation.engines.pairs import load_model
from speculation.engines.quantise import BLOCK
from speculation.engines.staging import staged_folder
from speculation.engines.tokenizer_files import difference, meaning_of, num_ids_in
from speculation.engines.variants import PLAIN
from speculation.errors import CapacityError, InvalidRequestError, PackageError

GRAPH_WEIGHTS = (2**31 - 1) // 4
"""More float32 weights than this no graph of one file can hold."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was reached. ``is_done`` is False where a signal stopped the run; there is no package then."""

    is_done: bool
    steps: int
    tokens: int
    seconds: float
    acceptance: Mapping[str, tuple[float, float]]
    """Before and after, on held-out text: greedy, and at 0.8."""


def distil(job: Job, tell: Tell = said, watch: Watch = lambda share: None) -> Outcome:
    """Distil, and write the package; ``out`` appears whole or not at all, and ``work`` keeps checkpoints, samples and the log.

    Raises ``InvalidRequestError`` for what cannot be as it was asked for, ``ConfigurationError`` for a device that is not
    there, ``PackageError`` for models that cannot be used, ``EngineError`` where the loss is no number.
    """
    check(job)
    place = Place.at(job.device, job.precision, job.is_compiled, job.threads, job.seed)
    full, full_model = load_full(job.full, place, job.threads)
    draft = load_draft(job.draft) if job.draft is not None else None
    shape = _shape(job, full_model, draft)
    corpus = _corpus(job, full_model, tell)
    quantised = _is_quantised(job, shape)
    began_from = draft.model.digest if draft else None
    settings = {"full": full_model.digest, "draft": began_from, "data": corpus.digest, "is_quantised": quantised}
    if job.is_resumed and not (job.work / RUN).exists():
        tell(f"no run lies in {job.work}: a new one begins")
    remember(job, settings)
    decoder = _decoder(shape, draft)
    recipe = _recipe(job, quantised)
    rows = full_model.vocabulary_size
    followed: FullModel = full if rows <= shape.vocab_size else cut_to(full, shape.vocab_size)
    distillation = Distillation(recipe, followed, decoder, place, tell)
    progress, is_done = _trained(job, distillation, decoder, corpus, place, tell, watch, _story(draft))
    points = points_of(job.work / LOG)
    reached = {name: (points[0][number], points[-1][number]) for number, name in ((1, GREEDY), (2, SAMPLED))} if points else {}
    if job.plot is not None and points:
        picture(points, f"{job.name or job.out.name}, distilled from {full_model.name}", job.plot)
    if is_done:
        _write(job, decoder, full_model, _provenance(job, full_model, corpus, progress, place, quantised))
    return Outcome(is_done, progress.step, progress.tokens, progress.seconds, reached)


def _shape(job: Job, full: Model, draft: Trainable | None) -> Shape:
    if draft is not None:
        mine, other = meaning_of(draft.model.path), meaning_of(full.path)
        if example := difference(mine, other):
            differ = f"the tokenizers of {job.draft} and {job.full} differ: {example} (draft, then full)"
            raise InvalidRequestError(f"{differ}; a draft speaks of the full model's tokens", "draft")
        shape = draft.decoder.shape
        if shape.vocab_size < (num_tokens := num_ids_in(full.path)):
            has = f"the tokenizer has {num_tokens} tokens, and the draft rows for {shape.vocab_size}"
            raise InvalidRequestError(f"{has}; a package has one for each: begin a new draft (--shape)", "draft")
    else:
        shape = _new_shape(job, full)
    context = min(shape.max_position_embeddings, full.context_length)
    if job.rows + 1 > context:
        raise InvalidRequestError(f"--rows {job.rows} must be below the models' context, {context}", "rows")
    parameters = _num_parameters(shape)
    if PLAIN in job.variants and parameters > GRAPH_WEIGHTS:
        raise InvalidRequestError(f"a draft of {parameters:,} parameters does not fit the one file of its fp32 graph", "shape")
    return replace(shape, max_position_embeddings=context)


def _new_shape(job: Job, full: Model) -> Shape:
    context = min(full.context_length, DEFAULT_CONTEXT)
    hidden, inner, layers, heads, kv_heads = job.shape or (0, 0, 0, 0, 0)
    # A package has a row for each token of its file, also for those that the full model leaves out.
    rows = max(full.vocabulary_size, num_ids_in(full.path))
    shape = Shape(hidden, inner, layers, heads, kv_heads, rows, context)
    if heads < 1 or hidden % heads:
        raise InvalidRequestError(f"--shape {hidden},...: the width must be a multiple of the heads, {heads}", "shape")
    try:
        theta = architecture_of(full).rope_theta
    except PackageError:
        theta = shape.rope_theta
    try:
        return shape_of(Architecture.from_config({**shape.to_config(0), "rope_theta": theta}))
    except PackageError as error:
        raise InvalidRequestError(f"--shape {','.join(map(str, job.shape or ()))} cannot be: {error}", "shape") from error


def _num_parameters(shape: Shape) -> int:
    width, inner = shape.hidden_size, shape.intermediate_size
    attention = 2 * width * width + 2 * width * shape.head_dim * shape.num_key_value_heads
    return shape.vocab_size * width + shape.num_hidden_layers * (attention + 3 * width * inner)


def _corpus(job: Job, full: Model, tell: Tell) -> Corpus:
    if not full.end_token_ids:
        raise InvalidRequestError(f"{job.full} names no end token, and texts are told apart by it", "full")
    tokenizer = full.tokenizer
    boundary = [full.end_token_ids[0], *tokenizer.encode("").ids]
    corpus = corpus_of(
        job.data,
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        boundary,
        job.held_out_share,
        job.rows + 2,
    )
    tell(f"{corpus.num_documents} texts: {len(corpus.train)} tokens to learn from, {len(corpus.held_out)} held out")
    return corpus


def _is_quantised(job: Job, shape: Shape) -> bool:
    """Whether the draft is taught as its 4-bit graph computes; by default where it will have one, and can be."""
    fits = shape.hidden_size % BLOCK == 0 and shape.intermediate_size % BLOCK == 0
    if job.is_quantised and not fits:
        raise InvalidRequestError(f"--quantised needs sizes that are multiples of {BLOCK}", "quantised")
    return fits and "q4" in job.variants if job.is_quantised is None else job.is_quantised


def _decoder(shape: Shape, draft: Trainable | None) -> Decoder:
    decoder = Decoder(shape)
    if draft is not None:
        decoder.load_state_dict(draft.decoder.state_dict())
    return decoder


def _recipe(job: Job, is_quantised: bool) -> Recipe:
    return Recipe(
        rows=job.rows,
        batch=job.batch,
        samples=job.samples,
        samples_at_once=min(job.samples_at_once, job.samples),
        samples_folder=job.work / "samples",
        sample_share=job.sample_share,
        is_quantised=is_quantised,
        seed=job.seed,
    )


def _trained(
    job: Job,
    distillation: Distillation,
    decoder: Decoder,
    corpus: Corpus,
    place: Place,
    tell: Tell,
    watch: Watch,
    began_from: str,
) -> tuple[Progress, bool]:
    """Where the run stands, and whether it is over. One that was over before is not done again."""
    decoder.to(place.device)
    if (job.work / FINAL).is_file():
        return load(job.work / FINAL, decoder), True
    num_steps = None if math.isinf(job.tokens) else max(1, round(job.tokens / (job.batch * job.rows)))
    constant_steps = math.inf if num_steps is None else int(num_steps / (1 + job.decay_share))
    schedule = Schedule(
        tokens=constant_steps * job.batch * job.rows,
        num_steps=num_steps,
        until_minutes=job.until_minutes / (1 + job.decay_share),
        decay_share=job.decay_share,
        warmup_steps=job.warmup_steps,
        checkpoint_steps=job.checkpoint_steps,
        muon_lr=job.muon_lr,
        adam_lr=job.adam_lr,
        resumes_decay=True,
    )
    try:
        measures = _measures(job, distillation, decoder, corpus)
        run = Run(decoder, job.work, schedule, place, measures, partial(Progress, began_from=began_from), tell, watch)
        return run.progress, distillation.train(run, TextWindows(corpus, job.rows, job.seed))
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        fewer = "take a smaller --batch, --samples-at-once, --samples or --rows"
        raise CapacityError(f"the memory of {place.device} is full; {fewer}: {str(error).splitlines()[0]}") from error


def _measures(job: Job, distillation: Distillation, decoder: Decoder, corpus: Corpus) -> Measures:
    prompts = held_out_windows(corpus, PROMPT_ROWS, HELD_OUT_PROMPTS)
    agreement = distillation.measures(prompts, min(PROMPT_ROWS + HELD_OUT_TOKENS, job.rows + 1))
    windows = held_out_windows(corpus, job.rows + 1, 16)

    def measured(count: int) -> dict[str, float]:
        return {"validation loss": mean_loss(decoder, windows.to(decoder.cos.device)), **agreement(count)}

    return measured


def _story(draft: Trainable | None) -> str:
    """What is known of how the draft was made that is gone on from."""
    if draft is None:
        return ""
    if isinstance(draft.model, Package):
        return draft.model.manifest.provenance
    return f"{draft.model.name}, digest {draft.model.digest}"


def _provenance(job: Job, full: Model, corpus: Corpus, progress: Progress, place: Place, is_quantised: bool) -> str:
    source = f"distilled from {full.name} (digest {full.digest})"
    took = f"on {progress.tokens / 1e6:.2f} M tokens in {progress.step} steps and {progress.seconds / 60:.0f} minutes"
    parts = [
        f"{source} {took} by outrider models distill {metadata.version('outrider')}, on {place.device.type}, seed {job.seed}",
        f"behind {progress.began_from}" if progress.began_from else "from random weights",
        f"Muon {job.muon_lr:g}, AdamW {job.adam_lr:g}, constant, then linear decay, for KL and the chance of another choice",
        "as its 4-bit graph computes" if is_quantised else "in full precision",
        f"{job.sample_share:g} of the steps on {job.samples} continuations by the full model",
        f"{corpus.num_documents} texts, sha256 {corpus.digest}, {job.held_out_share:g} of them held out",
    ]
    return "; ".join(parts)


def _write(job: Job, decoder: Decoder, full: Model, provenance: str) -> None:
    ends = full.end_token_ids
    config = {**decoder.shape.to_config(ends[0]), "eos_token_id": list(ends) if len(ends) > 1 else ends[0]}
    source = PackageSource(
        name=job.name or job.out.resolve().name,
        config=config,
        weights={name: values.float().cpu().numpy() for name, values in decoder.state_dict().items()},
        tokenizer=confined(full.path, TOKENIZER, "model").read_bytes(),
        end_token_ids=ends,
        licence=job.licence or f"not stated; that of the full model, {full.name}, may bind what is distilled from it",
        provenance=provenance,
        variants=job.variants,
    )
    with staged_folder(job.out) as folder:
        write_package(folder, source)
        _ = load_model(folder).tokenizer
