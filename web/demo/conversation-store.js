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
  #memory = new Map(); // in place of the database, or what could not be written to it; null: to be deleted there
  #told = ''; // the failure that was told last

  /** reason: why nothing is kept, else null; onfailure(error): something could not be kept, told once for each reason */
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
    const newer = [...this.#memory, ...this.#waiting];
    const found = this.#database ? await settled(this.#store('readonly').getAll()) : [];
    const here = new Map(found.map((each) => [each.id, each]));
    for (const [id, conversation] of newer) here.set(id, conversation);
    return [...here.values()].filter((each) => each).sort((a, b) => b.updated - a.updated);
  }

  async get(id) {
    for (const newer of [this.#waiting, this.#memory]) if (newer.has(id)) return newer.get(id) ?? undefined;
    return this.#database ? settled(this.#store('readonly').get(id)) : undefined;
  }

  /** Resolves when the conversation, as it is then, is kept. If it could not be it stays here, and is tried again after the next success. */
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

  /** heard({id, deleted?, title?, named?}): another tab has changed this conversation. */
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
        this.#kept(batch);
      } catch (error) {
        for (const [id, conversation] of batch) this.#memory.set(id, conversation);
        this.#tell(error);
      }
    }
  }

  /** Other tabs hear of it; and where there was room for this, there may be for what failed before. */
  #kept(batch) {
    for (const [id, found] of batch) this.#tabs.tell(found ? { id, title: found.title, named: found.named } : { id, deleted: true });
    if (!this.#database) return;
    for (const [id] of batch) this.#memory.delete(id);
    if (this.#memory.size === 0) this.#told = '';
    for (const [id, conversation] of this.#memory) if (!this.#waiting.has(id)) this.#waiting.set(id, conversation);
    this.#memory.clear();
  }

  #tell(error) {
    const reason = `${error.name} ${error.message}`;
    if (reason !== this.#told) this.onfailure(error);
    this.#told = reason;
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

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs work while other tabs can see that this conversation is being answered here. null: it is answered elsewhere. */
export async function whileAnswering(id, work) {
  if (!navigator.locks) return work();
  for (;;) {
    const refused = {};
    const end = await navigator.locks.request(lockName(id), { ifAvailable: true }, (lock) => (lock ? work() : refused));
    if (end !== refused) return end;
    if (await isAnswered(id)) return null;
    await pause(20); // a tab has just heard that an answer ended
  }
}

/** Resolves when no other tab answers this conversation any more, however that came to its end. */
export function whenAnswered(id) {
  return navigator.locks.request(lockName(id), { mode: 'shared' }, () => {});
}

/** Is some tab answering this conversation? */
export async function isAnswered(id) {
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  return held.some(({ name, mode }) => name === lockName(id) && mode === 'exclusive');
}
