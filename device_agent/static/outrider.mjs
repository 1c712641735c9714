/**
 * A client of a device agent for browsers, Node and Deno: fetch and nothing else, no build step.
 *
 *     import { stream, Transcript } from "./outrider.mjs";
 *
 *     const text = new Transcript();
 *     for await (const event of stream("http://127.0.0.1:8080", { prompt: "The module provides", max_tokens: 64 })) {
 *       text.apply(event);
 *       console.log(text.final, text.tentative);
 *     }
 *
 * `docs/stream.md` is the contract. A connection that breaks is taken up again behind the last event that came.
 *
 * @module outrider
 */

/**
 * How much of the answer is final; it never goes back. Text counts in Unicode code points.
 * @typedef {{tokens: number, code_points: number}} CommitOffset
 */

/**
 * How likely the full model held a token, and `top`, the likeliest in its place; where the request asks for `logprobs`.
 * @typedef {{token_id: number, token: string, logprob: number}} Likelihood
 * @typedef {Likelihood & {top: Likelihood[]}} FinalLikelihood
 */

/** @typedef {{event: "session", seq: number, session_id: string, mode: string, reveal: string, draft: string, full: string,
 *   pair_digest: string, phone: string | null, network: string | null, seed: number}} SessionEvent */
/** @typedef {{event: "speculative", seq: number, position: number, token_ids: number[], text: string,
 *   stability: number}} SpeculativeEvent */
/** @typedef {{event: "commit", seq: number, position: number, count: number, commit_offset: CommitOffset,
 *   logprobs?: FinalLikelihood[]}} CommitEvent */
/** @typedef {{event: "revoke", seq: number, position: number, count: number, reason: string}} RevokeEvent */
/** @typedef {{event: "correct", seq: number, position: number, token_ids: number[], text: string,
 *   commit_offset: CommitOffset, logprobs?: FinalLikelihood[]}} CorrectEvent */
/** @typedef {{event: "state", seq: number, mode: string, reason: string, rtt_ms: number | null,
 *   thermal: string | null}} StateEvent */
/** @typedef {{event: "done", seq: number, finish_reason: string, prompt_token_ids: number[], token_ids: number[], text: string,
 *   verified_count: number, usage: Record<string, unknown>, figures: Record<string, unknown>}} DoneEvent */

/**
 * One event. Seeds over 2 ** 53 lose digits here, as in any JSON that JavaScript reads.
 * @typedef {SessionEvent | SpeculativeEvent | CommitEvent | RevokeEvent | CorrectEvent | StateEvent | DoneEvent} StreamEvent
 */

/**
 * @typedef {object} Options
 * @property {AbortSignal} [signal] Leaves the answer; the agent cancels it once its grace is over.
 * @property {string} [key] For an agent that asks who is calling.
 * @property {typeof globalThis.fetch} [fetch] In place of the global one.
 * @property {number} [reconnectMs] In place of `RECONNECT_MS`.
 * @property {number} [silenceMs] In place of `SILENCE_MS`; `Infinity` waits for ever.
 */

/** The first wait before a broken connection is taken up again, in milliseconds; it doubles each time. */
export const RECONNECT_MS = 100;
/** How often that is tried without one more event. All waits together are shorter than the grace an agent gives by default. */
export const MAX_RECONNECTS = 5;
/** How long an open connection may say nothing before it is taken for broken, in milliseconds. An agent that has nothing to
 * tell says so every 15 seconds; a phone that leaves its network often is not told that its connection is gone. */
export const SILENCE_MS = 60_000;
/** A timer that is to take longer ends at once, in browsers as in Node. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** What an agent refused, or ended an answer with: an OpenAI error object, and how it came. */
export class OutriderError extends Error {
  /**
   * @param {{message?: string, type?: string | null, param?: string | null, code?: string | null}} described
   * @param {{status?: number | null, retryAfterMs?: number | null, cause?: unknown}} [how]
   */
  constructor(described, { status = null, retryAfterMs = null, cause } = {}) {
    super(described.message ?? "the agent failed", { cause });
    this.name = "OutriderError";
    /** @type {string | null} */ this.type = described.type ?? null;
    /** @type {string | null} */ this.param = described.param ?? null;
    /** @type {string | null} */ this.code = described.code ?? null;
    /** @type {number | null} */ this.status = status;
    /** @type {number | null} */ this.retryAfterMs = retryAfterMs;
  }
}

