// conversation-store.js - conversations in IndexedDB, or in memory where a browser refuses that. A conversation is written whole,
// and again and again while an answer grows: of writes that wait, only the latest is made.

const NAME = 'bitpair-demo';
const STORE = 'conversations';
const LEFT = `${NAME}-left-`; // and an id: what a page that was closed had not written

const settled = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

function openDatabase() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: 'id' });
  return settled(request);
}

/** Tells other tabs of this page what has changed, and hears it from them. */
class Tabs {
  constructor() {
    this.channel = typeof BroadcastChannel === 'function' ? new BroadcastChannel(NAME) : null;
  }

  tell(message) {
    this.channel?.postMessage(message);
  }

  listen(heard) {
    if (this.channel) this.channel.onmessage = ({ data }) => heard(data);
  }
}

export class ConversationStore {
  #database;
  #tabs = new Tabs();
  #waiting = new Map(); // id -> conversation to be written, null: to be deleted
  #writing = null;
  #memory = new Map();

  /** reason: why nothing is kept, else null */
  constructor(database, reason) {
    this.#database = database;
    this.reason = reason;
    this.onfailure = () => {};
  }

  static async open() {
    try {
      const store = new ConversationStore(await openDatabase(), null);
      await store.#takeUp().catch(() => {});
      return store;
    } catch (error) {
      return new ConversationStore(null, error?.message ?? 'this browser has no IndexedDB');
    }
  }

  /** As it is when this is called, with what waits to be written. The one that was written to last comes first. */
  async all() {
    const waiting = [...this.#waiting];
    const found = this.#database ? await settled(this.#store('readonly').getAll()) : [...this.#memory.values()];
    const here = new Map(found.map((each) => [each.id, each]));
    for (const [id, conversation] of waiting) here.set(id, conversation);
    return [...here.values()].filter((each) => each).sort((a, b) => b.updated - a.updated);
  }

  async get(id) {
    if (this.#waiting.has(id)) return this.#waiting.get(id) ?? undefined;
    return this.#database ? settled(this.#store('readonly').get(id)) : this.#memory.get(id);
  }

  /** Resolves when the conversation, as it is then, is kept. A store that is full is told to `onfailure`, and asked again next time. */
  put(conversation) {
    return this.#change(conversation.id, conversation);
  }

  /** Resolves when nothing is kept of it. */
  delete(id) {
    if (this.#database) localStorage.removeItem(LEFT + id);
    return this.#change(id, null);
  }

  /** The page is about to go: a database would not come to its end, this does. */
  leave(conversations) {
    try {
      for (const each of conversations) localStorage.setItem(LEFT + each.id, JSON.stringify({ at: Date.now(), conversation: each }));
    } catch {
      // no room: what was written before stays
    }
  }

  /** What was left is taken over, unless it was written later. */
  async #takeUp() {
    for (const key of Object.keys(localStorage).filter((name) => name.startsWith(LEFT))) {
      const { at, conversation } = JSON.parse(localStorage.getItem(key));
      const found = await this.get(conversation.id);
      if (!(found?.written > at)) await this.#keep([[conversation.id, conversation]]);
      localStorage.removeItem(key);
    }
  }

  /** heard({id}): another tab has changed this conversation. */
  listen(heard) {
    this.#tabs.listen(heard);
  }

  #change(id, conversation) {
    this.#waiting.set(id, conversation);
    this.#writing ??= this.#write().finally(() => (this.#writing = null));
    return this.#writing;
  }

  async #write() {
    await null; // so that changes made together are one write
    while (this.#waiting.size > 0) {
      const batch = [...this.#waiting];
      this.#waiting.clear();
      try {
        await this.#keep(batch);
        for (const [id] of batch) this.#tabs.tell({ id });
      } catch (error) {
        this.onfailure(error);
      }
    }
  }

  /** batch: pairs like those that wait */
  async #keep(batch) {
    if (!this.#database) {
      for (const [id, conversation] of batch) conversation ? this.#memory.set(id, conversation) : this.#memory.delete(id);
      return;
    }
    const store = this.#store('readwrite');
    const done = new Promise((resolve, reject) => {
      store.transaction.oncomplete = resolve;
      store.transaction.onabort = () => reject(store.transaction.error ?? new Error('the store gave up'));
    });
    for (const [id, conversation] of batch) conversation ? store.put({ ...conversation, written: Date.now() }) : store.delete(id);
    await done;
  }

  #store(mode) {
    return this.#database.transaction(STORE, mode).objectStore(STORE);
  }
}

const lockName = (id) => `${NAME}-answer-${id}`;

/** Runs work while other tabs can see that this conversation is being answered here. null: it is answered elsewhere. */
export function whileAnswering(id, work) {
  if (!navigator.locks) return work();
  return navigator.locks.request(lockName(id), { ifAvailable: true }, (lock) => (lock ? work() : null));
}

/** Resolves when no other tab answers this conversation any more, however that came to its end. */
export function whenAnswered(id) {
  return navigator.locks.request(lockName(id), { mode: 'shared' }, () => {});
}

/** Is some tab answering this conversation? */
export async function isAnswered(id) {
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  return held.some(({ name }) => name === lockName(id));
}
