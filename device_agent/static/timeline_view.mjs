/**
 * The timeline, drawn: the phone's work above, the cloud's below, and what flies between them; time goes to the right.
 *
 * @module timeline_view
 */

import { write } from "./frames.mjs";
import { WINDOW_MS, isRevoking } from "./timeline.mjs";
import { number } from "./words.mjs";

/** @typedef {import("./timeline.mjs").Timeline} Timeline */

/** Heights in CSS pixels. */
const PHONE = { top: 18, height: 16 };
const CLOUD = { top: 104, height: 16 };
const MARK = 4;
const LABELS = 60;
const MARGIN = 8;

/** A mark that is narrower cannot be seen. In CSS pixels. */
const LEAST = 1.5;

/** A screen shows more frames a second than anybody needs of this drawing. In milliseconds. */
const EVERY_MS = 30;

const COLOURS = ["draft", "flight", "pass", "accepted", "revoked", "decoded", "ink", "line"];

export class TimelineView {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {Element} summary Says in words what the drawing shows.
   * @param {Timeline} timeline
   */
  constructor(canvas, summary, timeline) {
    this.#canvas = canvas;
    this.#summary = summary;
    this.#timeline = timeline;
    this.#context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#fit());
  }

  /** @type {HTMLCanvasElement} */ #canvas;
  /** @type {Element} */ #summary;
  /** @type {Timeline} */ #timeline;
  /** @type {CanvasRenderingContext2D} */ #context;
  /** @type {Record<string, string>} */ #colours = {};
  #width = 0;
  #drawnMs = -Infinity;
  #fromMs = 0;

  /** @param {number} clockMs @param {boolean} [isOver] The last drawing, which stays. */
  draw(clockMs, isOver = false) {
    if (!isOver && clockMs - this.#drawnMs < EVERY_MS) return;
    this.#drawnMs = clockMs;
    const untilMs = isOver ? this.#timeline.endMs : Math.max(this.#timeline.nowMs(clockMs), this.#timeline.endMs);
    this.#fromMs = Math.max(0, untilMs - WINDOW_MS);
    this.#paint();
  }

  /** In words; not at every drawing, since somebody may read it. */
  summarise() {
    const timeline = this.#timeline;
    const { numAccepted, numRevoking } = timeline.verdicts;
    const times = [["draft", "a draft step"], ["up", "a flight to the cloud"], ["pass", "a pass"]]
      .map(([kind, what]) => [what, timeline.usualMs(kind)])
      .filter(([, tookMs]) => tookMs !== null && Number(tookMs) > 0)
      .map(([what, tookMs]) => `${what} ${number(Number(tookMs), "ms")}`);
    const judged = `${numAccepted} drafts accepted, ${numRevoking} times something revoked`;
    const words = timeline.isEmpty ? "Nothing has happened yet." : `In the last ${WINDOW_MS / 1000} s: ${[...times, judged].join(", ")}.`;
    write(this.#summary, words);
  }

  #fit() {
    const scale = devicePixelRatio;
    const { clientWidth, clientHeight } = this.#canvas;
    this.#width = clientWidth;
    this.#canvas.width = Math.round(clientWidth * scale);
    this.#canvas.height = Math.round(clientHeight * scale);
    this.#context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(this.#canvas);
    this.#colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.#context.font = `12px ${style.fontFamily}`;
    this.#paint();
  }

  #paint() {
    const { draft, up, pass, verdict } = this.#timeline.items;
    this.#context.clearRect(0, 0, this.#width, this.#canvas.clientHeight);
    this.#paintFrame();
    this.#context.save();
    this.#context.beginPath();
    this.#context.rect(LABELS, 0, this.#width - LABELS, this.#canvas.clientHeight);
    this.#context.clip();
    for (const item of draft) this.#paintSpan(item, PHONE, "draft");
    for (const item of pass) this.#paintSpan(item, CLOUD, "pass");
    for (const item of up) this.#paintFlight(item.start_ms, PHONE.top + PHONE.height, item.end_ms, CLOUD.top, "flight");
    for (const item of verdict) this.#paintVerdict(item);
    this.#context.restore();
  }

  /** @param {number} atMs @returns {number} */
  #x(atMs) {
    return LABELS + ((atMs - this.#fromMs) / WINDOW_MS) * (this.#width - LABELS - MARGIN);
  }

  #paintFrame() {
    const context = this.#context;
    context.fillStyle = this.#colours.ink;
    context.fillText("phone", 0, PHONE.top + 12);
    context.fillText("network", 0, (PHONE.top + PHONE.height + CLOUD.top) / 2 + 4);
    context.fillText("cloud", 0, CLOUD.top + 12);
    context.strokeStyle = this.#colours.line;
    context.lineWidth = 1;
    for (let second = Math.ceil(this.#fromMs / 1000); second * 1000 <= this.#fromMs + WINDOW_MS; second += 1) {
      const x = Math.round(this.#x(second * 1000)) + 0.5;
      this.#line(x, 0, x, this.#canvas.clientHeight);
      context.fillText(`${second} s`, x + 3, this.#canvas.clientHeight - 3);
    }
  }

  /** @param {any} item @param {{top: number, height: number}} row @param {string} colour */
  #paintSpan({ start_ms, end_ms }, { top, height }, colour) {
    const x = this.#x(start_ms);
    this.#context.fillStyle = this.#colours[colour];
    this.#context.fillRect(x, top, Math.max(LEAST, this.#x(end_ms) - x - 0.5), height);
  }

  /** @param {number} fromMs @param {number} fromY @param {number} toMs @param {number} toY @param {string} colour */
  #paintFlight(fromMs, fromY, toMs, toY, colour) {
    this.#context.strokeStyle = this.#colours[colour];
    this.#context.lineWidth = 1;
    this.#line(this.#x(fromMs), fromY, this.#x(toMs), toY);
  }

  /** Accepted: a full line and a dot. Revoked: a broken line and a cross. @param {any} item */
  #paintVerdict(item) {
    const context = this.#context;
    const isRevoked = isRevoking(item.verdict);
    const colour = isRevoked ? "revoked" : item.accepted > 0 ? "accepted" : "decoded";
    const x = this.#x(item.at_ms);
    const y = PHONE.top + PHONE.height + MARK + 2;
    if (isRevoked) context.setLineDash([3, 3]);
    if (item.pass !== null) this.#paintFlight(item.pass.end_ms, CLOUD.top, item.at_ms, y, colour);
    context.setLineDash([]);
    context.strokeStyle = context.fillStyle = this.#colours[colour];
    context.lineWidth = 2;
    if (isRevoked) {
      this.#line(x - MARK, y - MARK, x + MARK, y + MARK);
      this.#line(x - MARK, y + MARK, x + MARK, y - MARK);
      return;
    }
    context.beginPath();
    context.arc(x, y, MARK - 1, 0, 2 * Math.PI);
    if (item.accepted > 0) context.fill();
    else context.stroke();
  }

  /** @param {number} x @param {number} y @param {number} toX @param {number} toY */
  #line(x, y, toX, toY) {
    this.#context.beginPath();
    this.#context.moveTo(x, y);
    this.#context.lineTo(toX, toY);
    this.#context.stroke();
  }
}
