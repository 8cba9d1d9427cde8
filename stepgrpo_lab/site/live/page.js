// The page: problem, controls, and a column for each model. All thinking is in rollout.js and model.js.

import { Net, readSafetensors } from "./model.js";
import { Tokenizer } from "./tokenizer.js";
import { Machine, Rollout } from "./rollout.js";
import { boxedAnswer, derived, readProblem } from "./problems.js";

const $ = (id) => document.getElementById(id);
const h = (tag, className = "", ...children) => {
  const node = document.createElement(tag);
  node.className = className;
  node.append(...children);
  return node;
};
const percent = (share) => `${(100 * share).toFixed(0)} %`;
const wide = (share) => `${100 * share}%`;
const data = new URL("data/", import.meta.url);
const fetched = async (name) => {
  const answer = await fetch(new URL(name, data));
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  return answer;
};

// ---- one model, thinking ---------------------------------------------------------------------------------------------

class Column {
  constructor(entry, known, tensors) {
    Object.assign(this, { name: entry.name, known });
    this.tokenizer = new Tokenizer(known.tokenizer);
    this.nets = [new Net(tensors, known.config), new Net(tensors, known.config)]; // the rollout's, plain decoding's
    this.root = h("article", "column");
    this.root.setAttribute("aria-label", this.name);
    this.phase = h("p", "phase");
    this.race = h("dl", "race");
    this.thoughts = h("ol", "thoughts");
    this.end = h("div", "end");
    this.root.append(h("div", "top", h("h2", "", this.name), this.phase), this.race, this.thoughts, this.end);
    this.frames = [];
  }

  /** Begin anew; nothing is fed before the first step. Returns whether the problem fits into the model's context. */
  prepare(options) {
    const { presets, watching, prompt, config } = this.known;
    const settings = { ...(options.watching ? watching : presets)[options.preset] };
    if (!options.watching) settings.exit_threshold = options.threshold;
    Object.assign(this, { options, settings, problem: options.problem, rollout: null, frames: [EMPTY] });
    this.ids = this.tokenizer.encode(prompt.before + options.text + prompt.after);
    const beyond = settings.think_budget + settings.probe_prompt_ids.length + settings.probe_max_tokens;
    return this.ids.length + Math.max(options.limit, beyond) <= config.max_position_embeddings;
  }

  get ended() { return this.frames.at(-1).ended; }

  /** The frame at a place, thought out as far as that. */
  frame(place) {
    while (this.frames.length <= place && !this.ended) this.#advance();
    return this.frames[Math.min(place, this.frames.length - 1)];
  }

  #advance() {
    const { settings, options, tokenizer, ids } = this;
    if (!this.rollout) {
      [this.rollout, this.plain] = this.nets.map((net, other) => new Rollout(net, ids,
        new Machine(tokenizer, {
          settings, limit: options.limit, endIds: this.known.end_ids, probing: options.probing && !other,
        }), options));
    }
    if (!this.rollout.machine.done) this.rollout.advance();
    if (!this.plain.machine.done) this.plain.advance();
    this.frames.push(this.#seen(this.rollout.machine, this.plain.machine));
  }

