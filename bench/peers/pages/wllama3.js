// wllama3.js - wllama 3.x: llama.cpp in WebAssembly, spoken to like its server. spec: {folder: of the package, model, threads, context}

const quiet = { debug() {}, log() {}, warn() {}, error: console.error };

export async function open({ folder, model, threads, context }) {
  const { Wllama } = await import(`${folder}esm/index.js`);
  const wllama = new Wllama({ default: `${folder}esm/wasm/wllama.wasm` }, { logger: quiet, suppressNativeLog: true });
  wllama.setCompat(null); // nothing from other hosts
  await wllama.loadModelFromUrl(new URL(model, location.href).href, { n_ctx: context, n_threads: threads, n_gpu_layers: 0 });
  return {
    threads: wllama.getNumThreads(),
    async generate({ text }, count, onToken) {
      const options = { prompt: text, max_tokens: count, temperature: 0, ignore_eos: true, cache_prompt: false };
      let told = 0;
      const tell = () => {
        told++;
        onToken();
      };
      let last = null;
      await wllama.createCompletion({ ...options, stream: true, onData: (chunk) => {
        last = chunk;
        if (chunk.choices?.[0]?.finish_reason === null) tell();
      } });
      // Bytes that are no whole character come with a later token: those count too.
      while (told < (last.timings?.predicted_n ?? told)) tell();
    },
    close: () => wllama.exit(),
  };
}
