/**
 * A graph of sub-tasks on the page: a row for each, with a sign, a word and a bar from its beginning to its end.
 *
 * @module graph
 */

import { inFrames, write } from "./frames.mjs";
import { OutriderError } from "./outrider.mjs";
import { faultWords } from "./words.mjs";

export const TASKS = "/v1/tasks";

/** What a person finds there to change. */
export const EXAMPLE = {
  defaults: { max_tokens: 24, temperature: 0 },
  tasks: {
    opening: { prompt: "The module provides" },
    function: { prompt: "The module provides{{ opening }}\n\nopen(name)\n\n   Return" },
    exception: { prompt: "The module provides{{ opening }}\n\nexception Error\n\n   Raised when" },
    summary: { prompt: "The function returns{{ function | words(12) }}. The exception is raised when{{ exception | words(12) }}. Note that" },
  },
};

/** @type {Record<string, string>} */
const SIGNS = { waiting: "·", running: "▶", done: "✓", failed: "✗", skipped: "–", cancelled: "■" };
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
const BROKEN = { message: "the connection to the agent ended before the graph was done" };

/** @typedef {{state: string, beganMs: number | null, endedMs: number | null, tokens: number, text: string, why: string}} Row */

/** What is known of each sub-task; knows no page. */
export class Schedule {
  /** @type {Map<string, Row>} */ rows = new Map();
  /** @type {any} */ last = null;
  #isLeft = false;

  /** @param {any} event One of `POST /v1/tasks`. */
  heard(event) {
    if (event.event === "graph") {
      const empty = { state: "waiting", beganMs: null, endedMs: null, tokens: 0, text: "", why: "" };
      this.rows = new Map(event.tasks.map((/** @type {any} */ { task }) => [task, { ...empty }]));
    } else if (event.event === "task") {
      const row = this.#row(event.task);
      row.state = event.state;
      if (event.state === "running") row.beganMs = event.at_ms;
      else row.endedMs = event.at_ms;
      row.why = event.error?.message ?? "";
    } else if (event.event === "output" && event.output.event === "done") {
      const row = this.#row(event.task);
      row.text = event.output.text;
      row.tokens = event.output.token_ids.length;
    } else if (event.event === "done") this.last = event;
  }

  /** No more will be heard: the agent cancels a graph whose reader is gone. @param {number} atMs */
  left(atMs) {
    if (this.last !== null) return;
    this.#isLeft = true;
    for (const row of this.rows.values()) {
      if (row.state === "running") row.endedMs = atMs;
      if (row.state === "running" || row.state === "waiting") row.state = "cancelled";
    }
  }

  /** @param {string} name @returns {Row} */
  #row(name) {
    const row = this.rows.get(name);
    if (row === undefined) throw new Error(`the agent told of a sub-task ${name} that is not in the graph`);
    return row;
  }

  /** @returns {string} How far it is, in a sentence. */
  words() {
    const states = [...this.rows.values()].map(({ state }) => state);
    const count = (/** @type {string} */ state) => states.filter((each) => each === state).length;
    if (this.#isLeft) return `${count("done")} of ${states.length} done; what was not over is cancelled.`;
    if (this.last === null) return `${count("done")} of ${states.length} done, ${count("running")} running.`;
    const chain = this.last.critical_path.join(", then ");
    const took = `${this.last.status} in ${(this.last.makespan_ms / 1000).toFixed(2)} s`;
    return `${took}: ${count("done")} of ${states.length} done${chain ? `; decided by ${chain}` : ""}.`;
  }
}