/**
 * The events of one answer; the last is `done`. An `error` event is thrown as `OutriderError`.
 *
 * @param {string} url Of the agent, such as `http://127.0.0.1:8080`; an empty one is where the page comes from.
 * @param {Record<string, unknown>} request As `docs/stream.md` has it.
 * @param {Options} [options]
 * @returns {AsyncGenerator<StreamEvent, void, void>}
 */
export function stream(url, request, options = {}) {
  return follow(url, { sessionId: null, seq: null, numFailures: 0 }, request, options);
}

/**
 * The events of an answer behind the one with this `seq` (null: all of them). Who reads the answer now gets no more.
 *
 * @param {string} url
 * @param {string} sessionId
 * @param {number | null} [startingAfter]
 * @param {Options} [options]
 * @returns {AsyncGenerator<StreamEvent, void, void>}
 */
export function resume(url, sessionId, startingAfter = null, options = {}) {
  return follow(url, { sessionId, seq: startingAfter, numFailures: 0 }, null, options);
}

/**
 * What an answer does. `ended` is also one that was cancelled.
 * @typedef {"queued" | "running" | "paused" | "ended"} AnswerState
 */

/**
 * Let an answer stop for a while; it goes on with the same text. Asking twice does no harm.
 *
 * @param {string} url
 * @param {string} sessionId
 * @param {Options} [options]
 * @returns {Promise<AnswerState>} What it does now.
 */
export function pause(url, sessionId, options = {}) {
  return control(url, "POST", sessionId, "/pause", options);
}

/**
 * Let a paused answer go on; `resume` is for who reads it.
 *
 * @param {string} url
 * @param {string} sessionId
 * @param {Options} [options]
 * @returns {Promise<AnswerState>} What it does now.
 */
export function unpause(url, sessionId, options = {}) {
  return control(url, "POST", sessionId, "/resume", options);
}

/**
 * End an answer: it has ended when this is fulfilled, and its events can still be read.
 *
 * @param {string} url
 * @param {string} sessionId
 * @param {Options} [options]
 * @returns {Promise<AnswerState>} What it does now.
 */
export function cancel(url, sessionId, options = {}) {
  return control(url, "DELETE", sessionId, "", options);
}

/**
 * @param {string} url
 * @param {string} method
 * @param {string} sessionId
 * @param {string} verb
 * @param {Options} options
 * @returns {Promise<AnswerState>}
 */
async function control(url, method, sessionId, verb, { key, signal, fetch = globalThis.fetch, silenceMs = SILENCE_MS }) {
  const headers = authorized(key);
  const leaving = new AbortController();
  const leave = () => leaving.abort(signal?.reason);
  if (signal?.aborted) leave();
  signal?.addEventListener("abort", leave);
  let response, text;
  try {
    const asked = fetch(streamPath(url, sessionId) + verb, { method, headers, signal: leaving.signal });
    response = await unlessSilent(asked, silenceMs, leaving);
    text = await unlessSilent(response.text(), silenceMs, leaving);
  } catch (error) {
    throw signal?.aborted ? error : unreachable(url, error);
  } finally {
    signal?.removeEventListener("abort", leave);
  }
  if (!response.ok) throw refusal(response, text);
  const { state } = parsed(text);
  if (typeof state !== "string") throw malformed("the agent did not tell what the answer does now");
  return /** @type {AnswerState} */ (state);
}

/**
 * @param {string} url
 * @param {string | null} [sessionId]
 */
function streamPath(url, sessionId = null) {
  const path = url.replace(/\/+$/, "") + "/v1/stream";
  return sessionId === null ? path : `${path}/${encodeURIComponent(sessionId)}`;
}

