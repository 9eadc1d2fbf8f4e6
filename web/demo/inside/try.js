// try.js - the panel without the chat: one model (?model=ADDRESS, ?tier=N), one prompt, one answer.

import { load } from '../../index.js';
import { MODEL_URL } from '../config.js';
import { $ } from '../dom.js';
import { createInside, renderProbabilities } from './index.js';

const query = new URLSearchParams(location.search);
const source = query.get('model') ?? MODEL_URL;
let model = null;

const panel = createInside({ root: $('panel'), getModel: () => model, getSource: () => source, getPrompt: () => $('prompt').value });
panel.show();
model = await load(source, { tier: query.has('tier') ? Number(query.get('tier')) : undefined });
panel.modelChanged(model);
document.body.dataset.state = 'ready';

$('ask').addEventListener('submit', async (event) => {
  event.preventDefault();
  document.body.dataset.state = 'busy';
  panel.answerStarted({ tier: model.info.tier });
  const tokens = [];
  const generation = model.generate($('prompt').value, { seed: 1, maxTokens: 120, logprobs: 10, onPrefill: (progress) => panel.prefill(progress) });
  for await (const { logprobs } of generation) {
    if (!logprobs) continue;
    const token = { ...logprobs, tier: model.info.tier, time: performance.now() };
    tokens.push(token);
    panel.token(token);
  }
  panel.answerEnded((await generation.result).stats);
  renderProbabilities($('answer'), tokens);
  document.body.dataset.state = 'ready';
});
