"""A small server that speaks vLLM's and SGLang's routes for log-probabilities over an engine of ours, with their quirks.

Written after the sources of both servers, which it does not run: request fields, answers, refusals and their wording.
"""

import json
import threading
from contextlib import contextmanager

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response

from speculation.engines.base import Chunk
from speculation.listening import bind

NAME, KEY = "org/tiny", "sesame"


class ServedModel:
    """What the server says is in its attributes, so that a test can change it.

    ``meddle`` is called with the path and the answer (a JSON value) and gives what is sent instead: a value, or a ``Response``.
    ``requests`` are the bodies that came, ``cached`` those positions that vLLM leaves out when its prefix cache is read.
    """

    def __init__(self, engine, max_model_len, max_logprobs=20):
        self.engine = engine
        self.max_model_len = max_model_len
        self.max_logprobs = engine.description.vocabulary_size if max_logprobs == -1 else max_logprobs
        self.names = [NAME]
        self.key = None
        self.cached = 0
        self.meddle = None
        self.requests = []
        self._draws = np.random.default_rng(0)
        self._lock = threading.Lock()

    def application(self):
        application = FastAPI()
        application.get("/v1/models")(self._models)
        application.post("/v1/completions")(self._completions)
        application.post("/generate")(self._generate)
        return application

    # Shared.

    async def _models(self, request: Request):
        card = {"object": "model", "created": 1, "owned_by": "stand-in", "max_model_len": self.max_model_len}
        return self._answer(request, {"object": "list", "data": [card | {"id": name, "root": name} for name in self.names]})

    def _answer(self, request, answer, status=200):
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            answer, status = {"error": "Unauthorized"}, 401
        elif self.meddle is not None:
            answer = self.meddle(request.url.path, answer)
        if isinstance(answer, Response):
            return answer
        return Response(json.dumps(answer), status, media_type="application/json")

    def _logprobs(self, prompt, count):
        """float32 [count, vocabulary]: the rows behind the last positions."""
        with self._lock:
            cache = self.engine.open()
            logits = self.engine.extend([Chunk(cache, prompt, count)]).astype(np.float64)
            self.engine.close(cache)
        logits -= logits.max(axis=1, keepdims=True)
        return (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)

    def _top(self, row, count):
        return np.lexsort((np.arange(len(row)), -row))[:count].tolist()

    def _draw(self, row, temperature):
        if temperature == 0:
            return int(row.argmax())
        chances = np.exp(row.astype(np.float64) / temperature)
        with self._lock:
            return int(self._draws.choice(len(row), p=chances / chances.sum()))

    # vLLM.

    async def _completions(self, request: Request):
        body = await request.json()
        self.requests.append(body)
        refusal = self._vllm_refusal(body)
        if refusal is not None:
            return self._answer(request, *refusal)
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        answer = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": body["model"]}
        return self._answer(request, answer | {"choices": [self._choice(body, *entry) for entry in enumerate(prompts)]})

    def _vllm_refusal(self, body):
        if body.get("model") not in self.names:
            said = f"The model `{body.get('model')}` does not exist."
            return {"error": {"message": said, "type": "NotFoundError", "param": "model", "code": 404}}, 404
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        said, parameter = None, None
        for name, kind in (("logprobs", "sample"), ("prompt_logprobs", "prompt")):
            if (body.get(name) or 0) > self.max_logprobs:
                said = f"Requested {kind} logprobs of {body[name]}, which is greater than max allowed: {self.max_logprobs}"
                parameter = name
        for prompt in prompts:
            if max(prompt) >= self.engine.description.vocabulary_size:
                said = f"Token id {max(prompt)} is out of vocabulary"
            if len(prompt) + body["max_tokens"] > self.max_model_len:
                said = (
                    f"This model's maximum context length is {self.max_model_len} tokens. However, you requested"
                    f" {body['max_tokens']} output tokens and your prompt contains {len(prompt)} input tokens"
                )
        if said is None:
            return None
        return {"error": {"message": said, "type": "BadRequestError", "param": parameter, "code": 400}}, 400

    def _choice(self, body, index, prompt):
        rows = self._logprobs(prompt, 1 if body.get("prompt_logprobs") is None else len(prompt))
        drawn, count = self._draw(rows[-1], body.get("temperature", 1.0)), body["logprobs"]

        def shown(token_id):
            return f"token_id:{token_id}" if body.get("return_tokens_as_token_ids") else chr(token_id + 32)

        # The drawn token goes first; it stands once where it is among the likeliest, and makes one more where it is not.
        top = {shown(token_id): float(rows[-1][token_id]) for token_id in [drawn, *self._top(rows[-1], count)]}
        logprobs = {"text_offset": [0], "token_logprobs": [float(rows[-1][drawn])], "tokens": [shown(drawn)]}
        choice = {"index": index, "text": chr(drawn + 32), "logprobs": logprobs | {"top_logprobs": [top]}}
        choice |= {"finish_reason": "length", "stop_reason": None, "prompt_logprobs": None}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [None] * max(1, self.cached)
            for row, token_id in zip(rows[max(1, self.cached) - 1 : -1], prompt[max(1, self.cached) :], strict=True):
                choice["prompt_logprobs"].append(self._prompt_entry(row, token_id, body["prompt_logprobs"]))
        return choice

    def _prompt_entry(self, row, token_id, count):
        ranks = {token_id: int((row >= row[token_id]).sum())}
        ranks |= {other: rank for rank, other in enumerate(self._top(row, count), 1)}
        return {
            str(other): {"logprob": float(row[other]), "rank": rank, "decoded_token": chr(other + 32)}
            for other, rank in ranks.items()
        }

    # SGLang.

    async def _generate(self, request: Request):
        body = await request.json()
        self.requests.append(body)
        prompt, sampling, count = body["input_ids"], body["sampling_params"], body["top_logprobs_num"]
        if len(prompt) >= self.max_model_len:
            said = f"The input ({len(prompt)} tokens) is longer than the model's context length ({self.max_model_len} tokens)."
            return self._answer(request, {"error": {"message": said}}, 400)
        start = len(prompt) - 1 if body["logprob_start_len"] < 0 else body["logprob_start_len"]
        rows = self._logprobs(prompt, len(prompt) - start)
        drawn = self._draw(rows[-1], sampling["temperature"])
        # Divided before logarithms are taken, unlike the rows of the prompt.
        scaled = rows[-1].astype(np.float64) / sampling["temperature"]
        last = (scaled - np.log(np.exp(scaled).sum())).astype(np.float32)
        meta = {"id": "1", "prompt_tokens": len(prompt), "completion_tokens": 1, "cached_tokens": 0}
        meta["output_token_logprobs"] = [[float(last[drawn]), drawn, None]]
        meta["output_top_logprobs"] = [self._tuples(rows[-1] if sampling["temperature"] == 1 else last, count)]
        if body["logprob_start_len"] >= 0:
            values = [float(row[token_id]) for row, token_id in zip(rows[:-1], prompt[start + 1 :], strict=True)]
            meta["input_token_logprobs"] = [[v, t, None] for v, t in zip([None, *values], prompt[start:], strict=True)]
            meta["input_top_logprobs"] = [None, *(self._tuples(row, count) for row in rows[:-1])]
        else:
            meta |= {"input_token_logprobs": [], "input_top_logprobs": []}
        return self._answer(request, {"text": chr(drawn + 32), "output_ids": [drawn], "meta_info": meta})

    def _tuples(self, row, count):
        return [[float(row[token_id]), token_id, None] for token_id in self._top(row, count)]


@contextmanager
def serving(served):
    """The URL of a server that runs while the block does."""
    config = uvicorn.Config(served.application(), port=0, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    listener = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket accepts from the moment it is bound on; what comes before the server runs waits in its queue.
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
