/**
 * What can be said of an answer while it is still written. Once it is done the agent's own figures take the place of these.
 *
 * @module tally
 */

/** @typedef {import("./outrider.mjs").StreamEvent} StreamEvent */

export class Tally {
  /** @param {number} beganMs */
  constructor(beganMs) {
    this.#beganMs = beganMs;
    /** @type {number | null} */ this.firstVisibleMs = null;
    /** @type {number | null} */ this.firstFinalMs = null;
    /** @type {number | null} */ this.rttMs = null;
    /** @type {string | null} */ this.thermal = null;
    /** @type {{mode: string, reason: string} | null} */ this.state = null;
    this.numFinal = 0;
    this.numTentative = 0;
    this.numShown = 0;
    this.numRevoked = 0;
    this.numAgreed = 0;
    this.numContradicted = 0;
  }

  /** @type {number} */ #beganMs;

  /**
   * @param {StreamEvent} event
   * @param {number} nowMs
   */
  add(event, nowMs) {
    switch (event.event) {
      case "speculative":
        this.firstVisibleMs ??= nowMs - this.#beganMs;
        this.numTentative += event.token_ids.length;
        this.numShown += event.token_ids.length;
        break;
      case "commit":
        this.numAgreed += event.count;
        this.numTentative -= event.count;
        this.#final(event.commit_offset.tokens, nowMs);
        break;
      case "correct":
        this.#final(event.commit_offset.tokens, nowMs);
        break;
      case "revoke":
        this.numRevoked += event.count;
        this.numTentative -= event.count;
        if (event.reason === "contradicted") this.numContradicted += 1;
        break;
      case "state":
        this.state = { mode: event.mode, reason: event.reason };
        this.rttMs = event.rtt_ms ?? this.rttMs;
        this.thermal = event.thermal ?? this.thermal;
    }
  }

  /**
   * @param {number} numFinal
   * @param {number} nowMs
   */
  #final(numFinal, nowMs) {
    this.firstVisibleMs ??= nowMs - this.#beganMs;
    this.firstFinalMs ??= nowMs - this.#beganMs;
    this.numFinal = numFinal;
  }

  /**
   * @param {number} nowMs
   * @returns {number | null} Tokens a second that were written up to now, final or not; as the agent counts them at the end.
   */
  tokensPerS(nowMs) {
    const numTokens = this.numFinal + this.numTentative;
    const elapsedS = (nowMs - this.#beganMs) / 1000;
    return numTokens > 0 && elapsedS > 0 ? numTokens / elapsedS : null;
  }

  /** @returns {number | null} Of drafts that stood where tokens became final, the share that agreed. */
  get acceptance() {
    const numJudged = this.numAgreed + this.numContradicted;
    return numJudged > 0 ? this.numAgreed / numJudged : null;
  }
}