  #seen(machine, plain) {
    const probing = machine.phase === "probe", ended = machine.done && plain.done;
    const closeAt = machine.kept.indexOf(this.tokenizer.added.get(this.settings.close));
    const forcedAt = machine.forced.indexOf(true);
    const answer = machine.done ? boxedAnswer(machine.text, this.settings.close) : null;
    return {
      phase: machine.phase, close: machine.close, done: machine.done, ended, passes: machine.passes, answer,
      kept: [...machine.kept], dropped: [...machine.dropped], probes: [...machine.probes],
      starts: [...machine.scanner.starts], heldFrom: probing ? machine.base : Infinity,
      thoughtsEnd: forcedAt >= 0 ? forcedAt : closeAt >= 0 ? closeAt : machine.kept.length,
      forced: machine.forced.filter(Boolean).length,
      trial: probing ? { position: machine.base, text: machine.trial.text } : null,
      plain: plain.kept.length, plainDone: plain.done,
      same: ended && String(machine.kept) === String(plain.kept),
    };
  }

  // ---- drawing

  draw(place) {
    const frame = this.frame(place);
    this.phase.textContent = PHASES[frame.done ? (frame.ended ? "ended" : "waiting") : frame.phase];
    this.race.replaceChildren(
      ...this.#bar("this run", "length own", frame.kept.length, frame.kept.length ? `${frame.passes} passes` : ""),
      ...this.#bar("plain decoding", "length", frame.plain, frame.plainDone ? "" : "…"));
    patch(this.thoughts, [...this.#items(frame)]);
    patch(this.end, frame.done ? [...this.#summary(frame)] : []);
    this.end.hidden = !frame.done;
    return frame;
  }

  #bar(name, className, tokens, more) {
    const length = h("i");
    length.style.width = wide(tokens / this.options.limit);
    return [h("dt", "", name), h("dd", className, length), h("dd", "count", h("b", "", String(tokens)), " tokens", more && `, ${more}`)];
  }

  *#items(frame) {
    const ends = [...frame.starts.filter((start) => start < frame.thoughtsEnd), frame.thoughtsEnd];
    let start = 0;
    for (const [index, end] of ends.entries()) {
      const ids = frame.kept.slice(start, end), held = start >= frame.heldFrom;
      if (ids.length) yield this.#step(index, ids, held);
      for (const probe of frame.probes) if (probe.position === end) yield this.#probe(probe);
      if (frame.trial?.position === end) yield this.#asking(frame.trial);
      start = end;
    }
    if (frame.dropped.length) {
      const text = this.tokenizer.decode(frame.dropped);
      yield { key: `dropped ${text}`, make: () => h("li", "dropped", text) };
    }
    yield* this.#closing(frame);
  }

  #step(index, ids, held) {
    const text = this.tokenizer.decode(ids), result = derived(text, this.problem);
    return {
      key: `${index} ${held} ${text}`,
      make: () => {
        const node = h("li", `step s${index % 6}${held ? " held" : ""}`);
        if (result !== null) node.append(this.#sign(result, "result"));
        node.append(...this.#written(ids), ...(held ? [h("span", "tag", " held back")] : []));
        return node;
      },
    };
  }

  #sign(answer, className) {
    const right = answer === this.problem.answer;
    return h("span", `${className} ${right ? "is-right" : "is-wrong"}`, `${answer} ${right ? "✓ right" : "✗ wrong"}`);
  }

  /** Ordinary tokens as text, control tokens as tags. */
  *#written(ids) {
    const tags = new Map([...this.tokenizer.added].map(([text, id]) => [id, text]));
    let words = [];
    for (const [place, id] of [...ids, -1].entries()) {
      if (id >= 0 && !tags.has(id)) { words.push(id); continue; }
      const text = this.tokenizer.decode(words);
      yield* shown(words.length === place ? text.replace(/^ +/, "") : text); // a marker brings a space along
      if (id >= 0) yield h("span", "tag", tags.get(id));
      words = [];
    }
  }

  #probe(probe) {
    const { answer, confidence, accepted, reason, position } = probe;
    const sure = { early: "accepted", near_budget: "accepted: the budget is nearly used" }[reason] ?? "declined";
    return {
      key: `probe ${position} ${answer} ${confidence} ${reason}`,
      make: () => h("li", `probe ${accepted ? "accepted" : "declined"}`,
        h("span", "", "answer now? ", h("code", "", answer ?? "none")), this.#meter(confidence),
        h("span", "number", confidence.toFixed(3)), h("span", "verdict", sure)),
    };
  }

  #meter(confidence) {
    const level = h("i"), line = h("u"), meter = h("span", "meter", level, line);
    level.style.width = wide(confidence);
    line.style.left = `calc(${wide(this.settings.exit_threshold)} - 1px)`;
    meter.setAttribute("aria-hidden", "true");
    return meter;
  }

  #asking({ text }) {
    const asked = h("span", "", "answer now? ", h("code", "", ...shown(this.settings.probe_prompt + text)));
    return { key: `asking ${text}`, make: () => h("li", "probe asking", asked) };
  }

  *#closing(frame) {
    const { kept, thoughtsEnd, close } = frame;
    if (thoughtsEnd >= kept.length) return;
    const length = frame.forced || 1, ids = kept.slice(thoughtsEnd, thoughtsEnd + length);
    const how = frame.forced ? { early: "forced close: sure enough", near_budget: "forced close: near the budget",
      budget: "forced close: the budget is used" }[close] : "its own close";
    yield {
      key: `close ${close} ${ids}`,
      make: () => h("li", `close${frame.forced ? " forced" : ""}`, h("small", "", how), ...this.#written(ids)),
    };
    const rest = kept.slice(thoughtsEnd + length);
    if (rest.length) yield { key: `rest ${rest}`, make: () => h("li", "answer", h("small", "", "answer"), ...this.#written(rest)) };
  }

  *#summary(frame) {
    const { answer, kept, plain, passes, ended, probes } = frame;
    yield {
      key: `answer ${answer} ${this.problem?.answer}`,
      make: () => {
        const line = h("p", "big");
        if (answer === null) line.append("No answer: cut off at the limit.");
        else if (!this.problem) line.append(`Answers ${answer}`);
        else line.append("Answers ", this.#sign(answer, ""), answer === this.problem.answer ? "" : `, it is ${this.problem.answer}`);
        return line;
      },
    };
    if (!ended) return;
    const saved = plain - kept.length, passed = plain - passes;
    const sentence = frame.same
      ? probes.length
        ? `Identical to plain decoding, all ${plain} tokens: ${probes.length} ${probes.length > 1 ? "probes" : "probe"} left no trace.`
        : `Plain decoding: ${plain} tokens.`
      : saved > 0
        ? `${saved} of ${plain} tokens saved (${percent(saved / plain)}), ${passed > 0 ? `and ${passed}` : "but no"} passes.`
        : `${kept.length} tokens against ${plain} of plain decoding: nothing saved.`;
    yield { key: sentence, make: () => h("p", "saved", sentence) };
  }
}

/** A text whose line breaks can be seen. */
const shown = (text) => text.split(/(\n+)/).filter(Boolean).map((part) =>
  part[0] === "\n" ? h("span", "tag", "↵".repeat(part.length)) : part);

const EMPTY = {
  phase: "start", close: null, done: false, ended: false, passes: 0, answer: null, kept: [], dropped: [], probes: [],
  starts: [], heldFrom: Infinity, thoughtsEnd: 0, forced: 0, trial: null, plain: 0, plainDone: true, same: false,
};
const PHASES = {
  start: "ready", think: "thinking", probe: "probe: answering at once", close: "closing", answer: "answering",
  waiting: "done; plain decoding goes on", ended: "done",
};

/** Make a list's children what `items` say; those whose key has not changed stay as they are. */
function patch(parent, items) {
  items.forEach((item, place) => {
    const old = parent.children[place];
    if (old?.key === item.key) return;
    const node = Object.assign(item.make(), { key: item.key });
    if (old) old.replaceWith(node); else parent.append(node);
  });
  while (parent.children.length > items.length) parent.lastChild.remove();
}

// ---- the page --------------------------------------------------------------------------------------------------------

let manifest, columns = [], place = 0, running = false, lastTick = 0, nextTick = 0;

const rule = () => document.querySelector("input[name=rule]:checked").value;

function options() {
  const text = $("typed").value.trim(), off = rule() === "off";
  return {
    text, problem: readProblem(text), limit: manifest.limit, preset: off ? "official" : rule(), probing: !off,
    watching: $("watching").checked, threshold: Number($("threshold").value),
    temperature: Number($("temperature").value), seed: Number($("seed").value) || 0,
  };
}

function describeProblem({ text, problem }, fits) {
  const longest = manifest.problems.reduce((most, { prompt, family }) =>
    family === problem?.family ? Math.max(most, readProblem(prompt).size) : most, 0);
  const node = $("gold");
  node.classList.toggle("known", Boolean(problem));
  if (!fits) node.textContent = "Too long for this model.";
  else if (!problem) {
    node.textContent = text ? "Not one of the two kinds of problem that the model knows, or without a single answer: it " +
      "will try, and nothing can be graded." : "Type a problem.";
  } else {
    const what = problem.family === "chain" ? `A chain of ${problem.size} operations.` : `A search among ${problem.size} candidates.`;
    node.replaceChildren(`${what} The answer is `, h("b", "", problem.answer), ".",
      problem.size > longest ? " Longer than all that the model was trained on." : "");
  }
}

/** Take the controls as they stand, and begin anew. */
function restart(run) {
  const taken = options();
  const fits = columns.map((column) => column.prepare(taken)).every(Boolean);
  describeProblem(taken, fits);
  $("threshold-value").textContent = taken.threshold.toFixed(2);
  $("temperature-value").textContent = taken.temperature ? taken.temperature.toFixed(1) : "0";
  $("drawn").textContent = taken.temperature ? "Tokens are drawn; the seed decides." : "Always the likeliest token.";
  $("threshold").disabled = !taken.probing || taken.watching;
  $("watching").disabled = !taken.probing;
  place = 0;
  setRunning(run && fits && taken.text !== "");
  $("run").disabled = !fits || taken.text === "";
  draw();
}

function draw() {
  const frames = columns.map((column) => column.draw(place));
  const ended = frames.every((frame) => frame.ended);
  $("back").disabled = place === 0;
  $("compare").textContent = ended && columns.length > 1 ? "Left alone, without probes: " +
    columns.map((column, index) => `${column.name} ${frames[index].plain} tokens`).join(", ") + "." : "";
  $("forward").disabled = ended || $("run").disabled;
  $("place").textContent = place ? `frame ${place}` : "";
  if (ended && running) {
    setRunning(false);
    $("status").textContent = columns.map((column) => `${column.name}: ${[...column.end.children].map((line) => line.textContent).join(" ")}`).join(" ");
  }
  $("run").textContent = running ? "Pause" : ended ? "Run again" : place ? "Continue" : "Run";
  return ended;
}

function setRunning(now) {
  running = now;
  cancelAnimationFrame(nextTick);
  if (now) nextTick = requestAnimationFrame(tick);
}

function tick(time) {
  if (!running) return;
  const speed = Number($("speed").value);
  if (speed === 0 || time - lastTick >= 1000 / speed) {
    lastTick = time;
    do place += 1; while (speed === 0 && performance.now() - time < 12 && columns.some((column) => !column.frame(place).ended));
    draw();
  }
  if (running) nextTick = requestAnimationFrame(tick);
}

function toggleRun() {
  if (running) { setRunning(false); draw(); } else if (columns.every((column) => column.frame(place).ended)) restart(true);
  else { setRunning(true); draw(); }
}

function step(by) {
  setRunning(false);
  const last = Math.max(...columns.map((column) => (column.ended ? column.frames.length - 1 : Infinity)));
  place = Math.max(0, Math.min(place + by, last));
  draw();
}

function pick(index) {
  $("picked").selectedIndex = index;
  $("typed").value = manifest.problems[index].prompt;
  restart(true);
}

function another() {
  const count = manifest.problems.length, index = $("picked").selectedIndex;
  pick((index + 1 + Math.floor(Math.random() * (count - 1))) % count);
}

function toggleTheme() {
  const dark = $("theme").getAttribute("aria-pressed") !== "true";
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").setAttribute("aria-pressed", String(dark));
}

const KEYS = {
  r: toggleRun, " ": toggleRun, ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-Infinity),
  n: another, t: toggleTheme, x: () => $("watching").click(),
  p: () => { const kinds = [...document.getElementsByName("rule")]; kinds[(kinds.findIndex((each) => each.checked) + 1) % kinds.length].click(); },
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !columns.length) return;
  const target = event.target, types = target instanceof HTMLInputElement && !["checkbox"].includes(target.type);
  if (types || target.closest?.("select, textarea") || (event.key === " " && target.closest?.("button, summary, input"))) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const action = KEYS[key];
  if (!action || (["r", " ", "ArrowRight"].includes(key) && $("run").disabled)) return;
  event.preventDefault();
  action();
}

