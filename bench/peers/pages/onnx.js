// onnx.js - onnxruntime-web on its WebAssembly back end, driven as transformers.js does it: the cache goes out of the run and into
// the next one, the file is kept in the Cache API. spec: {folder: of the package, model, threads}

const CACHE = 'onnx-models';

async function fetchModel(url) {
  const store = await caches.open(CACHE);
  const kept = await store.match(url);
  if (kept) return new Uint8Array(await kept.arrayBuffer());
  const response = await fetch(url);
  await store.put(url, response.clone());
  return new Uint8Array(await response.arrayBuffer());
}

class Decoder {
  constructor(ort, session) {
    Object.assign(this, { ort, session, past: null, length: 0 });
  }

  /** Forgets the context. */
  clear() {
    const { Tensor } = this.ort;
    const names = this.session.inputNames.filter((name) => name.startsWith('past_'));
    const shape = (name) => this.session.inputMetadata.find((input) => input.name === name).shape.map((d) => (typeof d === 'number' ? d : 0));
    this.past = Object.fromEntries(names.map((name) => [name, new Tensor('float32', new Float32Array(0), shape(name))]));
    this.length = 0;
  }

  /** Feeds ids; returns the most likely next one. */
  async feed(ids) {
    const { Tensor } = this.ort;
    const total = this.length + ids.length;
    const results = await this.session.run({
      ids: new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]),
      last: new Tensor('int32', Int32Array.of(total - 1), [1]),
      total: new Tensor('int32', Int32Array.of(total), [1]),
      ...this.past,
    });
    for (const name in this.past) this.past[name] = results[name.replace('past', 'present')];
    this.length = total;
    return argmax(results.logits.data);
  }
}

function argmax(values) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

export async function open({ folder, model, threads }) {
  const ort = await import(`${folder}dist/ort.wasm.min.mjs`);
  ort.env.wasm.numThreads = threads;
  ort.env.wasm.wasmPaths = new URL(`${folder}dist/`, location.href).href;
  const session = await ort.InferenceSession.create(await fetchModel(model), { executionProviders: ['wasm'], graphOptimizationLevel: 'all' });
  const decoder = new Decoder(ort, session);
  return {
    threads,
    async generate({ ids }, count, onToken) {
      decoder.clear();
      const answer = [];
      for (let next = ids; answer.length < count; next = answer.slice(-1)) {
        answer.push(await decoder.feed(next));
        onToken();
      }
      return answer;
    },
    close: () => session.release(),
  };
}
