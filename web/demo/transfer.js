// transfer.js - conversations as a JSON file, out and in. What comes in is not trusted: every field is checked, unknown ones are
// left out, and a conversation that is here already gets a new id when the two differ.

import { newId } from './conversation.js';

export const FORMAT = 'bitpair-conversations';
const VERSION = 1;
const MOST = 10000; // conversations or messages: more is not from this page

export const exportText = (conversations, now = Date.now()) =>
  `${JSON.stringify({ format: FORMAT, version: VERSION, exported: new Date(now).toISOString(), conversations }, null, 1)}\n`;

export const exportName = (now = Date.now()) => `bitpair-chats-${new Date(now).toISOString().slice(0, 10)}.json`;

/**
 * @param {string} text of the file
 * @param {object[]} present conversations that are here
 * @returns {{added: object[], same: number}} those to keep, and how many are here already
 * @throws {Error} one sentence for the visitor
 */
export function importText(text, present) {
  const here = new Map(present.map((each) => [each.id, each]));
  const added = [];
  let same = 0;
  for (const conversation of parseFile(text).map(readConversation)) {
    const twin = here.get(conversation.id);
    if (twin && JSON.stringify(readConversation(twin, 0)) === JSON.stringify(conversation)) same++;
    else {
      const kept = twin ? { ...conversation, id: newId() } : conversation;
      added.push(kept);
      here.set(kept.id, kept);
    }
  }
  return { added, same };
}

function parseFile(text) {
  let file;
  try {
    file = JSON.parse(text);
  } catch (error) {
    throw new Error(`This file is not JSON: ${error.message}`);
  }
  if (file?.format !== FORMAT) throw new Error('This file has no conversations of this page in it.');
  if (file.version !== VERSION) throw new Error(`This file is of version ${file.version}, and this page reads version ${VERSION}.`);
  if (!Array.isArray(file.conversations) || file.conversations.length > MOST) throw new Error('The list of conversations in this file is damaged.');
  return file.conversations;
}

const isText = (value) => typeof value === 'string';
const isNumber = (value) => Number.isFinite(value);
const isFlag = (value) => typeof value === 'boolean';

/** Fields of a message that may be there, and what they must be. */
const OPTIONAL = {
  state: (value) => ['writing', 'done', 'failed'].includes(value),
  finishReason: (value) => ['stop', 'length', 'context', 'abort'].includes(value),
  json: isFlag, plain: isFlag, model: isText, problem: isText, tier: isNumber, tiers: isNumber, firstTier: isNumber, context: isNumber, tokens: isNumber, speed: isNumber,
  first: isNumber, seed: (value) => isText(value) || isNumber(value),
};

function readConversation(found, i) {
  const damaged = (what) => {
    throw new Error(`Conversation ${i + 1} of this file is damaged: ${what}.`);
  };
  if (!isText(found?.id) || !isText(found.title)) damaged('it has no title');
  if (!isNumber(found.created) || !isNumber(found.updated)) damaged('it has no dates');
  if (!Array.isArray(found.messages) || found.messages.length > MOST) damaged('it has no messages');
  const seen = new Set([null]);
  const messages = found.messages.map((message) => {
    // Each comes after the one it answers, so there are no circles.
    if (!isText(message?.id) || seen.has(message.id) || !seen.has(message.parent)) damaged('a message has no place in it');
    if (!['user', 'assistant'].includes(message.role) || !isText(message.text) || !isNumber(message.time)) damaged('a message is not one');
    seen.add(message.id);
    return readMessage(message);
  });
  const chosen = Object.entries(found.chosen ?? {}).filter(([parent, id]) => (parent === 'root' || seen.has(parent)) && seen.has(id));
  return {
    id: found.id, title: found.title.slice(0, 200), named: !!found.named, created: found.created, updated: found.updated, messages,
    chosen: Object.fromEntries(chosen),
  };
}

function readMessage({ id, parent, role, text, time, ...rest }) {
  const message = { id, parent, role, text, time };
  for (const [name, fits] of Object.entries(OPTIONAL)) if (fits(rest[name])) message[name] = rest[name];
  return message;
}
