/**
 * Figures, states and refusals in words for people. Pure.
 *
 * @module words
 */

export const NOTHING = "–";

/** @type {Record<string, {decimals: number, suffix: string, factor?: number}>} */
const UNITS = {
  "ms": { decimals: 0, suffix: " ms" },
  "tokens/s": { decimals: 1, suffix: "" },
  "passes/token": { decimals: 2, suffix: "" },
  "tokens/token": { decimals: 2, suffix: "" },
  "share": { decimals: 0, suffix: " %", factor: 100 },
  "tokens": { decimals: 1, suffix: "" },
  "bytes": { decimals: 0, suffix: " B" },
  "J": { decimals: 2, suffix: " J" },
  "J/token": { decimals: 3, suffix: " J" },
  "°C": { decimals: 1, suffix: " °C" },
};

/**
 * @param {number | null | undefined} value
 * @param {string} unit
 * @returns {string}
 */
export function number(value, unit) {
  if (value === null || value === undefined) return NOTHING;
  const { decimals, suffix, factor = 1 } = UNITS[unit] ?? { decimals: 2, suffix: ` ${unit}` };
  return (value * factor).toFixed(decimals) + suffix;
}

/**
 * A figure of the agent, with how it came about: `["62 ms", "emulated"]`.
 * @param {{value: number | null, unit: string, basis: string} | undefined} figure
 * @returns {[string, string]}
 */
export function told(figure) {
  if (figure === undefined || figure.value === null) return [NOTHING, ""];
  return [number(figure.value, figure.unit), figure.basis];
}

/** What each reason of a `state` event means to who reads the answer. */
const STATES = new Map([
  ["link", "The verifier answers."],
  ["offline", "The verifier is away: the phone writes on alone. What it writes stays tentative until a verifier is back."],
  ["busy", "The verifier has no room now: the phone writes on alone, tentatively."],
  ["exactness", "This verifier cannot promise the same bits: near ties may fall otherwise."],
  ["pair", "The verifier serves another pair of models: this device wants a newer one."],
  ["emulation", "What is emulated was changed while this was written."],
  ["private", "Labelled device_only: it is answered here and never leaves."],
  ["alone", "This agent has no verifier: the phone writes alone."],
  ["swift", "The phone begins alone, and asks the cloud once it is unsure."],
  ["deadline", "The deadline is nearer than a verifier's answer: the phone writes alone."],
  ["unsure", "The phone was not sure any more: the cloud reads along."],
  ["final_only", "Only a verifier makes what was asked for: the cloud reads along."],
  ["no_room", "It does not fit the phone's model: the cloud reads along."],
  ["long_prompt", "A long prompt: the cloud reads it sooner."],
  ["long_answer", "A long answer: the cloud reads along."],
  ["hot", "The phone is hot: the cloud writes alone."],
  ["battery", "The battery is low: the cloud writes alone."],
  ["rested", "The phone drafts again."],
  ["queued", "As many answers as may are being written: this one waits for its place."],
  ["started", "It has its place: the answer begins."],
  ["paused", "Paused: nothing is written until it is resumed."],
  ["resumed", "The answer goes on."],
  ["throttling", "The phone's temperature changed its speed."],
]);

/**
 * @param {{mode: string, reason: string} | null} state
 * @param {string | null} thermal
 * @returns {string} Empty where there is nothing to say.
 */
export function stateWords(state, thermal) {
  if (state === null || state.reason === "link") return "";
  const words = STATES.get(state.reason) ?? `The way of working changed: ${state.reason}.`;
  return state.reason === "throttling" && thermal !== null ? `${words} Thermal status: ${thermal}.` : words;
}

/** Why an answer ended. */
const ENDS = new Map([
  ["stop", "ended by itself"],
  ["length", "as long as asked for"],
  ["deadline", "out of time"],
  ["offline", "ended without the verifier"],
  ["paused", "paused for too long"],
]);

/** @param {string} reason */
export function endWords(reason) {
  return ENDS.get(reason) ?? reason;
}

/** What can be done, beside what the agent says itself. */
const HINTS = new Map([
  ["link", "Is the verifier running? Start one with: outrider verifier"],
  ["authentication", "Enter the agent's key above."],
]);

/**
 * @param {any} error
 * @returns {string} What went wrong, and what would help.
 */
export function faultWords(error) {
  if (error?.name === "AbortError") return "Stopped.";
  const message = String(error?.message ?? error);
  const sentence = message.charAt(0).toUpperCase() + message.slice(1).replace(/[.\s]*$/, ".");
  const hint = HINTS.get(error?.code) ?? (error?.retryAfterMs ? `Try again in ${Math.ceil(error.retryAfterMs / 1000)} s.` : "");
  return message.includes("start one with") || hint === "" ? sentence : `${sentence} ${hint}`;
}

/**
 * Whether two answers are the same text, token for token, and verified to the end: `outrider demo` judges the same.
 *
 * @param {{token_ids: number[], verified_count: number}} ours
 * @param {{token_ids: number[], verified_count: number}} theirs
 * @returns {{isSame: boolean, numSame: number}} `numSame`: tokens up to the first that differs.
 */
export function compared(ours, theirs) {
  const shorter = Math.min(ours.token_ids.length, theirs.token_ids.length);
  let numSame = 0;
  while (numSame < shorter && ours.token_ids[numSame] === theirs.token_ids[numSame]) numSame += 1;
  const isEqual = numSame === ours.token_ids.length && numSame === theirs.token_ids.length;
  return { isSame: isEqual && ours.verified_count === numSame && theirs.verified_count === numSame, numSame };
}

/**
 * The last of a text, for a reminder of where an answer goes on.
 * @param {string} text
 * @param {number} length In code points: half a pair of surrogates is no character.
 */
export function tail(text, length) {
  const line = [...text.slice(text.lastIndexOf("\n") + 1)];
  return (line.length > length ? "…" : "") + line.slice(-length).join("");
}