/**
 * The header that carries a key. What no header can carry is refused here: by `fetch` it would look like an agent that is away.
 *
 * @param {string | undefined} key
 * @returns {Record<string, string>}
 */
export function authorized(key) {
  if (key === undefined) return {};
  if (!/^[!-~]+$/.test(key)) throw new OutriderError({ message: "a key is one word of plain characters", param: "key", code: "invalid_request" });
  return { authorization: `Bearer ${key}` };
}

/**
 * How far an answer was read: up to and with event `seq`.
 * @typedef {{sessionId: string | null, seq: number | null, numFailures: number}} Place
 */

/**
 * Events until the last, over as many connections as it takes. A `request` begins the answer; null reads it on.
 *
 * @param {string} url
 * @param {Place} place
 * @param {Record<string, unknown> | null} request
 * @param {Options} options
 * @returns {AsyncGenerator<StreamEvent, void, void>}
 */
async function* follow(url, place, request, options) {
  for (;;) {
    try {
      return yield* connection(url, place, request, options);
    } catch (error) {
      if (error instanceof OutriderError || options.signal?.aborted) throw error;
      if (place.sessionId === null || place.numFailures >= MAX_RECONNECTS) throw unreachable(url, error);
    }
    request = null;
    await sleep((options.reconnectMs ?? RECONNECT_MS) * 2 ** place.numFailures, options.signal);
    place.numFailures += 1;
  }
}

/**
 * The events of one connection.
 *
 * @param {string} url
 * @param {Place} place
 * @param {Record<string, unknown> | null} request
 * @param {Options} options
 * @returns {AsyncGenerator<StreamEvent, void, void>}
 */
async function* connection(url, place, request, options) {
  const leaving = new AbortController();
  const silenceMs = options.silenceMs ?? SILENCE_MS;
  const leave = () => leaving.abort(options.signal?.reason);
  if (options.signal?.aborted) leave();
  options.signal?.addEventListener("abort", leave);
  try {
    const response = await unlessSilent(send(url, place, request, options, leaving.signal), silenceMs, leaving);
    if (!response.ok) throw refusal(response, await unlessSilent(response.text(), silenceMs, leaving));
    if (response.status === 204) return;
    for await (const message of messages(watched(response.body, silenceMs, leaving))) {
      const event = parsed(message.data);
      if (!Number.isInteger(event.seq)) throw malformed("the agent sent an event that lacks a field: seq");
      place.numFailures = 0;
      place.seq = event.seq;
      if (event.event === "error") throw new OutriderError(isObject(event.error) ? event.error : {});
      if (event.event === "session") place.sessionId = event.session_id;
      yield event;
      if (event.event === "done") return;
    }
  } finally {
    options.signal?.removeEventListener("abort", leave);
    leaving.abort();
  }
  throw new OutriderError({ message: "the agent ended the stream before the answer was done; does another client read it?", code: "link" });
}

/**
 * What is no object is refused here: read as one, it would fail like a connection that broke, and be asked for without end.
 *
 * @param {string} data
 * @returns {any}
 */
function parsed(data) {
  let value;
  try {
    value = JSON.parse(data);
  } catch (cause) {
    throw malformed("the agent sent what is no JSON", cause);
  }
  if (!isObject(value)) throw malformed("the agent sent what is no JSON object");
  return value;
}

/** @param {unknown} value */
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * @param {string} message
 * @param {unknown} [cause]
 */
function malformed(message, cause) {
  return new OutriderError({ message, code: "malformed_message" }, { cause });
}

/**
 * @param {string} url
 * @param {Place} place
 * @param {Record<string, unknown> | null} request
 * @param {Options} options
 * @param {AbortSignal} signal
 * @returns {Promise<Response>}
 */
