// The trajectory machine of `stepgrpo_lab.method.rollout` once more, for the browser: the same phases, the same rules,
// with settings that Python writes. `tests/test_live_page.py` holds the two against each other.

import { decodePartial, joined } from "./tokenizer.js";

const WORD = /[\p{L}\p{N}_]/u;

/** Finds markers while tokens arrive; a marker is certain once the character after it is known. */
export class Scanner {
  constructor(tokenizer, { markers, close }) {
    this.tokenizer = tokenizer;
    this.close = close;
    this.certain = new RegExp(`(?<!${WORD.source})(?:${markers.join("|")})(?=[^\\p{L}\\p{N}_])`, "gu");
    this.tokens = []; // {start, end, chars, shared, pending}: the characters that each touches
    this.text = "";
    this.starts = []; // token at which each step but the first begins
    this.closed = false;
  }

  get steps() { return 1 + this.starts.length; }

  /** Take the next token; returns {marker, held} of the first marker that it makes certain, or null. */
  push(id) {
    if (this.closed) return null;
    const before = this.tokens.at(-1)?.pending ?? new Uint8Array();
    const [chars, pending] = decodePartial(joined([before, this.tokenizer.pieces[id]]));
    const start = this.text.length;
    const end = start + chars.length + (pending.length ? 1 : 0);
    this.tokens.push({ start, end, chars, shared: before.length > 0, pending });
    this.text += chars;
    const close = this.text.indexOf(this.close);
    this.closed = close >= 0;
    const thoughts = this.closed ? this.text.slice(0, close + this.close.length) : this.text;
    const fresh = [...thoughts.matchAll(this.certain)].slice(this.starts.length);
    if (!fresh.length) return null;
    this.starts.push(...fresh.map((match) => this.tokens.length - this.#held(match.index)));
    const hit = { marker: fresh[0][0], held: this.#held(fresh[0].index) };
    return hit.held === 0 && this.closed ? null : hit;
  }

  /** Forget the last tokens, as if they had never been pushed. */
  drop(count) {
    if (!count) return;
    this.tokens.length -= count;
    this.text = this.text.slice(0, this.tokens.reduce((size, token) => size + token.chars.length, 0));
    this.starts = this.starts.filter((start) => start < this.tokens.length);
    this.closed = this.text.includes(this.close);
  }

  /** How many tokens go with a marker at this character: content before it in the same token stays. */
  #held(start) {
    const place = this.tokens.findIndex((token) => token.end > start);
    const token = this.tokens[place];
    const stays = token.start < start && (token.shared || WORD.test(token.chars.slice(0, start - token.start)));
    return this.tokens.length - place - (stays ? 1 : 0);
  }
}

const BRACES = /\\boxed\s*\{|\\[^]|[{}]/gu; // an escaped brace is a character of the answer

/** Which pieces spell the boxed answer and its closing brace; null if the box is never closed. */
export function boxSpan(pieces, opened) {
  const text = pieces.join(""), ends = [];
  pieces.reduce((size, piece) => (ends.push(size + piece.length), size + piece.length), 0);
  const place = (character) => ends.findIndex((end) => character < end);
  let depth = opened ? 1 : 0, start = 0;
  for (const { 0: brace, index } of text.matchAll(BRACES)) {
    if (brace.endsWith("{") && brace !== "\\{") {
      if (depth === 0) {
        const end = index + brace.length;
        start = place(end - 1);
        if (!pieces[start].slice(end - (ends[start] - pieces[start].length)).trim()) start += 1;
      }
      depth += 1;
    } else if (brace === "}" && depth > 0 && --depth === 0) {
      return [start, place(index) + 1];
    }
  }
  return null;
}

/** How many leading pieces hold nothing of the answer: white space, and the brace that opens the box. */
export function openingTokens(pieces, opened) {
  let text = "";
  const count = pieces.findIndex((piece) => ![""].concat(opened ? [] : "{").includes((text += piece).trim()));
  return count < 0 ? pieces.length : count;
}

const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
const RULES = {
  geometric: (p) => (Math.min(...p) === 0 ? 0 : Math.exp(sum(p.map(Math.log)) / p.length)),
  arithmetic: (p) => sum(p) / p.length,
  minimum: (p) => Math.min(...p),
  joint: (p) => p.reduce((product, number) => product * number, 1),
};

/** A trial answer while its greedy tokens arrive. */
class Trial {
  constructor(tokenizer, settings, place) {
    Object.assign(this, place, { tokenizer, settings, ids: [], probabilities: [], closed: false });
  }

  get text() { return this.tokenizer.decode(this.ids); }

  /** Returns whether this token is the last one. */
  observe(id, probability, isEnd) {
    this.ids.push(id);
    this.probabilities.push(probability);
    const text = this.text, { require_close, close, box_opened, probe_max_tokens } = this.settings;
    this.closed = require_close ? text.includes(close) : boxSpan([...text], box_opened) !== null;
    return this.closed || isEnd || this.ids.length >= probe_max_tokens;
  }

  get confidence() {
    const { confidence_rule, skip_first, box_opened } = this.settings;
    const pieces = this.ids.map((id) => this.tokenizer.decode([id]));
    const counted = this.probabilities.slice(Math.min(skip_first, openingTokens(pieces, box_opened)));
    return this.closed && counted.length ? RULES[confidence_rule](counted) : 0;
  }

  get answer() {
    const characters = [...this.text], span = boxSpan(characters, this.settings.box_opened);
    return span && characters.slice(span[0], span[1] - 1).join("");
  }

  verdict() {
    const { exit_threshold, near_budget } = this.settings;
    if (this.confidence > exit_threshold) return "early";
    return this.position >= near_budget ? "near_budget" : null;
  }
}

/** One completion: says what to do with the logits it has, and which token to feed next. Probes and budgets are in
 * `settings`; without `probing` it decodes plainly. */
export class Machine {
  constructor(tokenizer, { settings, limit, endIds, probing = true }) {
    Object.assign(this, { tokenizer, settings, limit, probing, endIds: new Set(endIds) });
    this.thinkBudget = probing ? settings.think_budget : limit;
    this.scanner = new Scanner(tokenizer, settings);
    this.phase = "think";
    this.kept = [];
    this.forced = []; // of each kept token, whether it was put there instead of chosen
    this.fed = 0;
    this.dropped = [];
    this.probes = [];
    this.trial = null;
    this.close = null;
    this.probeTokens = 0;
    this.replayedTokens = 0;
  }

  get done() { return this.phase === "done"; }
  get choice() {
    if (this.done || this.fed < this.#contextLength) return null;
    return this.phase === "probe" ? "greedy" : "sample";
  }
  get position() { return this.kept.length + this.dropped.length; }
  get passes() { return this.kept.length + this.probeTokens + this.replayedTokens; }
  get text() { return this.tokenizer.decode(this.kept); }
  get #contextLength() {
    if (this.phase !== "probe") return this.kept.length;
    return this.base + this.settings.probe_prompt_ids.length + this.trial.ids.length;
  }

  observe(token, probability) {
    if (this.phase === "probe") {
      if (this.trial.observe(token, probability, this.endIds.has(token))) this.#endProbe();
      return;
    }
    this.kept.push(token);
    this.forced.push(false);
    const hit = this.phase === "think" ? this.scanner.push(token) : null;
    if (hit && this.#mayProbe(hit)) this.#startProbe(hit);
    else this.#settle();
  }

  /** The next token to feed and its place in the completion; a smaller place than before is a step back. */
  feed() {
    const place = this.fed++;
    if (this.phase === "probe" && place >= this.base) {
      return [[...this.settings.probe_prompt_ids, ...this.trial.ids][place - this.base], place];
    }
    if (this.phase === "close" && this.fed === this.kept.length) this.phase = "answer";
    return [this.kept[place], place];
  }

  #settle() {
    if (this.endIds.has(this.kept.at(-1)) || this.kept.length >= this.limit) {
      if (this.phase === "think" && this.scanner.closed) this.close = "natural";
      this.phase = "done";
    } else if (this.phase === "think" && this.scanner.closed) {
      this.close = "natural";
      this.phase = "answer";
    } else if (this.phase === "think" && this.kept.length >= this.thinkBudget) {
      this.#forceClose("budget");
    }
  }

  #forceClose(reason) {
    this.close = reason;
    this.phase = "close";
    const afterNewline = this.kept.length > 0 && this.tokenizer.decode(this.kept.slice(-1)).endsWith("\n");
    this.#force(afterNewline ? this.settings.close_ids_after_newline : this.settings.close_ids);
  }

  #force(ids) {
    ids = ids.slice(0, this.limit - this.kept.length);
    this.kept.push(...ids);
    this.forced.push(...ids.map(() => true));
    if (this.kept.length >= this.limit) this.phase = "done";
  }

  #mayProbe({ held }) {
    const length = this.kept.length;
    const allowed = this.probing && this.probes.length < this.settings.max_probes;
    return allowed && length < this.limit && length - held < this.thinkBudget;
  }

