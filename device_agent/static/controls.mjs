/**
 * What is emulated, as controls that act while answers are written: `GET` and `PATCH /v1/emulation`.
 *
 * @module controls
 */

import { EMULATION } from "./agent.mjs";
import { write } from "./frames.mjs";
import { SCALES, Slider } from "./sliders.mjs";
import { faultWords } from "./words.mjs";

/** @typedef {import("./agent.mjs").Agent} Agent */

const NONE = "none";

/** Changes that come faster are sent together, in milliseconds. */
const TOGETHER_MS = 120;

/** Where a profile is chosen by name, and the list that it is chosen from. */
const PROFILES = { phone: "phones", network: "networks", cloud: "clouds" };

/** Scenes by a name that people know; each is offered where the agent has all its profiles. */
const SCENES = [
  { title: "Flagship, good 5G", phone: "dimensity-9300", network: "5g-nsa-low", cloud: "mi300x" },
  { title: "Mid-range phone, LTE", phone: "snapdragon-7-gen-3", network: "lte", cloud: "mi300x" },
  { title: "In a train", network: "train" },
  { title: "Satellite", network: "satellite" },
  { title: "Home Wi-Fi", network: "wifi" },
  { title: "This computer, as it is", phone: NONE, network: NONE, cloud: NONE },
];

const NO_HEAT = "There are no figures of this phone's heat.";

const NO_ROUTE = "This agent does not let its emulation be changed while it runs: choose --phone, --network and --cloud when you start it.";

export class Controls {
  /**
   * @param {HTMLElement} root
   * @param {Agent} agent
   */
  constructor(root, agent) {
    this.#root = root;
    this.#agent = agent;
    for (const name of ["phone", "network", "cloud", "patience", "heat"]) {
      this.#select(name).addEventListener("change", () => this.#change(name, this.#select(name).value));
    }
    for (const name of Object.keys(SCALES)) {
      const place = /** @type {HTMLElement} */ (root.querySelector(`[data-slider="${name}"]`));
      this.#sliders.set(name, new Slider(place, name, (changed, value) => this.#change(changed, value)));
    }
  }

  /** Hears of every change that was made. @type {() => void} */ onChange = () => {};
  /** @type {HTMLElement} */ #root;
  /** @type {Agent} */ #agent;
  /** @type {Map<string, Slider>} */ #sliders = new Map();
  /** @type {any} */ #state = null;
  /** @type {Record<string, unknown>} */ #wanted = {};
  #isSending = false;

  /** Shows what is emulated; where the agent cannot, says so. Rejects as `Agent.get`. */
  async load() {
    if (!this.#agent.has(EMULATION)) {
      this.#say(NO_ROUTE);
      return;
    }
    this.#state = await this.#agent.get(EMULATION);
    this.#offer();
    this.#show();
    /** @type {HTMLFieldSetElement} */ (this.#root.querySelector("fieldset")).hidden = false;
  }

  /** @param {string} name @param {unknown} value */
  #change(name, value) {
    this.#wanted[name] = name === "patience" && value !== "auto" && value !== "never" ? Number(value) : value;
    void this.#send();
  }

  /** One request at a time; what changes meanwhile goes with the next. */
  async #send() {
    if (this.#isSending) return;
    this.#isSending = true;
    while (Object.keys(this.#wanted).length > 0) {
      await new Promise((resolve) => setTimeout(resolve, TOGETHER_MS));
      const wanted = this.#wanted;
      this.#wanted = {};
      try {
        this.#state = await this.#agent.patch(EMULATION, wanted);
        this.onChange();
        this.#say(`Set: ${Object.keys(wanted).map((name) => name.replaceAll("_", " ")).join(", ")}.`);
      } catch (error) {
        this.#say(faultWords(error));
      }
      // A thumb that is still being moved stays under the finger.
      if (Object.keys(this.#wanted).length === 0) this.#show();
    }
    this.#isSending = false;
  }

  #offer() {
    for (const [name, list] of Object.entries(PROFILES)) {
      const names = this.#state.choices[list].map((/** @type {any} */ choice) => choice.name);
      const options = [NONE, ...names.filter((/** @type {string} */ other) => other !== NONE)];
      this.#select(name).replaceChildren(...options.map((option) => new Option(option, option)));
    }
    const isKnown = (/** @type {Record<string, string>} */ scene) =>
      Object.keys(PROFILES).every((name) => !(name in scene) || [...this.#select(name).options].some(({ value }) => value === scene[name]));
    const place = /** @type {HTMLElement} */ (this.#root.querySelector(".scenes"));
    place.replaceChildren(...SCENES.filter(isKnown).map((scene) => this.#sceneButton(scene)));
  }

  /** @param {Record<string, string>} scene */
  #sceneButton({ title, ...profiles }) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = title;
    button.addEventListener("click", () => {
      for (const [name, value] of Object.entries(profiles)) this.#change(name, value);
    });
    return button;
  }

  #show() {
    const state = this.#state;
    for (const name of Object.keys(PROFILES)) {
      this.#choose(name, state[name] ?? NONE);
      write(this.#hint(name), this.#reason(name) ?? this.#profile(name)?.title ?? "");
    }
    for (const name of ["patience", "heat"]) {
      this.#choose(name, String(state[name] ?? "auto"));
      write(this.#hint(name), this.#reason(name) ?? "");
    }
    for (const [name, slider] of this.#sliders) {
      const { of, figure } = SCALES[name];
      slider.show(state.overrides[name], this.#profile(of)?.[figure], this.#reason(of) === null);
    }
  }

  /** @param {string} name @param {string} value One that is not offered is offered from now on. */
  #choose(name, value) {
    const select = this.#select(name);
    if (![...select.options].some((option) => option.value === value)) select.add(new Option(value, value));
    select.value = value;
    select.disabled = this.#reason(name) !== null;
  }

  /** @param {string} name @returns {string | null} Why it cannot be changed, null where it can. */
  #reason(name) {
    if (name === "heat" && this.#profile("phone")?.has_heat !== true) return NO_HEAT;
    const can = this.#state.can_change[name === "heat" ? "phone" : name] ?? true;
    return can === true ? null : `Stays as it is: ${can}.`;
  }

  /** @param {string} name @returns {any} */
  #profile(name) {
    const list = this.#state.choices[/** @type {Record<string, string>} */ (PROFILES)[name]];
    return list.find((/** @type {any} */ choice) => choice.name === this.#state[name]);
  }

  /** @param {string} name @returns {HTMLSelectElement} */
  #select(name) {
    return /** @type {HTMLSelectElement} */ (this.#root.querySelector(`#${name}`));
  }

  /** @param {string} name @returns {HTMLElement} */
  #hint(name) {
    return /** @type {HTMLElement} */ (this.#root.querySelector(`#${name}-hint`));
  }

  /** @param {string} words */
  #say(words) {
    write(/** @type {HTMLElement} */ (this.#root.querySelector(".said")), words);
  }
}
