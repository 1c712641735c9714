/**
 * Follows what an agent tells of a running answer beside its text, and keeps its timeline drawn.
 *
 * @module watch
 */

import { TIMELINE } from "./agent.mjs";
import { inFrames, write } from "./frames.mjs";
import { Timeline, itemOf } from "./timeline.mjs";
import { TimelineView } from "./timeline_view.mjs";

/** @typedef {import("./agent.mjs").Agent} Agent */
/** @typedef {import("./outrider.mjs").StreamEvent} StreamEvent */

/** How often the drawing is put in words, in milliseconds. */
const WORDS_EVERY_MS = 1000;

const BY_EVENTS = "Drawn from the events of the answer, as they came to this page: this agent does not tell of flights and passes.";

export class Watch {
  /**
   * @param {Agent} agent
   * @param {HTMLCanvasElement} canvas
   * @param {Element} words
   * @param {Element} note
   */
  constructor(agent, canvas, words, note) {
    this.timeline = new Timeline();
    this.#agent = agent;
    this.#note = note;
    this.#view = new TimelineView(canvas, words, this.timeline);
    this.#ask = inFrames((nowMs) => this.#draw(nowMs));
  }

  /** @type {Agent} */ #agent;
  /** @type {Element} */ #note;
  /** @type {TimelineView} */ #view;
  /** @type {() => void} */ #ask;
  /** @type {AbortController | null} */ #telling = null;
  #isTold = false;
  #isRunning = false;
  #beganMs = 0;
  #wordsMs = 0;

  clear() {
    this.#telling?.abort();
    this.timeline.clear();
    this.#isTold = this.#isRunning = false;
    write(this.#note, "");
    this.#ask();
  }

  /** @param {StreamEvent} event Of the collaborative answer. */
  heard(event) {
    if (event.event === "session") this.#begin(event.session_id);
    if (event.event === "done") this.stop();
    if (this.#isTold || !this.#isRunning) return;
    const nowMs = performance.now();
    const item = itemOf(event, nowMs - this.#beganMs);
    if (item !== null) this.timeline.add(item, nowMs);
  }

  stop() {
    this.#isRunning = false;
    this.#ask();
  }

  /** @param {string} sessionId */
  #begin(sessionId) {
    this.#beganMs = performance.now();
    this.#isRunning = true;
    this.#telling = new AbortController();
    if (this.#agent.has(TIMELINE)) void this.#listen(sessionId, this.#telling.signal);
    else write(this.#note, BY_EVENTS);
    this.#ask();
  }

  /** @param {string} sessionId @param {AbortSignal} signal */
  async #listen(sessionId, signal) {
    try {
      for await (const item of this.#agent.timeline(sessionId, signal)) {
        if (!this.#isTold) this.timeline.clear();
        this.#isTold = true;
        this.timeline.add(item, performance.now());
        this.#ask();
      }
    } catch {
      // The answer does not depend on it: without it the timeline is drawn from what there is.
    }
    if (!this.#isTold && !signal.aborted) write(this.#note, BY_EVENTS);
  }

  /** @param {number} nowMs */
  #draw(nowMs) {
    this.#view.draw(nowMs, !this.#isRunning);
    if (!this.#isRunning || nowMs - this.#wordsMs >= WORDS_EVERY_MS) {
      this.#wordsMs = nowMs;
      this.#view.summarise();
    }
    if (this.#isRunning) this.#ask();
  }
}
