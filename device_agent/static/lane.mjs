/**
 * One way to write an answer: its column on the page, and one run of it.
 *
 * @module lane
 */

import { inFrames, pause, write } from "./frames.mjs";
import { Transcript } from "./outrider.mjs";
import { Tally } from "./tally.mjs";
import { TranscriptView } from "./transcript_view.mjs";
import { compared, endWords, faultWords, number, stateWords, tail, told } from "./words.mjs";

/** @typedef {import("./outrider.mjs").StreamEvent} StreamEvent */
/** @typedef {import("./outrider.mjs").DoneEvent} DoneEvent */
/** @typedef {import("./agent.mjs").Agent} Agent */

/** Figures of a running answer are written so often: faster than that nobody reads them. In milliseconds. */
const FIGURES_EVERY_MS = 200;

/** Code points of the prompt that are shown before the answer. */
const BEFORE = 80;

const SEEN = "so far";

/** How often an agent without room is asked; each time after as long as it says. */
const MAX_TRIES = 10;

/** Which answer is read; its name is empty until it has one. @typedef {{sessionId: string}} Place */

/** Hears of a lane's answer as it is drawn. @typedef {(event: StreamEvent, nowMs: number, finalText: string) => void} Listener */

export class Lane {
  /**
   * @param {HTMLElement} root With a place for each of what it shows, by class.
   * @param {string} mode
   * @param {Agent} agent
   */
  constructor(root, mode, agent) {
    this.root = root;
    this.mode = mode;
    this.#agent = agent;
    this.#view = new TranscriptView(this.#place("answer"));
    this.#ask = inFrames((nowMs) => this.#draw(nowMs));
  }

  /** @type {Agent} */ #agent;
  /** @type {TranscriptView} */ #view;
  /** @type {() => void} */ #ask;
  /** @type {StreamEvent[]} */ #waiting = [];
  #tally = new Tally(0);
  #writtenMs = 0;
  #isRunning = false;
  /** @type {unknown} */ #fault = null;
  /** @type {DoneEvent | null} */ done = null;
  /** @type {Listener} */ onEvent = () => {};
  /** @type {() => void} */ onFigures = () => {};

  get tally() {
    return this.#tally;
  }

  get isRunning() {
    return this.#isRunning;
  }

  /** @param {number} bar As `TranscriptView.bar`. */
  set bar(bar) {
    this.#view.bar = bar;
  }

