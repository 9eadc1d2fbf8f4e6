// room.js - making room in the context: what of a long conversation the model is asked, where the visitor wants it to go on.

const TURN = 8; // tokens that a template puts around a message, about
const LEAST = 0.25; // of the context: free for the answer
const KEPT = 0.5; // of the context, once something must go: so the next questions find the same beginning, which is not read again

/**
 * Leaves the oldest turns out, so that the rest and an answer of `answer` tokens fit.
 * @param {number} before how many messages were left out for the answer before
 * @returns {Promise<{messages: object[], leftOut: number | undefined}>} leftOut: how many messages, if any
 */
export async function fitted(model, messages, answer, before = 0) {
  const { contextSize } = model.info;
  const sizes = await Promise.all(messages.map(async ({ content }) => (await model.tokenize(content)).length + TURN));
  const room = contextSize - Math.min(answer, Math.ceil(LEAST * contextSize));
  const first = messages[0]?.role === 'system' ? 1 : 0;
  const last = messages.findLastIndex(({ role }) => role === 'user'); // it stays, with what has been answered to it
  const total = (from) => sizes.reduce((sum, size, i) => sum + (i < first || i >= from ? size : 0), 0);
  let from = Math.min(first + before, Math.max(first, last));
  if (total(from) > room) while (from < last && (total(from) > KEPT * contextSize || messages[from].role !== 'user')) from++;
  return { messages: [...messages.slice(0, first), ...messages.slice(from)], leftOut: from - first || undefined };
}
