// wllama2.js - wllama 2.x: llama.cpp in WebAssembly. spec: {folder: of the package, model, threads, context}

const quiet = { debug() {}, log() {}, warn() {}, error: console.error };

export async function open({ folder, model, threads, context }) {
  const { Wllama } = await import(`${folder}esm/index.js`);
  const wllama = new Wllama({
    'single-thread/wllama.wasm': `${folder}esm/single-thread/wllama.wasm`,
    'multi-thread/wllama.wasm': `${folder}esm/multi-thread/wllama.wasm`,
  }, { logger: quiet, suppressNativeLog: true });
  await wllama.loadModelFromUrl(new URL(model, location.href).href, { n_ctx: context, n_threads: threads });
  const ends = [wllama.getEOS(), wllama.getEOT()].filter((token) => token >= 0);
  const sampling = { temp: 0, logit_bias: ends.map((token) => ({ token, bias: -1000 })) };
  return {
    threads: wllama.getNumThreads(),
    generate: ({ text }, count, onToken) => wllama.createCompletion(text, { nPredict: count, sampling, onNewToken: onToken }),
    close: () => wllama.exit(),
  };
}
