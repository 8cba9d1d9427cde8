// Byte-level BPE: text to token ids and back, from what `stepgrpo_lab.site.live` writes about a tokenizer.

const encoder = new TextEncoder();
const decode = (bytes, stream = false) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes, { stream });

/** The characters that bytes complete, and the bytes of an unfinished one at their end. */
export function decodePartial(bytes) {
  const text = decode(bytes, true);
  let end = bytes.length;
  while (decode(bytes.subarray(0, end)) !== text) end -= 1;
  return [text, bytes.subarray(end)];
}

export function joined(arrays) {
  const all = new Uint8Array(arrays.reduce((size, each) => size + each.length, 0));
  let at = 0;
  for (const each of arrays) { all.set(each, at); at += each.length; }
  return all;
}

export class Tokenizer {
  /** `pieces`: bytes of each id, in hexadecimal; `merges`: [left, right, whole], the first ones go first. */
  constructor({ pieces, merges, added, pattern }) {
    this.pieces = pieces.map((hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => parseInt(byte, 16)));
    this.merges = new Map(merges.map(([left, right, whole], rank) => [`${left} ${right}`, { rank, whole }]));
    this.added = new Map(Object.entries(added));
    const longestFirst = [...this.added.keys()].sort((a, b) => b.length - a.length);
    const escaped = longestFirst.map((text) => text.replace(/[^\w\s]/g, "\\$&"));
    this.addedPattern = escaped.length ? new RegExp(`(${escaped.join("|")})`) : null;
    this.pattern = new RegExp(pattern, "gu");
    const single = new Set(this.added.values());
    this.byteIds = [];
    this.pieces.forEach((piece, id) => { if (piece.length === 1 && !single.has(id)) this.byteIds[piece[0]] = id; });
  }

  encode(text) {
    const parts = this.addedPattern ? text.split(this.addedPattern) : [text];
    return parts.flatMap((part, place) => (place % 2 ? [this.added.get(part)] : this.#words(part).flatMap(this.#merge, this)));
  }

  decode(ids) { return decode(joined(ids.map((id) => this.pieces[id]))); }

  #words(text) {
    const words = [];
    let end = 0;
    for (const match of text.matchAll(this.pattern)) {
      if (match.index > end) words.push(text.slice(end, match.index));
      words.push(match[0]);
      end = match.index + match[0].length;
    }
    return end < text.length ? [...words, text.slice(end)] : words;
  }

  #merge(word) {
    const ids = Array.from(encoder.encode(word), (byte) => this.byteIds[byte]);
    for (;;) {
      let best = null;
      for (let place = 0; place + 1 < ids.length; place++) {
        const merge = this.merges.get(`${ids[place]} ${ids[place + 1]}`);
        if (merge && (!best || merge.rank < best.rank)) best = { ...merge, place };
      }
      if (!best) return ids;
      ids.splice(best.place, 2, best.whole);
    }
  }
}
