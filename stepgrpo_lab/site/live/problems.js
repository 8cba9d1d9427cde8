// The problems that the embedded models know: read from what is typed, and solved exactly.

const CHAIN = /^Start at (\d):((?: (?:[-+*]\d)+)+)\. Which digit, mod 10\?$/;
const SEARCH = /^Which gives 0, mod 10: ([A-J] \d(?:[-+*]\d)+(?:, [A-J] \d(?:[-+*]\d)+)*)\?$/;
const OPERATIONS = /([-+*])(\d)/g;

function workOut(start, operations) {
  const apply = (value, [, sign, operand]) =>
    sign === "+" ? value + Number(operand) : sign === "-" ? value - Number(operand) + 10 : value * Number(operand);
  return operations.reduce((value, operation) => apply(value, operation) % 10, Number(start));
}

/** The problem in a text: {family, answer, size, operations}; null if it is none, or has not exactly one answer. */
export function readProblem(text) {
  const chain = CHAIN.exec(text.trim());
  if (chain) {
    const operations = [...chain[2].matchAll(OPERATIONS)];
    const answer = String(workOut(chain[1], operations));
    return { family: "chain", answer, size: operations.length, operations: operations.length };
  }
  const search = SEARCH.exec(text.trim());
  if (!search) return null;
  const candidates = search[1].split(", ").map((each) => ({
    name: each[0], operations: [...each.slice(3).matchAll(OPERATIONS)], start: each[2],
  }));
  const inOrder = candidates.every(({ name }, place) => name === "ABCDEFGHIJ"[place]);
  const zero = candidates.filter(({ start, operations }) => workOut(start, operations) === 0);
  if (!inOrder || zero.length !== 1) return null;
  const operations = Math.max(...candidates.map((each) => each.operations.length));
  return { family: "search", answer: zero[0].name, size: candidates.length, operations };
}

/** What a step of the thoughts arrives at: a digit, a candidate's letter, or null if it ends no derivation. */
export function derived(step, problem) {
  if (!problem) return null;
  if (problem.family === "search") return /([A-J]) [-+*=\d ]+ yes\s*$/.exec(step)?.[1] ?? null;
  const equations = [...step.matchAll(/\d((?:[-+*]\d)+)=(\d)/g)];
  const taken = equations.reduce((count, [, operations]) => count + operations.length / 2, 0);
  return taken === problem.size ? equations.at(-1)[2] : null;
}

/** The boxed answer after the thoughts; null without one. */
export function boxedAnswer(text, close) {
  const boxes = text.includes(close) ? [...text.split(close).slice(1).join(close).matchAll(/\\boxed\s*\{([^{}]*)\}/g)] : [];
  return boxes.map((box) => box[1].trim()).filter(Boolean).at(-1) ?? null;
}
