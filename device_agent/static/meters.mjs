/**
 * Figures of the collaborative answer: as far as they are known while it runs, the agent's own once it is done.
 *
 * @module meters
 */

import { write } from "./frames.mjs";
import { NOTHING, number, told } from "./words.mjs";

/** @typedef {import("./tally.mjs").Tally} Tally */
/** @typedef {import("./outrider.mjs").DoneEvent} DoneEvent */
/** @typedef {import("./timeline.mjs").Timeline} Timeline */

/**
 * @typedef {object} Meter
 * @property {string} label
 * @property {string} unit
 * @property {string} [figure] Of the agent, at the end.
 * @property {(tally: Tally, timeline: Timeline) => number | null | undefined} [soFar]
 */

/** @type {Meter[]} */
const METERS = [
  { label: "round trip", unit: "ms", soFar: (tally, timeline) => timeline.rttMs ?? tally.rttMs },
  { label: "acceptance", unit: "share", figure: "acceptance", soFar: (tally) => tally.acceptance },
  { label: "revoked after it was read", unit: "share", figure: "revoked_after_read" },
  { label: "revoked share", unit: "share", figure: "revoked_share", soFar: (tally) => (tally.numShown > 0 ? tally.numRevoked / tally.numShown : null) },
  { label: "passes a token", unit: "passes/token", figure: "passes_per_token" },
  { label: "sent to the cloud", unit: "bytes", figure: "bytes_up" },
  { label: "drafting's energy", unit: "J", figure: "draft_joules", soFar: (_, timeline) => timeline.phone?.joules },
  { label: "phone's temperature", unit: "°C", soFar: (_, timeline) => timeline.phone?.temperature_c },
];

export class Meters {
  /** @param {Element} root */
  constructor(root) {
    this.#places = METERS.map(({ label }) => {
      const [row, name, value] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
      const [text, basis] = ["span", "small"].map((tag) => document.createElement(tag));
      name.textContent = label;
      text.textContent = NOTHING;
      value.append(text, " ", basis);
      row.append(name, value);
      root.append(row);
      return { text, basis };
    });
  }

  /** @type {{text: Element, basis: Element}[]} */ #places;

  /**
   * @param {Tally} tally
   * @param {DoneEvent | null} done
   * @param {Timeline} timeline
   */
  show(tally, done, timeline) {
    METERS.forEach((meter, index) => {
      const { text, basis } = this.#places[index];
      const [value, how] = read(meter, tally, done, timeline);
      write(text, value);
      write(basis, how);
    });
  }
}

/**
 * @param {Meter} meter
 * @param {Tally} tally
 * @param {DoneEvent | null} done
 * @param {Timeline} timeline
 * @returns {[string, string]}
 */
function read({ unit, figure, soFar }, tally, done, timeline) {
  if (done !== null && figure !== undefined && figure in done.figures) return told(/** @type {any} */ (done.figures[figure]));
  const value = soFar?.(tally, timeline);
  if (value === null || value === undefined) return [NOTHING, figure !== undefined && done === null && soFar === undefined ? "at the end" : ""];
  return [number(value, unit), done === null ? "so far" : "last"];
}
