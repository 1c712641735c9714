/**
 * What happened in the last seconds of an answer, and when: a bounded window. Pure; times in milliseconds since the answer
 * began, by the agent's clock.
 *
 * @module timeline
 */

/** @typedef {import("./outrider.mjs").StreamEvent} StreamEvent */

/** @typedef {{kind: string, start_ms: number, end_ms: number, tokens?: number, bytes?: number, nodes?: number,
 *   rows?: number}} Span */
/** @typedef {{kind: "verdict", at_ms: number, start: number, accepted: number, verdict: string, pass: Span | null}} Verdict */

/** How much of the past is kept and shown. */
export const WINDOW_MS = 2500;

/** Items of one kind at most, should an agent tell of more in a window than a screen can show. */
export const MAX_ITEMS = 1000;

/** Kinds that have a beginning and an end. */
const SPANS = ["draft", "up", "pass"];

export class Timeline {
  constructor() {
    this.clear();
  }

  clear() {
    /** @type {Record<string, any[]>} */
    this.items = { draft: [], up: [], pass: [], verdict: [] };
    /** @type {{temperature_c?: number | null, joules?: number | null, thermal?: string | null} | null} */ this.phone = null;
    /** @type {number | null} */ this.rttMs = null;
    this.endMs = 0;
    this.#lagMs = Infinity;
    this.#pass = null;
  }

  #lagMs = Infinity;
  /** The pass that the next verdict comes of: an agent tells of both together. @type {Record<string, any> | null} */
  #pass = null;

  get isEmpty() {
    return Object.values(this.items).every((items) => items.length === 0);
  }

  /**
   * @param {Record<string, any>} item Of a kind that is not known: it changes nothing.
   * @param {number} clockMs When it came, by any clock that `nowMs` is asked with, too.
   */
  add(item, clockMs) {
    if (item.kind === "phone") this.phone = item;
    else if (item.kind === "link") this.rttMs = item.rtt_ms;
    const items = this.items[item.kind];
    if (items === undefined) return;
    if (item.kind === "pass") this.#pass = item;
    if (item.kind === "verdict") [item.pass, this.#pass] = [this.#pass, null];
    // A flight is told when it leaves, with the time at which it will be there.
    const toldMs = item.kind === "up" ? item.start_ms : end(item);
    items.push(item);
    this.endMs = Math.max(this.endMs, toldMs);
    this.#lagMs = Math.min(this.#lagMs, clockMs - toldMs);
    this.#forget(items);
  }

  /**
   * Now, by the agent's clock: the item that came with the least delay tells how far the two clocks are apart.
   * @param {number} clockMs
   */
  nowMs(clockMs) {
    return Number.isFinite(this.#lagMs) ? clockMs - this.#lagMs : 0;
  }

  /** @param {string} kind @returns {number | null} How long such a thing takes: the median of those that are kept. */
  usualMs(kind) {
    const took = this.items[kind].map((item) => item.end_ms - item.start_ms).sort((a, b) => a - b);
    return took.length > 0 ? took[took.length >> 1] : null;
  }

  /** @returns {{numAccepted: number, numRevoking: number}} Of the verdicts that are kept. */
  get verdicts() {
    const verdicts = /** @type {Verdict[]} */ (this.items.verdict);
    return {
      numAccepted: verdicts.reduce((sum, { accepted }) => sum + accepted, 0),
      numRevoking: verdicts.filter(({ verdict }) => isRevoking(verdict)).length,
    };
  }

  /** @param {any[]} items In the order of their ends, as they came. */
  #forget(items) {
    let count = Math.max(0, items.length - MAX_ITEMS);
    while (count < items.length && end(items[count]) < this.endMs - WINDOW_MS) count += 1;
    if (count > 0) items.splice(0, count);
  }
}

/** @param {Record<string, any>} item @returns {number} */
function end(item) {
  return SPANS.includes(item.kind) ? item.end_ms : item.at_ms;
}

/** @param {string} verdict */
export function isRevoking(verdict) {
  return verdict.startsWith("revoke");
}

/**
 * What the events of an answer tell by themselves, where an agent tells no timeline: no flights, no passes.
 * @param {StreamEvent} event
 * @param {number} atMs
 * @returns {Record<string, unknown> | null}
 */
export function itemOf(event, atMs) {
  switch (event.event) {
    case "speculative":
      return { kind: "draft", start_ms: atMs, end_ms: atMs, tokens: event.token_ids.length };
    case "commit":
      return { kind: "verdict", at_ms: atMs, start: event.position, accepted: event.count, verdict: "accept" };
    case "revoke":
      return { kind: "verdict", at_ms: atMs, start: event.position, accepted: 0, verdict: `revoke: ${event.reason}` };
    default:
      return null;
  }
}
