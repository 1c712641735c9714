// Runs the page's modules as their tests ask: jobs as JSON on standard input, what came of them as JSON on standard output.
// A job calls a function of a module, or makes one of its classes and calls or reads members of it, one after another.
const STATIC = new URL("../../device_agent/static/", import.meta.url);

async function run({ module, name, args = [], steps = null }) {
  const found = (await import(new URL(module, STATIC)))[name];
  if (steps === null) return found(...args);
  const made = new found(...args);
  return steps.map(([member, ...given]) => {
    const value = made[member];
    return structuredClone(typeof value === "function" ? (value.apply(made, given) ?? null) : value);
  });
}

let said = "";
for await (const piece of process.stdin.setEncoding("utf8")) said += piece;
const results = [];
for (const job of JSON.parse(said)) results.push(await run(job));
console.log(JSON.stringify(results, (_, value) => (value === undefined ? null : value)));
