// chat.js - messages -> prompt, by the chat template that the model file carries.

import { BitpairError, fail } from './errors.js';
import { chooseGrammar, chooseToolGrammar } from './grammar.js';
import { renderTemplate } from './template.js';

export { loadTemplates } from './template.js';

const ROLES = ['system', 'user', 'assistant', 'tool'];

function checkMessages(messages) {
  if (!Array.isArray(messages) || messages.length === 0) fail('argument', 'messages must be an array of at least one message');
  messages.forEach((message, i) => {
    if (!ROLES.includes(message?.role)) fail('argument', `messages[${i}].role must be one of ${ROLES.join(', ')}`);
    const { content, toolCalls } = message;
    if (toolCalls !== undefined && !(Array.isArray(toolCalls) && message.role === 'assistant' && toolCalls.every((call) => typeof call?.name === 'string')))
      fail('argument', `messages[${i}].toolCalls must be an array of calls, of an assistant`);
    if (typeof content !== 'string' && !(toolCalls?.length > 0 && (content === undefined || content === null)))
      fail('argument', `messages[${i}].content must be a string`);
  });
}

/** What templates know of a message. */
function plain({ role, content, toolCalls, toolCallId, name }) {
  const message = { role, content: content ?? '' };
  if (toolCalls?.length > 0)
    message.tool_calls = toolCalls.map((call) => ({ id: call.id, type: 'function', function: { name: call.name, arguments: call.arguments ?? {} } }));
  if (toolCallId !== undefined) message.tool_call_id = toolCallId;
  if (name !== undefined) message.name = name;
  return message;
}

/**
 * @param {{source: string | null, bos: string, eos: string}} template of the file
 * @param {object[]} messages ChatMessages of index.d.ts
 * @param {object} options ChatOptions of index.d.ts
 * @returns {Promise<{prompt: string, grammar: string | null, reader: Function | null}>} the prompt names its control tokens, BOS included;
 *   grammar of the answer; reader: makes what reads tool calls from it
 */
export async function renderChat(template, messages, options) {
  checkMessages(messages);
  const begun = options.continueLast ? messages.at(-1) : null;
  if (begun && begun.role !== 'assistant') fail('argument', 'continueLast: the last message must be of the assistant');
  // What follows a call is the tool's answer; the text alone would lose the call.
  if (begun?.toolCalls?.length > 0) fail('argument', 'continueLast: the last message has toolCalls, it cannot be gone on with');
  if (!template.source) fail('unsupported', 'the model file has no chat template: use generate(), or give options.template');
  let grammar = await chooseGrammar(options);
  let spoken = (begun ? messages.slice(0, -1) : messages).map(plain);
  let variables = {};
  let reader = null;
  if (options.tools !== undefined || options.toolChoice !== undefined) {
    // Most pages never need it.
    const { useTools } = await import('./tools.js').catch((error) => fail('network', `tools.js did not load: ${error.message}`, { cause: error }));
    const use = await useTools(template.source, spoken, options, chooseToolGrammar);
    if (use.grammar && grammar) fail('argument', 'give toolChoice or a grammar');
    ({ messages: spoken, variables, reader } = use);
    grammar ??= use.grammar;
  } else if (spoken.some((message) => message.tool_calls)) {
    const { spellCalls } = await import('./tools.js');
    spoken = spellCalls(template.source, spoken);
  }
  const prompt = await render(template, { messages: spoken, ...variables });
  return { prompt: begun ? prompt + begun.content : prompt, grammar, reader };
}

async function render({ source, bos, eos }, variables) {
  try {
    return await renderTemplate(source, { ...variables, bos_token: bos, eos_token: eos, add_generation_prompt: true });
  } catch (error) {
    if (error instanceof BitpairError) throw error;
    return fail('argument', `the chat template refuses these messages: ${error.message}`, { cause: error });
  }
}
