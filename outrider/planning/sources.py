"""Where a plan's tokens come from: the synthetic pair at an acceptance, or a real pair of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloud_verifier.config import OWN_SIZE, VerifierConfig
from cloud_verifier.engine import build_engine
from device_agent.build import draft_engine, facts_of
from device_agent.config import AgentConfig
from device_agent.pair import PairFacts
from device_agent.request import Mode, StreamRequest
from outrider.planning import synthetic
from outrider.planning.synthetic import Acceptance, DraftEngine, FullEngine
from speculation.engines.base import Engine
from speculation.engines.fitted import fitted
from speculation.engines.pairs import models_of
from speculation.errors import InvalidRequestError
from speculation.protocol.messages import PairIdentity
from speculation.shaping.profiles import UNSHAPED

DRAFT_SLOTS = 16


@dataclass(frozen=True, slots=True)
class Synthetic:
    """A pair without weights that agrees as often as ``acceptance`` says. One seed is one draw of all that its prompts meet."""

    acceptance: Acceptance
    context_length: int
    prompt_length: int
    seed: int = 0
    identity: PairIdentity = synthetic.IDENTITY

    def facts(self) -> PairFacts:
        return synthetic.facts(self.context_length)

    def draft_engine(self) -> Engine:
        return DraftEngine(self.acceptance, self.seed, self.context_length, 0.0, DRAFT_SLOTS)

    def full_engine(self, num_devices: int) -> Engine:
        return FullEngine(self.acceptance, self.seed, self.context_length, 0.0, num_devices + 1)

    def request(self, number: int, num_tokens: int, mode: Mode) -> StreamRequest:
        """The prompt is the number in digits of the vocabulary, behind as many of the first token as fill the length."""
        digits = [0] * self.prompt_length
        for place in range(self.prompt_length):
            number, digits[-1 - place] = divmod(number, synthetic.VOCABULARY)
        return StreamRequest(synthetic.decode(digits), max_tokens=num_tokens, mode=mode)


class RealPair:
    """A pair of models on this computer, whose own tokens are written. Loads them: takes seconds.

    Raises ``PackageError``, ``EngineError`` and ``InvalidRequestError`` as the services do, and the last where there is no
    prompt to ask it with.
    """

    def __init__(self, folder: Path | None, prompts: Sequence[str], temperature: float, seed: int = 1) -> None:
        self._pair = models_of(folder, None, None)
        self._prompts = list(prompts) or [str(prompt["text"]) for prompt in getattr(self._pair, "prompts", ())]
        if not self._prompts:
            raise InvalidRequestError(f"{folder} has no prompts of its own: name a file of them, one a line", "prompts")
        self._temperature, self._seed = temperature, seed
        self._full = build_engine(VerifierConfig(pair=folder, cloud=UNSHAPED, emulate=OWN_SIZE))
        self._config = AgentConfig(pair=folder)
        self._draft = draft_engine(self._pair.draft, self._config)
        self.identity = self._full.identity

    @property
    def num_prompts(self) -> int:
        return len(self._prompts)

    def facts(self) -> PairFacts:
        return facts_of(self._pair, self._draft)

    def draft_engine(self) -> Engine:
        """The one draft: a run has one phone, and leaves the engine as it was found."""
        return fitted(self._draft, self._pair.full.vocabulary_size)

    def full_engine(self, num_devices: int) -> Engine:
        return self._full.engine

    def request(self, number: int, num_tokens: int, mode: Mode) -> StreamRequest:
        prompt = self._prompts[number % len(self._prompts)]
        return StreamRequest(prompt, max_tokens=num_tokens, temperature=self._temperature, seed=self._seed + number, mode=mode)
