// An answer from a running agent in Node 20 or newer; nothing to install.
//
//     node examples/javascript/client.mjs [URL [KEY_FILE]]
//
// An application of your own copies device_agent/static/outrider.mjs, which works in browsers and Deno as well.
import { readFileSync } from "node:fs";
import { OutriderError, stream, Transcript } from "../../device_agent/static/outrider.mjs";

const [url = "http://127.0.0.1:8080", keyFile] = process.argv.slice(2);
const key = keyFile === undefined ? undefined : readFileSync(keyFile, "utf8").trim();
const request = { prompt: "The module provides", max_tokens: 24, temperature: 0.8, seed: 7 };

try {
  const text = new Transcript();
  for await (const event of stream(url, request, { key })) {
    text.apply(event);
    if (event.event === "revoke") console.log(`withdrawn: ${JSON.stringify(text.revoked)}`);
    if (event.event === "commit" || event.event === "correct") console.log(`final: ${JSON.stringify(text.final)}`);
    if (event.event === "done") console.log(`done: ${event.verified_count} of ${event.token_ids.length} tokens are the full model's`);
  }

  // Enough read: the signal leaves the answer, and the agent cancels it.
  const leaving = new AbortController();
  for await (const event of stream(url, { ...request, max_tokens: 200 }, { key, signal: leaving.signal })) {
    if (event.event === "speculative" || event.event === "correct") leaving.abort();
  }
} catch (error) {
  if (error.name === "AbortError") {
    console.log("left");
  } else if (error instanceof OutriderError) {
    console.error(`${error.code}: ${error.message}`);
    process.exitCode = 1;
  } else {
    throw error;
  }
}
