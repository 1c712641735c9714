/**
 * An answer on the screen: tentative text turns final, revoked text is struck through and fades.
 *
 * Nothing is ever drawn again. A piece of text is put behind what is there, changes its class once, and is melted into one text
 * node with its neighbours when it is final and no longer new. Whole lines of such text are sealed in blocks of their own, which
 * a browser need not lay out again. So a frame costs what happened in it, however long the text is.
 *
 * @module transcript_view
 */

/** @typedef {import("./outrider.mjs").StreamEvent} StreamEvent */

/** For how long revoked text stays readable. */
export const READABLE_MS = 1800;

/** Revoked pieces on the screen at once; an older one leaves before its time. */
export const MAX_STRUCK = 4;

/** Final pieces that are still apart, so that their colour can change gently. */
const MAX_APART = 16;

/** Code points of melted text from which on whole lines of it are sealed. */
const SEALED = 400;

/** Bars for `bar`: from which `stability` on tentative text is shown. */
export const SHOW_ALL = 0;
export const SHOW_FINAL = Infinity;

/** @typedef {{node: HTMLElement, count: number, stability: number}} Piece */

export class TranscriptView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.#root = root;
    this.#live = this.#block();
  }

  /** @type {HTMLElement} */ #root;
  /** The block that text is put into. @type {HTMLElement} */ #live;
  /** @type {Piece[]} */ #tentative = [];
  /** @type {HTMLElement[]} */ #apart = [];
  /** @type {{node: HTMLElement, sinceMs: number}[]} */ #struck = [];
  /** @type {Text | null} */ #melted = null;
  /** Code points of melted text in the live block, about. */ #numMelted = 0;
  /** @type {number | null} */ #contradictedAt = null;
  #bar = SHOW_ALL;

  /** @param {string} before What the answer goes on from, as a reminder; it is no part of the text. */
  clear(before) {
    this.#root.replaceChildren();
    this.#live = this.#block();
    if (before !== "") this.#live.dataset.before = before;
    this.#tentative = [];
    this.#apart = [];
    this.#struck = [];
    this.#melted = null;
    this.#numMelted = 0;
    this.#contradictedAt = null;
  }

  /** Acts on what is on the screen, too. @param {number} bar */
  set bar(bar) {
    this.#bar = bar;
    let isShown = true;
    for (const piece of this.#tentative) {
      isShown &&= piece.stability >= bar;
      piece.node.hidden = !isShown;
    }
  }

  /**
   * @param {StreamEvent} event
   * @param {number} nowMs
   * @returns {string} Text that became final.
   */
  apply(event, nowMs) {
    switch (event.event) {
      case "speculative":
        this.#speculate(event.text, event.token_ids.length, event.stability);
        return "";
      case "commit":
        return this.#commit(event.count);
      case "revoke":
        this.#revoke(event.position, event.count, event.reason, nowMs);
        return "";
      case "correct":
        this.#correct(event.position, event.text);
        return event.text;
      default:
        return "";
    }
  }

  /**
   * Takes away what was struck through long enough.
   * @param {number} nowMs
   * @returns {boolean} Whether any is left.
   */
  fade(nowMs) {
    while (this.#struck.length > 0 && (this.#struck.length > MAX_STRUCK || nowMs - this.#struck[0].sinceMs >= READABLE_MS)) {
      this.#struck.shift()?.node.remove();
    }
    return this.#struck.length > 0;
  }

  /**
   * A stability is the chance that all up to here stay, so it is no more than that of any piece before: where this one is
   * likely enough, so are they by now.
   *
   * @param {string} text
   * @param {number} count
   * @param {number} stability
   */
  #speculate(text, count, stability) {
    const node = this.#put("span", "tentative", text);
    node.hidden = stability < this.#bar;
    if (!node.hidden) {
      for (let at = this.#tentative.length - 1; at >= 0 && this.#tentative[at].node.hidden; at -= 1) {
        this.#tentative[at].node.hidden = false;
      }
    }
    for (const piece of this.#tentative) piece.stability = Math.max(piece.stability, stability);
    this.#tentative.push({ node, count, stability });
  }

  /** @param {number} count */
  #commit(count) {
    let text = "";
    for (let left = count; left > 0; ) {
      const piece = this.#tentative.shift();
      if (piece === undefined) break; // `Transcript` has refused it already
      left -= piece.count;
      text += piece.node.textContent;
      piece.node.className = "final";
      piece.node.hidden = false;
      this.#finish(piece.node);
    }
    return text;
  }

  /**
   * @param {number} position
   * @param {number} count
   * @param {string} reason
   * @param {number} nowMs
   */
  #revoke(position, count, reason, nowMs) {
    let text = "";
    for (let left = count; left > 0 || this.#tentative.at(-1)?.count === 0; ) {
      const piece = this.#tentative.pop();
      if (piece === undefined) break;
      left -= piece.count;
      if (!piece.node.hidden) text = piece.node.textContent + text;
      piece.node.remove();
    }
    this.#contradictedAt = reason === "contradicted" ? position : null;
    if (text === "") return;
    this.#struck.push({ node: this.#put("del", "revoked", text), sinceMs: nowMs });
    this.fade(nowMs);
  }

  /**
   * @param {number} position
   * @param {string} text
   */
  #correct(position, text) {
    const isCorrection = position === this.#contradictedAt;
    this.#contradictedAt = null;
    this.#finish(this.#put(isCorrection ? "ins" : "span", isCorrection ? "corrected" : "final", text));
  }

  /** @param {HTMLElement} node Final from now on. */
  #finish(node) {
    this.#apart.push(node);
    while (this.#apart.length > MAX_APART) this.#melt(/** @type {HTMLElement} */ (this.#apart.shift()));
  }

  /**
   * Into the text node before it. One that is marked stays what it is; behind it, and behind text that is struck through, the
   * next text node begins.
   * @param {HTMLElement} node
   */
  #melt(node) {
    if (node.className !== "final") return;
    if (this.#melted === null || node.previousSibling !== this.#melted) {
      this.#melted = document.createTextNode(node.textContent ?? "");
      node.replaceWith(this.#melted);
    } else {
      this.#melted.appendData(node.textContent ?? "");
      node.remove();
    }
    this.#numMelted += node.textContent?.length ?? 0;
    if (this.#numMelted > SEALED) this.#seal(this.#melted);
  }

  /** @param {Text} melted With all before it, up to its last line's beginning, a block of its own from now on. */
  #seal(melted) {
    const end = melted.data.lastIndexOf("\n") + 1;
    if (end === 0) return;
    this.#melted = melted.splitText(end);
    this.#numMelted = this.#melted.length;
    const sealed = this.#live;
    this.#live = this.#block();
    while (melted.nextSibling) this.#live.append(melted.nextSibling);
    sealed.classList.add("sealed");
  }

  /** @returns {HTMLElement} */
  #block() {
    const block = document.createElement("div");
    this.#root.append(block);
    return block;
  }

  /**
   * @param {string} tag
   * @param {string} name
   * @param {string} text
   * @returns {HTMLElement}
   */
  #put(tag, name, text) {
    const node = document.createElement(tag);
    node.className = name;
    node.textContent = text;
    this.#live.append(node);
    return node;
  }
}