  /** Empties the column, and says when its turn comes. @param {string} prompt @param {string} status */
  prepare(prompt, status) {
    this.#waiting = [];
    this.#view.clear(tail(prompt, BEFORE));
    this.#tally = new Tally(performance.now());
    this.#fault = this.done = null;
    write(this.#place("note"), "");
    write(this.#place("same"), "–");
    this.#say(status, "waiting");
    this.#writeFigures(performance.now());
  }

  /**
   * Writes an answer to its end. Never rejects: what went wrong is shown in the column.
   * @param {Record<string, unknown>} request
   * @param {AbortSignal} signal
   * @returns {Promise<DoneEvent | null>}
   */
  async run(request, signal) {
    this.#isRunning = true;
    this.#say("writing", "running");
    /** @type {Place} */
    const place = { sessionId: "" };
    this.#ask();
    try {
      for (let numTries = 1; await this.#isFull(request, place, signal, numTries < MAX_TRIES); numTries += 1);
    } catch (error) {
      this.#fault = error;
    }
    this.#isRunning = false;
    this.#ask();
    if (signal.aborted && place.sessionId !== "") await this.#agent.cancel(place.sessionId);
    return this.done;
  }

  /**
   * Tries to have the answer written. Rejects with what goes wrong.
   * @param {Record<string, unknown>} request
   * @param {Place} place
   * @param {AbortSignal} signal
   * @param {boolean} mayWait Whether no room is a reason to come again, once the time is over that the agent asks for.
   * @returns {Promise<boolean>} Whether there was no room.
   */
  async #isFull(request, place, signal, mayWait) {
    try {
      await this.#read(request, place, signal);
      return false;
    } catch (/** @type {any} */ error) {
      if (!mayWait || error.status !== 429 || error.retryAfterMs === null) throw error;
      this.#say("waits for room: the agent writes as many answers as it may", "waiting");
      await pause(error.retryAfterMs, signal);
      this.#say("writing", "running");
      return true;
    }
  }

  /** @param {Record<string, unknown>} request @param {Place} place @param {AbortSignal} signal */
  async #read(request, place, signal) {
    const transcript = new Transcript();
    this.#tally = new Tally(performance.now());
    for await (const event of this.#agent.stream({ ...request, mode: this.mode }, { signal })) {
      transcript.apply(event);
      if (event.event === "session") place.sessionId = event.session_id;
      this.#tally.add(event, performance.now());
      if (event.event === "done") this.done = event;
      this.#waiting.push(event);
      this.#ask();
    }
  }

  /** @param {DoneEvent | null} cloud The cloud's own answer to the same prompt and seed, where there is one. */
  compare(cloud) {
    if (this.done === null || cloud === null) return;
    const { isSame, numSame } = compared(this.done, cloud);
    const differs = this.done.token_ids.length === numSame ? "no, it was not verified to its end" : `no, from token ${numSame + 1} on`;
    write(this.#place("same"), isSame ? "yes" : differs);
    this.#place("same").dataset.same = isSame ? "yes" : "no";
  }

  /** @param {number} nowMs */
  #draw(nowMs) {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const event of waiting) this.onEvent(event, nowMs, this.#view.apply(event, nowMs));
    const isFading = this.#view.fade(nowMs);
    if (!this.#isRunning) this.#end(nowMs);
    else if (nowMs - this.#writtenMs >= FIGURES_EVERY_MS) this.#writeFigures(nowMs);
    if (isFading || this.#isRunning) this.#ask();
  }

  /** @param {number} nowMs */
  #end(nowMs) {
    this.#writeFigures(nowMs);
    if (this.#fault !== null) {
      this.#say(faultWords(this.#fault), "failed");
    } else if (this.done !== null) {
      this.#say(endWords(this.done.finish_reason), "done");
      write(this.#place("note"), this.#unverified(this.done));
    }
  }

  /** @param {DoneEvent} done */
  #unverified(done) {
    const count = done.token_ids.length - done.verified_count;
    if (count === 0) return "";
    const which = done.verified_count === 0 ? "All of it is" : `The last ${count} tokens are`;
    return `${which} the draft's own: the full model has not seen it.`;
  }

  /** @param {number} nowMs */
  #writeFigures(nowMs) {
    this.#writtenMs = nowMs;
    const tally = this.#tally;
    this.#figure("first-visible", "first_visible_ms", tally.firstVisibleMs, "ms");
    this.#figure("first-final", "first_final_ms", tally.firstFinalMs, "ms");
    this.#figure("rate", "tokens_per_s", this.#isRunning ? tally.tokensPerS(nowMs) : null, "tokens/s");
    if (this.#isRunning) write(this.#place("note"), stateWords(tally.state, tally.thermal));
    this.onFigures();
  }

  /**
   * The agent's figure once it told one, until then what was seen here.
   * @param {string} place
   * @param {string} name
   * @param {number | null} soFar
   * @param {string} unit
   */
  #figure(place, name, soFar, unit) {
    const [value, basis] = this.done ? told(this.done.figures[name]) : [number(soFar, unit), soFar === null ? "" : SEEN];
    write(this.#place(place), value);
    write(this.#place(`${place}-basis`), basis);
  }

  /** @param {string} words @param {string} kind */
  #say(words, kind) {
    write(this.#place("status"), words);
    this.root.dataset.state = kind;
  }

  /** @param {string} name @returns {HTMLElement} */
  #place(name) {
    return /** @type {HTMLElement} */ (this.root.querySelector(`.${name}`));
  }
}
