// A program that uses all of the package: tests have the compiler check it, nobody runs it.

import { BitpairError, cache, estimateMemory, load, type CachedModel, type Chunk, type GenerateResult, type Model } from 'bitpair';

const model: Model = await load(new URL('https://example.org/m.gguf'), {
  threads: 2,
  contextSize: 1024,
  signal: new AbortController().signal,
  onProgress: ({ phase, loaded, total }) => { const share: number = loaded / (total ?? 1); void [phase, share]; },
});
await load(new File([], 'm.gguf'), { tier: 1, retries: 2, cache: 'models', integrity: 'sha256-' });
await load(new File([], 'm.gguf').stream(), { cache: false });
const memory: number = (await estimateMemory('m.gguf', { contextSize: 512, tier: 2 })).total;
const kept: CachedModel[] = await cache.list();
void [memory, kept[0]?.lastUsed?.getTime(), await cache.delete(new URL('https://example.org/m.gguf')), await cache.size('models')];
await cache.clear();
await load(new Uint8Array(3));
await load('m.gguf', { workerUrl: '/assets/worker.js', wasm: (file) => `/assets/${file}` });
await load('m.gguf', { wasm: new Uint8Array(8), threads: 1 });
await load(new Request('https://example.org/m.gguf'));
for await (const chunk of model.chat([{ role: 'user', content: 'Hi' }], { greedy: true, stop: ['a'], seed: 3n })) {
  const text: string = chunk.text;
  if (chunk.finishReason) { const rate: number | null | undefined = chunk.stats?.decodeTokensPerSecond; void rate; }
  else { const id: number = chunk.id; void id; }
  void text;
}
const generation = model.generate([1, 2, 3], { bos: false, onPrefill: ({ done, total }) => void (done / total) });
const first: IteratorResult<Chunk, GenerateResult> = await generation.next();
const { text, finishReason, stats } = await generation.result;
model.generate('As JSON: ', { jsonSchema: { type: 'object', properties: { a: { type: 'string' } } } });
model.chat([{ role: 'user', content: 'Yes or no?' }], { grammar: 'root ::= "yes" | "no"' });
model.generate('As JSON: ', { json: true });
const { signal } = new AbortController();
const [vector]: Float32Array[] = await model.embed(['a'], { pooling: 'last', signal });
void [vector, (await model.score('a', { signal })).logprob, (await model.logits([1], { bos: false, signal })).length];
const ids: number[] = await model.tokenize(text, { special: true });
void [first, finishReason, stats?.seed, await model.detokenize(ids), model.info.threadsReason?.length];
const [layer] = await model.layers();
if (layer?.stages[0]?.loaded) {
  const { rows, columns, bits } = await model.signs(layer.name, 0, 'A');
  const { a, c, b } = await model.scales(layer.name, 0);
  const sizes: number[] = [rows, columns, bits.length, a.length, c.length, b.length, (await model.fileTiers())[0]?.bytes ?? 0];
  void sizes;
}
await generation[Symbol.asyncDispose]();
await model[Symbol.asyncDispose]();
try { await model.dispose(); } catch (error) { if (error instanceof BitpairError && error.code === 'http') void error.status; }
// @ts-expect-error a role that is none
model.chat([{ role: 'boss', content: 'Hi' }]);
// @ts-expect-error info is read-only
model.info.threads = 3;
// @ts-expect-error an option that is none
model.generate('a', { maxToken: 3 });