  #startProbe({ marker, held }) {
    this.phase = "probe";
    this.base = this.kept.length - held;
    this.fed = Math.min(this.fed, this.base);
    const place = { position: this.base, step: this.scanner.steps - 1, marker };
    this.trial = new Trial(this.tokenizer, this.settings, place);
  }

  #endProbe() {
    const trial = this.trial, reason = trial.verdict();
    this.trial = null;
    this.probes.push({
      position: trial.position, step: trial.step, marker: trial.marker, ids: trial.ids, text: trial.text,
      answer: trial.answer, confidence: trial.confidence, accepted: reason !== null, reason,
    });
    if (reason === null) this.#putBack();
    else if (this.settings.keep_probe && trial.closed) this.#keepProbe(reason, trial);
    else this.#exit(reason);
  }

  #putBack() {
    this.probeTokens += this.fed - this.base;
    this.phase = "think";
    const newest = this.kept.length - 1;
    this.#settle();
    if (this.done) return;
    this.replayedTokens += Math.abs(newest - this.base);
    this.fed = Math.min(this.base, newest);
  }

  #exit(reason) {
    this.probeTokens += this.fed - this.base;
    this.#dropHeld();
    this.fed = this.base;
    this.#forceClose(reason);
  }

  #keepProbe(reason, trial) {
    this.#dropHeld();
    this.close = reason;
    this.phase = "close";
    this.#force([...this.settings.probe_prompt_ids, ...trial.ids]);
    this.probeTokens += Math.max(0, this.fed - this.kept.length);
  }

  #dropHeld() {
    const held = this.kept.length - this.base;
    this.replayedTokens += Math.max(0, held - 1);
    this.dropped.push(...this.kept.slice(this.base));
    this.scanner.drop(held);
    this.kept.length = this.forced.length = this.base;
  }
}

