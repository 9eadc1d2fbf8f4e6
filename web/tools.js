// tools.js - functions that a model may ask for: how it is told of them, and how its calls are found in what it says.
//
// Two notations. 'tagged' is that of Hermes and Qwen, and with a list between the tags that of SmolLM2:
//     <tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>
// 'bare' is that of Llama 3, whose whole answer is one call or several with semicolons between them:
//     {"name": "weather", "parameters": {"city": "Rome"}}

import { fail } from './errors.js';

const OPEN = '<tool_call>';
const CLOSE = '</tool_call>';

/** The words of SmolLM2's authors, for templates that know of no tools. */
const toldBySystem = (tools) => `You are an expert in composing functions. You are given a question and a set of possible functions. \
Based on the question, you will need to make one or more function/tool calls to achieve the purpose. \
If none of the functions can be used, point it out and refuse to answer. \
If the given question lacks the parameters required by the function, also point it out.

You have access to the following tools:
<tools>${JSON.stringify(tools)}</tools>

The output MUST strictly adhere to the following format, and NO other text MUST be included.
The example format is as follows. Please make sure the parameter type is correct. If no function call is needed, please make the tool calls an empty list '[]'.
<tool_call>[
{"name": "func_name1", "arguments": {"argument1": "value1", "argument2": "value2"}},
... (more tool calls as required)
]</tool_call>`;

const knowsTools = (source) => /\btools\b/.test(source);
const notationOf = (source) => (!source.includes(OPEN) && /"parameters"|python_tag/.test(source) ? 'bare' : 'tagged');

/**
 * @param {string} source the template
 * @param {object[]} messages as templates know them
 * @param {{tools?: object[], toolChoice?: string | {name: string}}} options
 * @param {Function} chooseToolGrammar of grammar.js: the page has it already
 * @returns {Promise<{messages: object[], variables: object, grammar: string | null, reader: Function | null}>}
 */
export async function useTools(source, messages, { tools = [], toolChoice = 'auto' }, chooseToolGrammar) {
  checkTools(tools, toolChoice);
  const spelled = spellCalls(source, messages);
  if (toolChoice === 'none' || tools.length === 0) return { messages: spelled, variables: {}, grammar: null, reader: null };
  const wanted = typeof toolChoice === 'object' ? tools.filter(({ name }) => name === toolChoice.name) : tools;
  const notation = notationOf(source);
  const grammar = toolChoice === 'auto' ? null : await callGrammar(wanted, notation, knowsTools(source), chooseToolGrammar);
  const known = new Set(wanted.map(({ name }) => name));
  let count = messages.reduce((sum, message) => sum + (message.tool_calls?.length ?? 0), 0);
  const newId = () => `call_${count++}`;
  const told = tools.map(({ name, description, parameters }) => ({ type: 'function', function: { name, description, parameters } }));
  const reader = () => (notation === 'bare' ? new BareReader(known, newId) : new TaggedReader(known, newId));
  if (knowsTools(source)) return { messages: spelled, variables: { tools: told }, grammar, reader };
  return { messages: withSystem(spelled, toldBySystem(told.map((tool) => tool.function))), variables: {}, grammar, reader };
}

function checkTools(tools, choice) {
  if (!Array.isArray(tools)) fail('argument', 'tools must be an array');
  tools.forEach((tool, i) => {
    if (typeof tool?.name !== 'string' || tool.name === '') fail('argument', `tools[${i}].name must be a string`);
    if (tool.parameters !== undefined && (typeof tool.parameters !== 'object' || tool.parameters === null))
      fail('argument', `tools[${i}].parameters must be a JSON schema`);
  });
  const named = typeof choice === 'object' && choice !== null;
  if (!named && !['auto', 'none', 'required'].includes(choice))
    fail('argument', "toolChoice must be 'auto', 'none', 'required' or { name }");
  if (named && !tools.some(({ name }) => name === choice.name)) fail('argument', `toolChoice: there is no tool ${choice.name}`);
  if (choice === 'required' && tools.length === 0) fail('argument', 'toolChoice required: there are no tools');
}

function withSystem(messages, text) {
  const [first, ...rest] = messages;
  if (first.role !== 'system') return [{ role: 'system', content: text }, ...messages];
  return [{ ...first, content: `${text}\n\n${first.content}` }, ...rest];
}

