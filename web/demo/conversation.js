// conversation.js - a conversation is a tree: an edited question or a second answer is a new branch, and nothing is lost.
// One path through it is shown.
//
//   {id, title, named: was the title given by hand?, created, updated, messages: [message], chosen: {parent or 'root': message}}
//   message: {id, parent: id or null, role: 'user' | 'assistant', text, time, state?, ...}
//
// Of an answer: state 'writing' (or it was interrupted), 'done', 'failed'; json: is it JSON?; model, tier, tiers, stats,
// finishReason, context: tokens at its end, problem: why it failed.

const TITLE_LENGTH = 60;

/** Not randomUUID(), which pages without https do not have. */
export const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

export function newConversation(now = Date.now()) {
  return { id: newId(), title: 'New chat', named: false, created: now, updated: now, messages: [], chosen: {} };
}

const key = (parent) => parent ?? 'root';

/** All messages with the same parent, in the order they were made. */
export const siblingsOf = (conversation, message) => conversation.messages.filter(({ parent }) => parent === message.parent);

/** The messages that are shown, the first one first. */
export function pathOf(conversation) {
  const children = new Map();
  for (const message of conversation.messages) {
    const list = children.get(message.parent) ?? children.set(message.parent, []).get(message.parent);
    list.push(message);
  }
  const path = [];
  for (let list = children.get(null); list; list = children.get(path.at(-1).id)) {
    const chosen = conversation.chosen[key(list[0].parent)];
    path.push(list.find(({ id }) => id === chosen) ?? list.at(-1));
  }
  return path;
}

/** The path from the first message to this one. */
export function pathTo(conversation, message) {
  const byId = new Map(conversation.messages.map((each) => [each.id, each]));
  const path = [];
  for (let at = message; at; at = byId.get(at.parent)) path.unshift(at);
  return path;
}

export function chooseMessage(conversation, message) {
  conversation.chosen[key(message.parent)] = message.id;
}

/** Adds a message below `parent` (null: the first) and shows it. */
export function addMessage(conversation, parent, fields, now = Date.now()) {
  const message = { id: newId(), parent: parent?.id ?? null, text: '', time: now, ...fields };
  conversation.messages.push(message);
  chooseMessage(conversation, message);
  conversation.updated = now;
  if (message.role === 'user' && message.parent === null && !conversation.named) conversation.title = titleOf(message.text);
  return message;
}

export function titleOf(text) {
  const [line] = text.trim().split('\n');
  const letters = [...line];
  return letters.length > TITLE_LENGTH ? `${letters.slice(0, TITLE_LENGTH - 1).join('').trimEnd()}\u2026` : line || 'New chat';
}

/** What a model is asked, to make or continue an answer. Questions that got no answer are left out. */
export function promptOf(conversation, answer, system) {
  const path = pathTo(conversation, answer);
  const empty = (message) => message?.role === 'assistant' && message.text === '';
  const messages = path.filter((message, i) => !empty(message) && !(empty(path[i + 1]) && path[i + 1] !== answer))
    .map(({ role, text }) => ({ role, content: text }));
  return system ? [{ role: 'system', content: system }, ...messages] : messages;
}

/** Makes a conversation what was found of it elsewhere; messages that are here already stay the same objects. */
export function takeOver(conversation, found) {
  const here = new Map(conversation.messages.map((each) => [each.id, each]));
  const messages = found.messages.map((message) => {
    const old = here.get(message.id);
    if (!old) return message;
    for (const name of Object.keys(old)) if (!(name in message)) delete old[name];
    return Object.assign(old, message);
  });
  Object.assign(conversation, found, { messages });
}

/** Does a conversation have this text somewhere? */
export function matches(conversation, search) {
  const wanted = search.trim().toLocaleLowerCase();
  return wanted === '' || [conversation.title, ...conversation.messages.map(({ text }) => text)]
    .some((text) => text.toLocaleLowerCase().includes(wanted));
}