function send(url, place, request, { key, fetch = globalThis.fetch }, signal) {
  /** @type {Record<string, string>} */
  const headers = { accept: "text/event-stream", ...authorized(key) };
  if (request !== null) {
    headers["content-type"] = "application/json";
    return fetch(streamPath(url), { method: "POST", body: JSON.stringify(request), headers, signal });
  }
  if (place.seq !== null) headers["last-event-id"] = String(place.seq);
  return fetch(streamPath(url, place.sessionId ?? ""), { headers, signal, cache: "no-store" });
}

/**
 * @param {Response} response
 * @param {string} text Its body.
 * @returns {OutriderError}
 */
function refusal(response, text) {
  let described = null;
  try {
    described = JSON.parse(text).error;
  } catch {
    // no agent's answer, told by its status
  }
  const wait = response.headers.get("retry-after-ms");
  const how = { status: response.status, retryAfterMs: wait === null ? null : Number(wait) };
  return new OutriderError(isObject(described) ? described : { message: `the agent answered with status ${response.status}` }, how);
}

/**
 * @param {string} url
 * @param {unknown} cause
 */
function unreachable(url, cause) {
  return new OutriderError({ message: `no answer from an agent at ${url}; start one with: outrider agent`, code: "link" }, { cause });
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
function sleep(ms, signal) {
  return new Promise((resolve, reject) => {
    const done = () => {
      signal?.removeEventListener("abort", abort);
      resolve();
    };
    const timer = setTimeout(done, ms);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/**
 * Server-sent events, whatever pieces their bytes come in: WHATWG HTML 9.2.6. What has not ended with an empty line is dropped.
 *
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | null} body
 * @returns {AsyncGenerator<{id: string, event: string, data: string}, void, void>}
 */
export async function* messages(body) {
  let message = { id: "", event: "", /** @type {string[]} */ data: [] };
  for await (const line of lines(body)) {
    if (line === "") {
      if (message.data.length > 0) yield { ...message, data: message.data.join("\n") };
      message = { id: message.id, event: "", data: [] };
      continue;
    }
    const [, field, value] = /** @type {RegExpExecArray} */ (/^([^:]*)(?:: ?(.*))?$/s.exec(line));
    if (field === "data") message.data.push(value ?? "");
    if (field === "id" || field === "event") message[field] = value ?? "";
  }
}

/**
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | null} body
 * @returns {AsyncGenerator<string, void, void>}
 */
async function* lines(body) {
  const decoder = new TextDecoder();
  // Of a line that has not ended; looked through once, however many pieces it comes in.
  /** @type {string[]} */ let begun = [];
  // A carriage return that ends a piece may be half of a line's end.
  let half = "";
  for await (const bytes of pieces(body)) {
    const found = (half + decoder.decode(bytes, { stream: true })).split(/\r\n|\n|\r(?!$)/);
    const rest = /** @type {string} */ (found.pop());
    half = rest.endsWith("\r") ? "\r" : "";
    if (found.length > 0) {
      found[0] = begun.join("") + found[0];
      begun = [];
    }
    begun.push(rest.slice(0, rest.length - half.length));
    yield* found;
  }
}

/**
 * A body's bytes; not every browser can iterate over a `ReadableStream`.
 *
 * @param {AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | null} body
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* pieces(body) {
  if (body === null) return;
  if (!("getReader" in body)) return yield* body;
  const reader = body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/**
 * A body's bytes; where none come for too long while they are waited for, it fails as by a connection that broke.
 *
 * @param {ReadableStream<Uint8Array> | null} body
 * @param {number} silenceMs
 * @param {AbortController} connection
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* watched(body, silenceMs, connection) {
  const coming = pieces(body);
  for (;;) {
    const piece = await unlessSilent(coming.next(), silenceMs, connection);
    if (piece.done) return;
    yield piece.value;
  }
}

/**
 * What comes; where it does not for too long, it fails as by a connection that broke.
 *
 * @template T
 * @param {Promise<T>} coming
 * @param {number} silenceMs
 * @param {AbortController} connection
 * @returns {Promise<T>}
 */
async function unlessSilent(coming, silenceMs, connection) {
  const leave = () => connection.abort(new Error(`nothing came for ${silenceMs} ms`));
  const timer = silenceMs > LONGEST_TIMER_MS ? undefined : setTimeout(leave, silenceMs);
  try {
    return await coming;
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The answer as a reader sees it, kept from the events of a stream. `apply` throws where an event does not fit what is shown:
 * the agent broke its own rules. The laws are those of `outrider.client.Transcript`.
 */
export class Transcript {
  /** @type {{position: number, tokenIds: number[], text: string}[]} */ #segments = [];
  #numFinal = 0;

  constructor() {
    /** The text that the newest `revoke` withdrew. */
    this.revoked = "";
    this.numRevoked = 0;
    this.numSpeculative = 0;
  }

  /** @returns {string} */
  get final() {
    return this.#segments.slice(0, this.#numFinal).map((segment) => segment.text).join("");
  }

  /** @returns {string} */
  get tentative() {
    return this.#segments.slice(this.#numFinal).map((segment) => segment.text).join("");
  }

  /** @returns {number[]} */
  get tokenIds() {
    return this.#segments.flatMap((segment) => segment.tokenIds);
  }

  /** @param {StreamEvent} event One that is not known changes nothing. */
  apply(event) {
    switch (event.event) {
      case "speculative":
        this.#append(event);
        this.numSpeculative += event.token_ids.length;
        break;
      case "correct":
        require(this.#numFinal === this.#segments.length, `final tokens at ${event.position} behind tentative ones`);
        this.#append(event);
        this.#numFinal = this.#segments.length;
        break;
      case "commit":
        this.#commit(event.position, event.count);
        break;
      case "revoke":
        this.#revoke(event.position, event.count);
        break;
    }
  }

  /** @param {SpeculativeEvent | CorrectEvent} event */
  #append({ position, token_ids: tokenIds, text }) {
    const last = this.#segments.at(-1);
    require(last === undefined || end(last) === position, `tokens at ${position} behind a text that ends elsewhere`);
    this.#segments.push({ position, tokenIds, text });
  }

  /**
   * @param {number} position
   * @param {number} count
   */
  #commit(position, count) {
    const first = this.#segments[this.#numFinal];
    require(first !== undefined && first.position === position, `a commit at ${position}, where nothing tentative stands`);
    const numFinal = this.#upTo(position + count);
    const shown = this.#segments.slice(this.#numFinal, numFinal).reduce((sum, segment) => sum + segment.tokenIds.length, 0);
    require(shown === count, `a commit of ${count} tokens from ${position}, where ${shown} tentative ones stand`);
    this.#numFinal = numFinal;
  }

  /**
   * @param {number} position
   * @param {number} count
   */
  #revoke(position, count) {
    const kept = this.#upTo(position);
    const withdrawn = this.#segments.slice(kept);
    const shown = withdrawn.reduce((sum, segment) => sum + segment.tokenIds.length, 0);
    const begins = withdrawn[0]?.position ?? position;
    const isWhole = begins === position && shown === count;
    require(isWhole, `a revoke of ${count} tokens from ${position}, where ${shown} tentative ones stand from ${begins}`);
    this.revoked = withdrawn.map((segment) => segment.text).join("");
    this.numRevoked += count;
    this.#segments.length = kept;
  }

  /**
   * How many segments end at or before `position`, final ones included; steps are undone whole.
   * @param {number} position
   * @returns {number}
   */
  #upTo(position) {
    let count = this.#numFinal;
    for (const segment of this.#segments.slice(count)) {
      if (segment.position >= position) break;
      require(end(segment) <= position, `a step of tokens is cut at ${position}`);
      count += 1;
    }
    return count;
  }
}

/** @param {{position: number, tokenIds: number[]}} segment */
function end({ position, tokenIds }) {
  return position + tokenIds.length;
}

/**
 * @param {boolean} holds
 * @param {string} what
 */
function require(holds, what) {
  if (!holds) throw malformed(`the agent's stream does not fit itself: ${what}`);
}
