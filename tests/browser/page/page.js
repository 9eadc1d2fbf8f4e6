// page.js - the package, where scripts of a test find it, and what several of them need.

import * as bitpair from '/web/index.js';

Object.assign(globalThis, { bitpair, opens, codeOf, logitsHash });

/** Loads, answers, and lets go: {...info, text, phases: of the reports, retries}. */
async function opens(source, options = {}, prompt = 'Once upon a time') {
  const reports = [];
  const model = await bitpair.load(source, { ...options, onProgress: (report) => reports.push(report) });
  const text = await model.generate(prompt, { greedy: true, maxTokens: 12, ...options.generate }).text();
  await model.dispose();
  return { ...model.info, text, phases: [...new Set(reports.map(({ phase }) => phase))], retries: reports.at(-1).retries };
}

/** The code of the error that a promise ends with. */
function codeOf(promise) {
  return promise.then(() => 'none', (error) => error.code ?? String(error));
}

/**
 * SHA-256 of the float32 logits of every position, or of every `step`th and the last, which come in pieces of so many tokens; by the
 * plain binary or by the best. The same as tests/web/golden.test.js makes.
 */
async function logitsHash(source, ids, threads, step = 1, plain = false) {
  const wasm = plain ? (name) => (name.includes('relaxed') ? undefined : new URL(`/web/${name}`, location.href)) : undefined;
  const model = await bitpair.load(source, { threads, wasm });
  const rows = [];
  for (let n = step; n < ids.length + step; n += step) rows.push(await model.logits(ids.slice(0, n), { bos: false }));
  const { threads: used, isa } = model.info;
  await model.dispose();
  const digest = await crypto.subtle.digest('SHA-256', await new Blob(rows).arrayBuffer());
  return { used, isa, hash: Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('') };
}
