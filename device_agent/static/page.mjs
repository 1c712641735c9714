/**
 * The page: puts its parts together and lets a person ask.
 *
 * @module page
 */

import { Agent, keyIn } from "./agent.mjs";
import { Announcer } from "./announcer.mjs";
import { Controls } from "./controls.mjs";
import { write } from "./frames.mjs";
import { GraphPanel } from "./graph.mjs";
import { Lane } from "./lane.mjs";
import { Meters } from "./meters.mjs";
import { CLOUD, COLLABORATE, DEVICE, Race, drawSeed } from "./race.mjs";
import { Watch } from "./watch.mjs";
import { SHOW_ALL, SHOW_FINAL } from "./transcript_view.mjs";
import { faultWords, number } from "./words.mjs";

/** Prompts that are offered without asking for more. */
const OFFERED = 4;

const TITLES = { [COLLABORATE]: "Device and cloud together", [CLOUD]: "Cloud alone", [DEVICE]: "Device alone" };

const ORDER_HINTS = {
  beside: "One phone, one link and one machine carry all three at once: each is slower than alone.",
  after: "Each has the phone, the link and the machine for itself.",
  alone: "Nothing is written beside it to compare with.",
};

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const agent = new Agent(new URL(".", document.baseURI).href, sessionStorage);
const lanes = Object.fromEntries(Object.entries(TITLES).map(([mode, title]) => [mode, makeLane(mode, title)]));
const race = new Race(lanes);
const controls = new Controls($("conditions"), agent);
const watch = new Watch(agent, $("timeline"), $("timeline-words"), $("timeline-note"));
const meters = new Meters($("meters"));
const graph = new GraphPanel($("graph"), agent);

/** @param {string} mode @param {string} title */
function makeLane(mode, title) {
  const root = $("lane").content.cloneNode(true).firstElementChild;
  root.dataset.mode = mode;
  root.querySelector(".title").textContent = title;
  root.querySelector(".text").setAttribute("aria-label", `Text: ${title}`);
  root.querySelector(".same-row").hidden = mode === CLOUD;
  $("lanes").append(root);
  return new Lane(root, mode, agent);
}

/** The collaborative answer is what the timeline, the meters and a screen reader follow. */
function follow() {
  const lane = lanes[COLLABORATE];
  let announcer = new Announcer();
  lane.onEvent = (event, nowMs, finalText) => {
    if (event.event === "session") announcer = new Announcer();
    announcer.add(finalText);
    watch.heard(event);
    const isOver = event.event === "done";
    const told = announcer.take(nowMs, isOver);
    if (told !== null) $("live").textContent = told;
  };
  lane.onFigures = () => {
    if (!lane.isRunning) watch.stop(); // also where no last event came: it was stopped, or it failed
    meters.show(lane.tally, lane.done, watch.timeline);
  };
}

/** @param {Event} [event] */
async function start(event) {
  event?.preventDefault();
  if (race.isRunning || !$("ask").reportValidity()) return;
  showFault(null);
  const seed = $("seed").value === "" ? drawSeed() : Number($("seed").value);
  write($("seed-used"), `This time: ${seed}.`);
  const request = { prompt: $("prompt").value, max_tokens: $("max-tokens").valueAsNumber, temperature: $("temperature").valueAsNumber, seed };
  setRunning(true);
  watch.clear();
  $("results").scrollIntoView({ block: "nearest" });
  await race.run(request, $("ask").elements.order.value);
  await new Promise(requestAnimationFrame); // in which the last of each answer is drawn
  setRunning(false);
  await checkHealth();
}

/** @param {boolean} isRunning */
function setRunning(isRunning) {
  const hadFocus = document.activeElement === $("start") || document.activeElement === $("stop");
  $("start").disabled = isRunning;
  $("stop").disabled = !isRunning;
  if (hadFocus) $(isRunning ? "stop" : "start").focus(); // a button that is off loses it to nowhere
}

