// A Qwen3 in plain JavaScript: it reads safetensors, takes one token at a time, and can forget the last ones.

/** The tensors of a safetensors file by name, as Float32Array. 16-bit floats become 32-bit ones. */
export function readSafetensors(buffer) {
  const size = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
  const tensors = {};
  for (const [name, { dtype, data_offsets: ends }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = buffer.slice(8 + size + ends[0], 8 + size + ends[1]);
    if (dtype === "F16") tensors[name] = fromHalves(new Uint16Array(bytes));
    else if (dtype === "F32") tensors[name] = new Float32Array(bytes);
    else throw new Error(`${name} is ${dtype}: this page reads F16 and F32`);
  }
  return tensors;
}

function fromHalves(halves) {
  const floats = new Float32Array(halves.length);
  const powers = Float64Array.from({ length: 32 }, (_, exponent) => 2 ** (exponent - 25));
  for (let i = 0; i < halves.length; i++) {
    const half = halves[i], exponent = (half >> 10) & 31, fraction = half & 1023;
    const size = exponent ? (fraction + 1024) * powers[exponent] : fraction * powers[1];
    floats[i] = half & 0x8000 ? -size : size;
  }
  return floats;
}

/** y = W x, with W in rows. */
function times(W, x, y) {
  const columns = x.length;
  for (let row = 0, at = 0; row < y.length; row++) {
    let a = 0, b = 0, c = 0, d = 0; // four sums that do not wait for one another
    for (let j = 0; j < columns; j += 4, at += 4) {
      a += W[at] * x[j];
      b += W[at + 1] * x[j + 1];
      c += W[at + 2] * x[j + 2];
      d += W[at + 3] * x[j + 3];
    }
    y[row] = a + b + (c + d);
  }
  return y;
}

/** RMSNorm of `size` numbers of x from `from` on, into y at the same place. */
function norm(x, gain, epsilon, y, from = 0, size = x.length) {
  let sum = 0;
  for (let i = 0; i < size; i++) sum += x[from + i] * x[from + i];
  const scale = 1 / Math.sqrt(sum / size + epsilon);
  for (let i = 0; i < size; i++) y[from + i] = x[from + i] * scale * gain[i];
  return y;
}

/** A model with its cache; several may share their tensors. */
export class Net {
  constructor(tensors, config) {
    const { hidden_size, head_dim, num_attention_heads, num_key_value_heads, intermediate_size, vocab_size } = config;
    const places = config.max_position_embeddings;
    this.config = config;
    this.embedding = tensors["model.embed_tokens.weight"];
    this.head = tensors["lm_head.weight"] ?? this.embedding;
    this.lastNorm = tensors["model.norm.weight"];
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, layer) => {
      const weight = (name) => tensors[`model.layers.${layer}.${name}.weight`];
      return {
        before: weight("input_layernorm"), after: weight("post_attention_layernorm"),
        q: weight("self_attn.q_proj"), k: weight("self_attn.k_proj"), v: weight("self_attn.v_proj"),
        o: weight("self_attn.o_proj"), qNorm: weight("self_attn.q_norm"), kNorm: weight("self_attn.k_norm"),
        gate: weight("mlp.gate_proj"), up: weight("mlp.up_proj"), down: weight("mlp.down_proj"),
        keys: new Float32Array(places * num_key_value_heads * head_dim),
        values: new Float32Array(places * num_key_value_heads * head_dim),
      };
    });
    const floats = (size) => new Float32Array(size);
    this.x = floats(hidden_size); this.normed = floats(hidden_size); this.added = floats(hidden_size);
    this.q = floats(num_attention_heads * head_dim); this.mixed = floats(num_attention_heads * head_dim);
    this.gate = floats(intermediate_size); this.up = floats(intermediate_size);
    this.scores = floats(places); this.logits = floats(vocab_size);
    this.frequencies = Array.from({ length: head_dim / 2 }, (_, i) =>
      Math.fround(1 / config.rope_parameters.rope_theta ** ((2 * i) / head_dim)));
    this.length = 0;
  }

  /** Forget all tokens from place n on: this is all that backtracking takes. */
  cut(n) { this.length = Math.min(this.length, n); }

  /** Begin with a prompt; returns the logits after it. A prompt that was the last one too is still in the cache. */
  start(ids) {
    if (String(ids) !== this.prompt) {
      this.length = 0;
      ids.forEach((id, place) => this.step(id, place + 1 === ids.length));
      Object.assign(this, { prompt: String(ids), afterPrompt: this.logits.slice() });
    }
    this.cut(ids.length);
    return this.afterPrompt;
  }

  /** Take the next token; returns the logits of the one after it, in an array that the next step overwrites. */
  step(token, wantLogits = true) {
    const { x, config } = this, size = config.hidden_size, epsilon = config.rms_norm_eps;
    if (this.length >= config.max_position_embeddings) throw new Error("the model has no further position");
    x.set(this.embedding.subarray(token * size, (token + 1) * size));
    for (const layer of this.layers) {
      this.#attend(layer, norm(x, layer.before, epsilon, this.normed));
      this.#transform(layer, norm(x, layer.after, epsilon, this.normed));
    }
    this.length += 1;
    return wantLogits ? times(this.head, norm(x, this.lastNorm, epsilon, this.normed), this.logits) : null;
  }

  /** Norm of each head, then rotation by its place. */
  #turn(vector, from, heads, gain) {
    const { head_dim, rms_norm_eps } = this.config, half = head_dim / 2;
    for (let head = 0; head < heads; head++) {
      const at = from + head * head_dim;
      norm(vector, gain, rms_norm_eps, vector, at, head_dim);
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(this.length * this.frequencies[i]), cos = Math.cos(angle), sin = Math.sin(angle);
        const first = vector[at + i], second = vector[at + half + i];
        vector[at + i] = first * cos - second * sin;
        vector[at + half + i] = second * cos + first * sin;
      }
    }
  }

  #attend(layer, input) {
    const { head_dim: size, num_attention_heads: heads, num_key_value_heads: shared } = this.config;
    const { q, mixed, scores, length } = this, { keys, values } = layer, width = shared * size, at = length * width;
    times(layer.q, input, q);
    times(layer.k, input, keys.subarray(at, at + width));
    times(layer.v, input, values.subarray(at, at + width));
    this.#turn(q, 0, heads, layer.qNorm);
    this.#turn(keys, at, shared, layer.kNorm);
    mixed.fill(0);
    for (let head = 0; head < heads; head++) { // grouped-query attention
      const own = head * size, group = Math.floor((head * shared) / heads) * size;
      let top = -Infinity, total = 0;
      for (let place = 0; place <= length; place++) {
        let score = 0;
        for (let i = 0; i < size; i++) score += q[own + i] * keys[place * width + group + i];
        scores[place] = score / Math.sqrt(size);
        if (scores[place] > top) top = scores[place];
      }
      for (let place = 0; place <= length; place++) total += scores[place] = Math.exp(scores[place] - top);
      for (let place = 0; place <= length; place++) {
        const share = scores[place] / total;
        for (let i = 0; i < size; i++) mixed[own + i] += share * values[place * width + group + i];
      }
    }
    this.#add(times(layer.o, mixed, this.added));
  }

  #transform(layer, input) { // SwiGLU
    const { gate, up } = this;
    times(layer.gate, input, gate);
    times(layer.up, input, up);
    for (let i = 0; i < gate.length; i++) gate[i] = (gate[i] / (1 + Math.exp(-gate[i]))) * up[i];
    this.#add(times(layer.down, gate, this.added));
  }

  #add(more) {
    for (let i = 0; i < more.length; i++) this.x[i] += more[i];
  }
}
