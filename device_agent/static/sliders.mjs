/**
 * Sliders over figures that span decades: the thumb moves evenly in the logarithm. Pure but for `bind`.
 *
 * @module sliders
 */

import { write } from "./frames.mjs";

/** Steps of a slider's track. */
export const STEPS = 200;

/**
 * @typedef {object} Scale
 * @property {number} least
 * @property {number} most
 * @property {string} unit
 * @property {boolean} [isLinear] For figures that may be 0.
 */

/** @type {Record<string, Scale & {of: "phone" | "network" | "cloud", figure: string}>} What each slider overrides, and of which profile. */
export const SCALES = {
  bandwidth_gb_s: { of: "phone", figure: "bandwidth_gb_s", least: 5, most: 400, unit: "GB/s" },
  rtt_ms: { of: "network", figure: "rtt_ms", least: 1, most: 2000, unit: "ms" },
  rate_mbps: { of: "network", figure: "down_mbps", least: 0.01, most: 1000, unit: "Mbit/s" },
  loss_percent: { of: "network", figure: "loss_percent", least: 0, most: 20, unit: "%", isLinear: true },
  cloud_bandwidth_gb_s: { of: "cloud", figure: "bandwidth_gb_s", least: 50, most: 20000, unit: "GB/s" },
};

/**
 * @param {Scale} scale
 * @param {number} step From 0 to `STEPS`.
 * @returns {number} With as many digits as a person can set.
 */
export function valueAt({ least, most, isLinear }, step) {
  const share = step / STEPS;
  const value = isLinear ? least + share * (most - least) : least * (most / least) ** share;
  return Number(value.toPrecision(3));
}

/**
 * @param {Scale} scale
 * @param {number} value Beyond an end, it is that end.
 * @returns {number} The nearest step.
 */
export function stepAt({ least, most, isLinear }, value) {
  const held = Math.min(most, Math.max(least, value));
  const share = isLinear ? (held - least) / (most - least) : Math.log(held / least) / Math.log(most / least);
  return Math.round(share * STEPS);
}

/**
 * @param {number | null | undefined} value
 * @param {string} unit
 * @returns {string} Of what the profile does not limit: so.
 */
export function valueText(value, unit) {
  return value === null || value === undefined || !Number.isFinite(value) ? "no limit" : `${Number(value.toPrecision(3))} ${unit}`;
}

/** One slider on the page, with its output and the button that gives the figure back to the profile. */
export class Slider {
  /**
   * @param {HTMLElement} root
   * @param {string} name
   * @param {(name: string, value: number | null) => void} onChange Null: as the profile says.
   */
  constructor(root, name, onChange) {
    this.scale = SCALES[name];
    this.#input = /** @type {HTMLInputElement} */ (root.querySelector("input"));
    this.#output = /** @type {HTMLElement} */ (root.querySelector("output"));
    this.#reset = /** @type {HTMLButtonElement} */ (root.querySelector("button"));
    this.#input.max = String(STEPS);
    this.#input.addEventListener("input", () => {
      const value = valueAt(this.scale, this.#input.valueAsNumber);
      this.#tell(value);
      onChange(name, value);
    });
    this.#reset.addEventListener("click", () => onChange(name, null));
  }

  /** @type {HTMLInputElement} */ #input;
  /** @type {HTMLElement} */ #output;
  /** @type {HTMLButtonElement} */ #reset;

  /**
   * @param {number | null | undefined} override
   * @param {number | null | undefined} own The profile's.
   * @param {boolean} canChange
   */
  show(override, own, canChange) {
    const value = override ?? own;
    this.#input.value = String(stepAt(this.scale, value ?? this.scale.most));
    this.#input.disabled = !canChange;
    this.#reset.disabled = !canChange || override === undefined || override === null;
    this.#tell(value);
  }

  /** @param {number | null | undefined} value */
  #tell(value) {
    const text = valueText(value, this.scale.unit);
    write(this.#output, text);
    this.#input.setAttribute("aria-valuetext", text);
  }
}