function fillProblems() {
  const groups = new Map();
  for (const [index, { prompt, family, level }] of manifest.problems.entries()) {
    const label = `${family}, level ${level}`;
    if (!groups.has(label)) groups.set(label, Object.assign(h("optgroup"), { label }));
    groups.get(label).append(new Option(prompt, index));
  }
  $("picked").replaceChildren(...groups.values());
}

function listen() {
  $("picked").addEventListener("change", () => pick($("picked").selectedIndex));
  $("another").addEventListener("click", another);
  $("typed").addEventListener("input", () => { $("picked").selectedIndex = -1; restart(false); });
  for (const node of [$("watching"), $("seed"), ...document.getElementsByName("rule")]) node.addEventListener("change", () => restart(true));
  for (const id of ["threshold", "temperature"]) {
    $(id).addEventListener("input", () => restart(false));
    $(id).addEventListener("change", () => restart(true));
  }
  $("typed").addEventListener("keydown", (event) => { if (event.key === "Enter" && !$("run").disabled) restart(true); });
  $("run").addEventListener("click", toggleRun);
  $("back").addEventListener("click", () => step(-1));
  $("forward").addEventListener("click", () => step(1));
  document.addEventListener("keydown", onKey);
}

async function load() {
  manifest = await (await fetched("live.json")).json();
  fillProblems();
  let bytes = 0;
  columns = await Promise.all(manifest.models.map(async (entry) => {
    const [known, buffer] = await Promise.all([
      fetched(entry.description).then((answer) => answer.json()), fetched(entry.weights).then((answer) => answer.arrayBuffer()),
    ]);
    bytes = buffer.byteLength;
    return new Column(entry, known, readSafetensors(buffer));
  }));
  const { presets, parameters } = columns[0].known;
  $("weights").textContent = `Each model has ${(parameters / 1e6).toFixed(2)} million parameters, rounded to 16 bits for ` +
    `this page (${(bytes / 1e6).toFixed(1)} MB). The page computes with them in JavaScript; no server is asked.`;
  $("threshold").value = presets.official.exit_threshold;
  $("columns").replaceChildren(...columns.map((column) => column.root));
  listen();
  pick(Math.max(0, manifest.problems.length / 2 - 1) | 0); // one of the harder chains
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) restart(false);
}

document.documentElement.classList.toggle("framed", window.self !== window.top);
$("theme").setAttribute("aria-pressed", String(matchMedia("(prefers-color-scheme: dark)").matches));
$("theme").addEventListener("click", toggleTheme);
load().catch((error) => { $("place").textContent = `The models cannot be loaded (${error.message}). Serve this folder with a file server.`; });
