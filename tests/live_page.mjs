// Runs the live page's modules in Node for `test_live_page.py`: node live_page.mjs PAGE JOBS.json > ANSWERS.json

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [page, jobsFile] = process.argv.slice(2);
const [{ Net, readSafetensors }, { Tokenizer }, rollout, problems] = await Promise.all(
  ["model", "tokenizer", "rollout", "problems"].map((name) => import(pathToFileURL(`${page}/${name}.js`))));
const { Machine, Rollout, Scanner, draw, uniform } = rollout;
const read = (name) => JSON.parse(readFileSync(`${page}/data/${name}`, "utf8"));
const manifest = read("live.json");

const opened = {};
function model(name) {
  if (!opened[name]) {
    const entry = manifest.models.find((each) => each.name === name);
    const file = readFileSync(`${page}/data/${entry.weights}`);
    const tensors = readSafetensors(file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength));
    const known = read(entry.description);
    opened[name] = { known, net: new Net(tensors, known.config), tokenizer: new Tokenizer(known.tokenizer) };
  }
  return opened[name];
}

const summary = (machine) => ({
  kept: machine.kept, forced: machine.forced, dropped: machine.dropped, close: machine.close, steps: machine.scanner.steps,
  probes: machine.probes, probe_tokens: machine.probeTokens, replayed_tokens: machine.replayedTokens, text: machine.text,
});

const TASKS = {
  encode: ({ model: name, texts }) => {
    const { tokenizer } = model(name);
    return texts.map((text) => { const ids = tokenizer.encode(text); return { ids, text: tokenizer.decode(ids) }; });
  },
  tokenize: ({ tokenizer: known, texts }) => {
    const tokenizer = new Tokenizer(known);
    return texts.map((text) => tokenizer.encode(text));
  },
  rollouts: ({ model: name, prompts, cases }) => { // every case of every prompt: answers[case][prompt]
    const { known, net, tokenizer } = model(name);
    const run = (ids, { settings, probing, temperature, seed }) => {
      const machine = new Machine(tokenizer, { settings, limit: manifest.limit, endIds: known.end_ids, probing });
      return { prompt_ids: ids, ...summary(new Rollout(net, ids, machine, { temperature, seed }).finish()) };
    };
    const answers = cases.map(() => []);
    for (const prompt of prompts) {
      const ids = tokenizer.encode(known.prompt.before + prompt + known.prompt.after);
      cases.forEach((each, place) => answers[place].push(run(ids, each)));
    }
    return answers;
  },
  scripts: ({ pieces, end_ids: endIds, settings, limit, scripts }) => { // a machine without a model: tokens are given
    const tokenizer = new Tokenizer({ pieces, merges: [], added: {}, pattern: "[^]" });
    return scripts.map((script) => {
      const machine = new Machine(tokenizer, { settings, limit, endIds });
      const fed = [];
      for (const [token, probability] of script) {
        while (!machine.done && machine.choice === null) fed.push(machine.feed());
        if (machine.done) break;
        machine.observe(token, probability);
      }
      return { ...summary(machine), phase: machine.phase, fed };
    });
  },
  scan: ({ pieces, settings, rows }) => {
    const tokenizer = new Tokenizer({ pieces, merges: [], added: {}, pattern: "[^]" });
    return rows.map((ids) => {
      const scanner = new Scanner(tokenizer, settings);
      return { hits: ids.map((id) => scanner.push(id)), steps: scanner.steps, closed: scanner.closed };
    });
  },
  problems: ({ texts }) => texts.map(problems.readProblem),
  answers: ({ texts, close }) => texts.map((text) => problems.boxedAnswer(text, close)),
  derived: ({ steps, problem }) => {
    const known = problems.readProblem(problem);
    return steps.map((step) => problems.derived(step, known));
  },
  numbers: ({ seed, count }) => Array.from({ length: count }, (_, position) => uniform(seed, position)),
  draws: ({ logits, temperature, numbers }) => numbers.map((number) => draw(logits, temperature, number)),
};

const jobs = JSON.parse(readFileSync(jobsFile, "utf8"));
process.stdout.write(JSON.stringify(jobs.map((job) => TASKS[job.task](job))));