export class GraphPanel {
  /**
   * @param {any} root
   * @param {import("./agent.mjs").Agent} agent
   */
  constructor(root, agent) {
    this.#root = root;
    this.#agent = agent;
    this.#draw = inFrames(() => this.#drawn());
    root.querySelector("textarea").value = JSON.stringify(EXAMPLE, null, 2);
    root.querySelector("form").addEventListener("submit", (/** @type {Event} */ event) => {
      event.preventDefault();
      void this.#run();
    });
    root.querySelector(".leave").addEventListener("click", () => this.#leaving?.abort());
    root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.stopPropagation(); // it asks for this, not for the answers above
        void this.#run();
      }
      if (event.key === "Escape") this.#leaving?.abort();
    });
  }

  /** @type {any} */ #root;
  /** @type {import("./agent.mjs").Agent} */ #agent;
  /** @type {() => void} */ #draw;
  /** @type {AbortController | null} */ #leaving = null;
  #schedule = new Schedule();
  #beganMs = 0;

  /** Shows it where the agent can. */
  offer() {
    this.#root.hidden = !this.#agent.has(TASKS);
  }

  async #run() {
    if (this.#leaving !== null) return;
    this.#fault(null);
    let graph;
    try {
      graph = JSON.parse(this.#root.querySelector("textarea").value);
    } catch (/** @type {any} */ error) {
      this.#fault({ message: `this is no JSON: ${error.message}` });
      return;
    }
    this.#leaving = new AbortController();
    this.#running(true);
    this.#schedule = new Schedule();
    this.#beganMs = performance.now();
    try {
      for await (const event of this.#agent.tasks(graph, { signal: this.#leaving.signal })) {
        this.#schedule.heard(event);
        this.#draw();
      }
      if (this.#schedule.last === null) this.#fault(BROKEN);
    } catch (error) {
      const isToldBetter = error instanceof OutriderError || this.#leaving.signal.aborted;
      this.#fault(isToldBetter ? error : BROKEN);
    } finally {
      this.#schedule.left(performance.now() - this.#beganMs);
      if (this.#schedule.rows.size > 0) this.#draw();
      this.#leaving = null;
      this.#running(false);
    }
  }

  /** @param {boolean} isRunning */
  #running(isRunning) {
    const [start, leave] = [this.#root.querySelector(".begin"), this.#root.querySelector(".leave")];
    const hadFocus = document.activeElement === start || document.activeElement === leave;
    start.disabled = isRunning;
    leave.disabled = !isRunning;
    if (hadFocus) (isRunning ? leave : start).focus();
  }

  /** @param {unknown} error */
  #fault(error) {
    const shown = this.#root.querySelector(".fault");
    shown.hidden = error === null;
    write(shown, error === null ? "" : faultWords(error));
  }

  #drawn() {
    const { rows, last } = this.#schedule;
    const nowMs = last?.makespan_ms ?? performance.now() - this.#beganMs;
    const critical = new Set(last?.critical_path ?? []);
    const list = this.#root.querySelector(".rows");
    if (list.childElementCount !== rows.size || list.dataset.of !== [...rows.keys()].join()) {
      list.replaceChildren(...[...rows.keys()].map(made));
      list.dataset.of = [...rows.keys()].join();
    }
    [...rows].forEach(([name, row], index) => show(list.children[index], name, row, nowMs, critical.has(name)));
    write(this.#root.querySelector(".told"), this.#schedule.words());
    if (last === null && this.#leaving !== null) this.#draw(); // bars of what runs grow
  }
}

/** @returns {HTMLLIElement} */
function made() {
  const item = document.createElement("li");
  for (const part of ["name", "state", "wrote"]) {
    const element = document.createElement("span");
    element.className = part;
    item.append(element);
  }
  const bar = document.createElementNS(SVG, "svg");
  bar.setAttribute("viewBox", `0 0 ${WIDTH} 10`);
  bar.setAttribute("preserveAspectRatio", "none");
  bar.setAttribute("aria-hidden", "true"); // the words beside it say the same
  bar.append(document.createElementNS(SVG, "rect"));
  item.append(bar);
  return item;
}

/** @param {any} item @param {string} name @param {Row} row @param {number} nowMs @param {boolean} isCritical */
function show(item, name, row, nowMs, isCritical) {
  const began = row.beganMs ?? 0;
  const ended = row.beganMs === null ? 0 : row.endedMs ?? nowMs;
  const when = row.beganMs === null ? "" : `, ${(began / 1000).toFixed(2)} to ${(ended / 1000).toFixed(2)} s`;
  item.dataset.state = row.state;
  write(item.querySelector(".name"), `${isCritical ? "◆ " : ""}${name}`);
  write(item.querySelector(".state"), `${SIGNS[row.state] ?? "?"} ${row.state}${when}${row.tokens ? `, ${row.tokens} tokens` : ""}`);
  write(item.querySelector(".wrote"), row.why || row.text);
  const bar = item.querySelector("rect");
  bar.setAttribute("x", String((WIDTH * began) / nowMs));
  bar.setAttribute("width", String((WIDTH * Math.max(0, ended - began)) / nowMs));
  bar.setAttribute("height", "10");
}