/** Earlier calls as text, for templates that would drop them. */
export function spellCalls(source, messages) {
  if (source.includes('tool_calls')) return messages;
  return messages.map(({ tool_calls: calls, ...message }) => {
    if (!calls) return message;
    const list = calls.map((call) => ({ name: call.function.name, arguments: call.function.arguments }));
    return { ...message, content: `${message.content}${OPEN}${JSON.stringify(list)}${CLOSE}` };
  });
}

/** One call of one of the tools. */
async function callGrammar(tools, notation, known, chooseToolGrammar) {
  const rules = await chooseToolGrammar(tools, notation === 'bare' ? 'parameters' : 'arguments');
  if (notation === 'bare') return rules;
  const [before, after] = known ? [`${OPEN}\\n`, `\\n${CLOSE}`] : [`${OPEN}[`, `]${CLOSE}`];
  return `root ::= "${before}" tool-call "${after}"\n${rules.replace(/^root ::=/, 'tool-call ::=')}`;
}

/** The calls in JSON text: one, or a list of them; null where it is something else. */
function parseCalls(text, known, newId) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  const calls = [];
  for (const each of Array.isArray(value) ? value : [value]) {
    let given = each?.arguments ?? each?.parameters ?? {};
    if (typeof given === 'string') given = parseObject(given);
    if (!known.has(each?.name) || typeof given !== 'object' || given === null || Array.isArray(given)) return null;
    calls.push({ name: each.name, arguments: given });
  }
  return calls.map((call) => ({ id: newId(), ...call }));
}

function parseObject(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** Finds calls between tags. push(text, last) -> {text: what is none, calls: those that have ended}. Space around calls goes with them. */
export class TaggedReader {
  constructor(known, newId) {
    Object.assign(this, { known, newId, held: '', inside: false, after: false });
  }

  push(text, last) {
    this.held += text;
    const out = { text: '', calls: [] };
    while (this.inside ? this.close(out, last) : this.open(out, last));
    return out;
  }

  /** What comes before a call; true: a call begins. */
  open(out, last) {
    if (this.after) this.held = this.held.trimStart();
    const at = this.held.indexOf(OPEN);
    const end = at >= 0 ? this.held.slice(0, at).trimEnd().length : last ? this.held.length : certain(this.held);
    if (end > 0) this.after = false;
    out.text += this.held.slice(0, end);
    this.held = this.held.slice(at >= 0 ? at + OPEN.length : end);
    this.inside = at >= 0;
    return this.inside;
  }

  /** The call itself; true: it has ended. A model may forget the last tag. */
  close(out, last) {
    const at = this.held.indexOf(CLOSE);
    if (at < 0 && !last) return false;
    const body = at < 0 ? this.held : this.held.slice(0, at);
    const rest = at < 0 ? '' : this.held.slice(at + CLOSE.length);
    const calls = parseCalls(body, this.known, this.newId);
    if (calls) out.calls.push(...calls);
    else out.text += OPEN + this.held.slice(0, this.held.length - rest.length);
    this.held = rest;
    this.inside = false;
    this.after = calls !== null;
    return rest !== '';
  }
}

/** Length of what is no beginning of a call, nor space before one. */
function certain(text) {
  let end = text.length;
  for (let n = Math.min(OPEN.length - 1, end); n > 0; n--) if (text.endsWith(OPEN.slice(0, n))) end = Math.min(end, text.length - n);
  return text.slice(0, end).trimEnd().length;
}

/** Finds calls in an answer that is nothing else. */
export class BareReader {
  constructor(known, newId) {
    Object.assign(this, { known, newId, held: '', plain: false });
  }

  push(text, last) {
    this.held += text;
    const start = this.held.trimStart();
    this.plain ||= start !== '' && !start.startsWith('{');
    if (!this.plain && !last) return { text: '', calls: [] };
    const calls = this.plain ? null : this.calls();
    const out = { text: calls ? '' : this.held, calls: calls ?? [] };
    this.held = '';
    return out;
  }

  calls() {
    const list = this.held.trim().replace(/;$/, '').split(/(?<=\})\s*;\s*(?=\{)/);
    return parseCalls(list.length === 1 ? list[0] : `[${list.join(',')}]`, this.known, this.newId);
  }
}
