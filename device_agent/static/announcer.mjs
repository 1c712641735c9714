/**
 * What a screen reader is told of an answer: final text alone, in pieces that are worth hearing.
 *
 * @module announcer
 */

/** Pieces come at least so far apart, in milliseconds: a reader that is interrupted all the time says nothing. */
export const PAUSE_MS = 1500;

/** A text without an end of a sentence is told all the same once it is so long. */
export const LONG = 160;

export class Announcer {
  #waiting = "";
  #toldMs = -Infinity;

  /** @param {string} text New final text. */
  add(text) {
    this.#waiting += text;
  }

  /**
   * @param {number} nowMs
   * @param {boolean} [isOver] Whatever is left is told.
   * @returns {string | null} What is to be told now.
   */
  take(nowMs, isOver = false) {
    const end = isOver ? this.#waiting.length : this.#sentencesEnd();
    if (end === 0 || (!isOver && nowMs - this.#toldMs < PAUSE_MS)) return null;
    const told = this.#waiting.slice(0, end);
    this.#waiting = this.#waiting.slice(end);
    this.#toldMs = nowMs;
    return told.trim() === "" ? null : told;
  }

  #sentencesEnd() {
    const found = /^.*(?:[.!?:](?=\s)|\n)/s.exec(this.#waiting);
    if (found !== null) return found[0].length;
    if (this.#waiting.length <= LONG) return 0;
    return this.#waiting.lastIndexOf(" ") + 1 || this.#waiting.length; // not every language parts words by spaces
  }
}
