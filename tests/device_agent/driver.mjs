// Runs the JavaScript client as its tests ask: a job as JSON on standard input, what came of it as JSON on standard output.
import { OutriderError, Transcript, cancel, messages, pause, resume, stream, unpause } from "../../device_agent/static/outrider.mjs";

const told = (error) =>
  error instanceof OutriderError ? { name: error.name, message: error.message, code: error.code, param: error.param, status: error.status, retryAfterMs: error.retryAfterMs } : { name: error.name, message: String(error) };

async function follow({ url, request, session, after, options = {}, leaveBehind, abortBehind, restMs }) {
  const leaving = new AbortController();
  const text = new Transcript();
  const events = [];
  try {
    const given = { ...options, signal: leaving.signal };
    const found = request ? stream(url, request, given) : resume(url, session, after, given);
    for await (const event of found) {
      events.push(event);
      if (request) text.apply(event);
      if (events.length === abortBehind) leaving.abort();
      if (events.length === leaveBehind) break;
      if (restMs && events.length === 1) await new Promise((resolve) => setTimeout(resolve, restMs));
    }
    return { events, final: text.final, tentative: text.tentative };
  } catch (error) {
    return { events, error: told(error) };
  }
}

async function control({ url, session, verbs, options }) {
  const found = [];
  for (const verb of verbs) found.push(await { pause, unpause, cancel }[verb](url, session, options).catch(told));
  return found;
}

async function split({ bytes }) {
  const whole = Uint8Array.from(bytes);
  const found = [];
  for (let at = 0; at <= whole.length; at += 1) {
    const all = [];
    async function* pieces() {
      yield whole.slice(0, at);
      yield whole.slice(at);
    }
    for await (const message of messages(pieces())) all.push(message);
    found.push(all);
  }
  const single = [];
  async function* each() {
    for (const byte of whole) yield Uint8Array.of(byte);
  }
  for await (const message of messages(each())) single.push(message);
  return [...found, single];
}

async function long({ pieces }) {
  const piece = new TextEncoder().encode("x".repeat(16384));
  const lengths = [];
  async function* body() {
    yield new TextEncoder().encode("data: ");
    for (let count = 0; count < pieces; count += 1) yield piece;
    yield new TextEncoder().encode("\n\n");
  }
  const beganMs = performance.now();
  for await (const { data } of messages(body())) lengths.push(data.length);
  return { lengths, ms: performance.now() - beganMs };
}

function apply({ events }) {
  const text = new Transcript();
  return events.map((event) => {
    try {
      text.apply(event);
    } catch (error) {
      return told(error).code;
    }
    return [text.final, text.tentative, text.revoked, text.numRevoked, text.numSpeculative, text.tokenIds];
  });
}

const does = { follow, control, split, long, apply };
let said = "";
for await (const piece of process.stdin.setEncoding("utf8")) said += piece;
const results = [];
for (const job of JSON.parse(said)) results.push(await does[job.do](job));
console.log(JSON.stringify(results));