function reveal() {
  const shown = $("reveal").value;
  const stability = $("stability").valueAsNumber;
  $("stability-field").hidden = shown !== "stable";
  write($("stability-field").querySelector("output"), number(stability, "share"));
  for (const lane of Object.values(lanes)) lane.bar = { all: SHOW_ALL, stable: stability, final: SHOW_FINAL }[shown];
}

/** @param {unknown} error */
function showFault(error) {
  $("fault").hidden = error === null;
  write($("fault"), error === null ? "" : faultWords(error));
}

async function checkHealth() {
  try {
    about(await agent.get("/health"));
  } catch (error) {
    showFault(error);
  }
}

/** @param {any} health */
function about({ draft, full, phone, network, verifier }) {
  const played = [phone && `phone ${phone}`, network && `network ${network}`].filter(Boolean).join(", ");
  const behind = verifier === null ? "No verifier: the device is alone" : `Verifier at ${verifier}`;
  write($("about"), `${draft} drafts for ${full}. ${played ? `Emulated: ${played}.` : "Nothing of the device is emulated."} ${behind}.`);
}

/** What the agent tells before anything is asked. Without the right key, nothing but who it is. */
async function load() {
  showFault(null);
  try {
    const health = await agent.get("/health");
    about(health);
    $("max-tokens").value = health.defaults.max_tokens;
    $("temperature").value = health.defaults.temperature ?? 0;
    await agent.learn();
    graph.offer();
    offer((await agent.get("/v1/prompts")).prompts);
    await controls.load();
    $("key-form").hidden = true;
  } catch (/** @type {any} */ error) {
    const wantsKey = error.status === 401 || error.param === "key"; // none, the wrong one, or what is none
    $("key-form").hidden = !wantsKey;
    if (!wantsKey || agent.key !== undefined) showFault(error);
  }
}

/** @param {{title: string, text: string}[]} prompts */
function offer(prompts) {
  const buttons = prompts.map(({ title, text }, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.textContent = title;
    button.hidden = index >= OFFERED;
    button.addEventListener("click", () => ($("prompt").value = text));
    return button;
  });
  $("prompts").replaceChildren(...buttons);
  $("prompts").hidden = prompts.length === 0;
  if (prompts.length > OFFERED) $("prompts").append(moreButton(buttons));
  if ($("prompt").value === "" && prompts.length > 0) $("prompt").value = prompts[0].text;
}

/** @param {HTMLButtonElement[]} buttons */
function moreButton(buttons) {
  const more = document.createElement("button");
  more.type = "button";
  more.className = "chip more";
  more.textContent = `${buttons.length - OFFERED} more`;
  more.addEventListener("click", () => {
    for (const button of buttons) button.hidden = false;
    buttons[OFFERED].focus();
    more.remove();
  });
  return more;
}

/** @returns {boolean} Whether there was one. */
function takeKey() {
  const key = keyIn(location.hash);
  if (key === null) return false;
  agent.keep(key);
  history.replaceState(null, "", location.pathname + location.search); // not to be read over a shoulder, or kept in a history
  return true;
}

function listen() {
  $("ask").addEventListener("submit", start);
  $("stop").addEventListener("click", () => race.stop());
  $("reveal").addEventListener("change", reveal);
  $("stability").addEventListener("input", reveal);
  $("key-form").addEventListener("submit", (/** @type {Event} */ event) => {
    event.preventDefault();
    agent.keep($("key").value);
    $("key").value = "";
    void load();
  });
  $("ask").addEventListener("change", orderHint);
  addEventListener("hashchange", () => {
    if (takeKey()) void load(); // a link within the page leaves what is filled in as it is
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") race.stop();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) void start(event);
  });
}

function orderHint() {
  write($("order-hint"), ORDER_HINTS[/** @type {keyof typeof ORDER_HINTS} */ ($("ask").elements.order.value)]);
}

controls.onChange = () => void checkHealth();
takeKey();
follow();
listen();
orderHint();
reveal();
await load();
document.documentElement.dataset.ready = "yes";
