/**
 * The agent that this page comes from, and the key that it may want. A key in the address (`#key=...`) is taken out of it and
 * kept for this tab alone; a fragment is never sent to a server.
 *
 * @module agent
 */

import { pause } from "./frames.mjs";
import { OutriderError, authorized, cancel, messages, stream } from "./outrider.mjs";

const KEPT = "outrider.key";

/** Routes that not every agent has. */
export const EMULATION = "/v1/emulation";
export const TIMELINE = "/v1/stream/{session_id}/timeline";

/** How long the agent may be silent about an answer that is to end, in milliseconds. */
const CANCEL_MS = 5000;
/** How often, without one more item, a timeline is taken up again; the wait before it doubles each time. */
const MAX_RECONNECTS = 5;
const RECONNECT_MS = 100;

/** @typedef {{signal?: AbortSignal}} Options */

export class Agent {
  /**
   * @param {string} url
   * @param {Storage} storage
   */
  constructor(url, storage) {
    this.url = url.replace(/\/+$/, "");
    this.#storage = storage;
    /** @type {string | undefined} */
    this.key = storage.getItem(KEPT) || undefined;
  }

  /** @type {Storage} */ #storage;
  /** @type {Set<string>} */ #routes = new Set();

  /** Learns which routes there are. A browser's console shouts of every one that is tried and not found. */
  async learn() {
    this.#routes = new Set(Object.keys((await this.get("/openapi.json")).paths));
  }

  /** @param {string} route */
  has(route) {
    return this.#routes.has(route);
  }

  /** @param {string} key An empty one forgets it. */
  keep(key) {
    this.key = key || undefined;
    if (key) this.#storage.setItem(KEPT, key);
    else this.#storage.removeItem(KEPT);
  }

  /**
   * The events of an answer; its timeline is kept where it is of use and the agent can.
   * @param {Record<string, unknown>} request
   * @param {Options} options
   */
  stream(request, { signal }) {
    const asked = request.mode === "collaborate" && this.has(TIMELINE) ? { ...request, timeline: true } : request;
    return stream(this.url, asked, { key: this.key, signal });
  }

  /**
   * Ends an answer now. One whose reader merely leaves goes on for a while, so that it can be read on, and holds its place.
   * @param {string} sessionId
   * @returns {Promise<void>} Resolves when it is over, or cannot be ended; either way there is nothing more to be done.
   */
  async cancel(sessionId) {
    await cancel(this.url, sessionId, { key: this.key, silenceMs: CANCEL_MS }).catch(() => {});
  }

  /**
   * What is told about a running answer beside its text, item by item, until it ends. Where the connection breaks it is read
   * on behind the last item.
   * @param {string} sessionId
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<Record<string, unknown>, void, void>}
   */
  async *timeline(sessionId, signal) {
    const path = `/v1/stream/${encodeURIComponent(sessionId)}/timeline`;
    let last = "";
    for (let numFailures = 0; ; numFailures += 1) {
      try {
        const response = await this.#send("GET", last === "" ? path : `${path}?starting_after=${last}`, undefined, signal);
        for await (const { id, data } of messages(response.body)) {
          yield JSON.parse(data);
          [last, numFailures] = [id, 0];
        }
        return;
      } catch (/** @type {any} */ error) {
        if (signal.aborted || (error.status ?? null) !== null || numFailures >= MAX_RECONNECTS) throw error;
      }
      await pause(RECONNECT_MS * 2 ** numFailures, signal);
    }
  }

  /**
   * The events of a graph of sub-tasks, which is cancelled where its reader leaves.
   * @param {Record<string, unknown>} graph
   * @param {Options} options
   * @returns {AsyncGenerator<any, void, void>}
   */
  async *tasks(graph, { signal }) {
    const response = await this.#send("POST", "/v1/tasks", JSON.stringify(graph), signal);
    for await (const { data } of messages(response.body)) yield JSON.parse(data);
  }

  /**
   * @param {string} path
   * @returns {Promise<any>} Its JSON. Rejects with `OutriderError` where the agent refuses or is away.
   */
  async get(path) {
    return (await this.#send("GET", path)).json();
  }

  /**
   * @param {string} path
   * @param {Record<string, unknown>} body
   * @returns {Promise<any>}
   */
  async patch(path, body) {
    return (await this.#send("PATCH", path, JSON.stringify(body))).json();
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {string} [body]
   * @param {AbortSignal} [signal]
   * @returns {Promise<Response>}
   */
  async #send(method, path, body, signal) {
    const headers = authorized(this.key);
    if (body !== undefined) headers["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(this.url + path, { method, headers, body, signal, cache: "no-store" });
    } catch (cause) {
      if (signal?.aborted) throw cause;
      throw new OutriderError({ message: `no answer from the agent at ${this.url}; start one with: outrider agent`, code: "link" }, { cause });
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }
}

/**
 * @param {Response} response
 * @returns {Promise<OutriderError>}
 */
async function refusal(response) {
  const described = await response.json().then(({ error }) => error, () => undefined);
  return new OutriderError(described ?? { message: `the agent answered with status ${response.status}` }, { status: response.status });
}

/**
 * The key in a fragment such as `#key=correct-horse-battery`.
 * @param {string} fragment
 * @returns {string | null} Null where there is none.
 */
export function keyIn(fragment) {
  const found = /^#key=(.+)$/s.exec(fragment);
  if (found === null) return null;
  try {
    return decodeURIComponent(found[1]);
  } catch {
    return found[1]; // a key may hold a percent sign of its own
  }
}
