// chat.js - messages -> prompt, by the chat template that the model file carries.

import { fail } from './errors.js';

const ROLES = ['system', 'user', 'assistant', 'tool'];

function checkMessages(messages) {
  if (!Array.isArray(messages) || messages.length === 0) fail('argument', 'messages must be an array of at least one message');
  messages.forEach((message, i) => {
    if (!ROLES.includes(message?.role)) fail('argument', `messages[${i}].role must be one of ${ROLES.join(', ')}`);
    if (typeof message.content !== 'string') fail('argument', `messages[${i}].content must be a string`);
  });
}

/** The template engine. load() asks for it too: a page that has lost its network by the first chat() has it already. */
export async function loadTemplates() {
  try {
    return await import('@huggingface/jinja');
  } catch (error) {
    return fail('network', `the template engine @huggingface/jinja did not load: ${error.message}`, { cause: error });
  }
}

/**
 * @param {{source: string | null, bos: string, eos: string}} template of the file
 * @param {{role: string, content: string}[]} messages
 * @param {{continueLast?: boolean}} [options] the last message is the beginning of the answer
 * @returns {Promise<string>} the prompt; it names its control tokens, BOS included
 */
export async function renderChat(template, messages, { continueLast = false } = {}) {
  checkMessages(messages);
  const begun = continueLast ? messages.at(-1) : null;
  if (begun && begun.role !== 'assistant') fail('argument', 'continueLast: the last message must be of the assistant');
  if (!template.source) fail('unsupported', 'the model file has no chat template: use generate(), or give options.template');
  const { Template } = await loadTemplates();
  try {
    const prompt = new Template(template.source).render({
      messages: begun ? messages.slice(0, -1) : messages,
      bos_token: template.bos,
      eos_token: template.eos,
      add_generation_prompt: true,
    });
    return begun ? prompt + begun.content : prompt;
  } catch (error) {
    return fail('argument', `the chat template refuses these messages: ${error.message}`, { cause: error });
  }
}
