/**
 * The same prompt and seed, written three ways: at once, one after another, or the collaborative one alone.
 *
 * @module race
 */

import { Agent } from "./agent.mjs";
import { Lane } from "./lane.mjs";

export const COLLABORATE = "collaborate";
export const CLOUD = "cloud";
export const DEVICE = "device";

/** @typedef {"beside" | "after" | "alone"} Order */

/** Seeds that are drawn fit a JSON number of any client, as those of an agent do. */
const SEED_BITS = 53;

export class Race {
  /** @param {Record<string, Lane>} lanes By mode. */
  constructor(lanes) {
    this.lanes = lanes;
  }

  /** @type {AbortController | null} */ #running = null;

  get isRunning() {
    return this.#running !== null;
  }

  stop() {
    this.#running?.abort(new DOMException("stopped", "AbortError"));
  }

  /**
   * @param {Record<string, unknown>} request With a seed, so that all lanes have the same.
   * @param {Order} order
   * @returns {Promise<void>} Resolves when every lane that takes part has ended, however it ended.
   */
  async run(request, order) {
    this.stop();
    const running = (this.#running = new AbortController());
    const modes = order === "alone" ? [COLLABORATE] : [COLLABORATE, CLOUD, DEVICE];
    for (const [mode, lane] of Object.entries(this.lanes)) {
      lane.root.hidden = !modes.includes(mode);
      lane.prepare(String(request.prompt), "waits for its turn");
    }
    try {
      const run = (/** @type {string} */ mode) => this.lanes[mode].run(request, running.signal).then(() => this.#compare());
      if (order === "after") {
        for (const mode of modes) if (!running.signal.aborted) await run(mode);
      } else {
        await Promise.all(modes.map(run));
      }
    } finally {
      if (this.#running === running) this.#running = null;
    }
  }

  #compare() {
    for (const mode of [COLLABORATE, DEVICE]) this.lanes[mode].compare(this.lanes[CLOUD].done);
  }
}

/** @returns {number} */
export function drawSeed() {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high % 2 ** (SEED_BITS - 32)) * 2 ** 32 + low;
}