/** The likeliest token, and its probability at temperature 1. */
export function likeliest(logits) {
  let best = 0, total = 0;
  for (let id = 1; id < logits.length; id++) if (logits[id] > logits[best]) best = id;
  for (const logit of logits) total += Math.exp(logit - logits[best]);
  return [best, 1 / total];
}

/** Draw a token by a number in [0, 1): the inverse of the cumulative distribution, in the order of the vocabulary. */
export function draw(logits, temperature, number) {
  const top = logits[likeliest(logits)[0]];
  const weights = Float64Array.from(logits, (logit) => Math.exp((logit - top) / temperature));
  let rest = number * weights.reduce((total, weight) => total + weight);
  return Math.max(0, weights.findIndex((weight) => (rest -= weight) < 0));
}

function mixed(bits) { // the finaliser of MurmurHash3
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

/** The number in [0, 1) that draws the token at a position: a hash without a state, so probes use up no numbers. */
export const uniform = (seed, position) => mixed(mixed(seed + 0x9e3779b9) + Math.imul(position + 1, 0x9e3779b9)) / 2 ** 32;

/** Drives a machine with a model. */
export class Rollout {
  constructor(net, promptIds, machine, { temperature = 0, seed = 0 } = {}) {
    Object.assign(this, { net, machine, temperature, seed, promptLength: promptIds.length });
    this.logits = net.start(promptIds);
  }

  /** Feed what is known until a token can be chosen, and choose it. */
  advance() {
    const { machine, net } = this;
    while (!machine.done && machine.choice === null) {
      const [token, place] = machine.feed();
      net.cut(this.promptLength + place);
      this.logits = net.step(token);
    }
    if (machine.done) return;
    const [best, probability] = likeliest(this.logits);
    const sampled = machine.choice === "sample" && this.temperature > 0;
    machine.observe(sampled ? draw(this.logits, this.temperature, uniform(this.seed, machine.position)) : best, probability);
  }

  /** Go on to the end. */
  finish() {
    while (!this.machine.done) this.advance();
    return this.machine;
  }
}
