// bitpair.js - this package as it is published. spec: {model: address, threads, context, tier?}

import { load } from '/package/index.js';

export async function open({ model: source, threads, context, tier }) {
  const model = await load(source, { threads, contextSize: context, tier });
  return {
    threads: model.info.threads,
    async generate({ text }, count, onToken) {
      const answer = model.generate(text, { greedy: true, maxTokens: count, ignoreEnd: true });
      for await (const { id } of answer) if (id !== null) onToken();
    },
    close: () => model.dispose(),
  };
}
