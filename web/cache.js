// cache.js - models kept between visits. A copy is two files: ID.gguf, the bytes at their places in the file, and ID.log,
// lines that are only ever appended, so that whatever interrupts us costs one line at most:
//
//   {"url": ..., "etag": ..., "modified": ..., "size": ..., "dataOffset": ..., "pieceBytes": ...}   the header is there
//   12                                                                                              piece 12 is there
//   @1764000000000                                                                                  loaded to the end then (ms)
//
// The log is a hint, never a proof: whoever reads a copy verifies it. So a store need not be reliable, and two writers of the
// same file do no harm. Stores: a folder of the origin private file system, the Cache API, a folder of Node.

import { BitpairError, fail } from './errors.js';
import { absolute, isNode, nodeModule } from './protocol.js';

const FULL = 'the store is full';
const FILE = /^([0-9a-f]{32})\.(gguf|log)$/;
const encode = (text) => new TextEncoder().encode(text);

/** The name of a copy's files, without their ends. */
export async function idOf(url) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', encode(url.split('#')[0])));
  return Array.from(digest.subarray(0, 16), (byte) => byte.toString(16).padStart(2, '0')).join('');
}

export function parseLog(text) {
  const log = { meta: null, pieces: new Set(), used: null };
  for (const line of text.split('\n').slice(0, -1)) { // the last is empty, or was cut off
    if (/^\d+$/.test(line)) log.pieces.add(Number(line));
    else if (/^@\d+$/.test(line)) log.used = Number(line.slice(1));
    else log.meta = parseMeta(line) ?? log.meta;
  }
  return log;
}

function parseMeta(line) {
  try {
    const meta = JSON.parse(line);
    return typeof meta.url === 'string' && [meta.size, meta.dataOffset, meta.pieceBytes].every((n) => n > 0) ? meta : null;
  } catch {
    return null;
  }
}

// ---- stores: text(name), read(id, start, end), reader(id)?, writer(id), room(), names(), remove(name) ----

/** A FileSystemDirectoryHandle. Handles that write are exclusive: one page writes a copy, others read what is there. */
class OriginFolder {
  constructor(folder) {
    this.kind = 'opfs';
    this.folder = folder;
  }

  static async open(name) {
    const root = await navigator.storage.getDirectory();
    return new OriginFolder(await root.getDirectoryHandle(name, { create: true }));
  }

  async file(name) {
    const handle = await this.folder.getFileHandle(name).catch(() => null);
    return handle ? handle.getFile() : new Blob();
  }

  async text(name) {
    return (await this.file(name)).text();
  }

  async read(id, start, end) {
    return new Uint8Array(await (await this.file(`${id}.gguf`)).slice(start, end).arrayBuffer());
  }

  /** fill(start, out) -> is out full?; close(). Without a question to another process for each piece, where the host can open a
   *  file so that others may read it too. */
  async reader(id) {
    const entry = await this.folder.getFileHandle(`${id}.gguf`);
    const handle = await entry.createSyncAccessHandle({ mode: 'read-only' }).catch(() => null);
    if (handle?.mode === 'read-only')
      return { fill: async (start, out) => handle.read(out, { at: start }) === out.length, close: () => handle.close() };
    await handle?.close(); // a host that does not know the mode has locked the file
    const file = await entry.getFile();
    return { fill: async (start, out) => fill(out, new Uint8Array(await file.slice(start, start + out.length).arrayBuffer())), close: () => {} };
  }

  async handle(name) {
    return (await this.folder.getFileHandle(name, { create: true })).createSyncAccessHandle();
  }

  async writer(id) {
    const data = await this.handle(`${id}.gguf`);
    const log = await this.handle(`${id}.log`).catch((error) => {
      data.close();
      throw error;
    });
    const write = async (handle, at, bytes) => {
      if (handle.write(bytes, { at }) < bytes.length) throw new Error(FULL);
      await handle.flush();
    };
    let last = Promise.resolve(); // one after another: each goes to the end
    return {
      write: (start, bytes) => write(data, start, bytes),
      append: (text) => (last = last.catch(() => {}).then(async () => write(log, await log.getSize(), encode(text)))),
      clear: async () => {
        for (const handle of [log, data]) await handle.truncate(0);
      },
      close: async () => {
        for (const handle of [log, data]) await handle.close();
      },
    };
  }

  room = roomOfOrigin;

  async names() {
    const names = [];
    for await (const name of this.folder.keys()) names.push(name);
    return names;
  }

  remove(name) {
    return this.folder.removeEntry(name);
  }
}

function fill(out, bytes) {
  if (bytes?.length !== out.length) return false;
  out.set(bytes);
  return true;
}

async function roomOfOrigin() {
  const { quota = Infinity, usage = 0 } = (await navigator.storage?.estimate?.()) ?? {};
  return quota - usage;
}

/** One entry for the log and one for each write, under addresses that nobody serves. */
class CacheStore {
  constructor(cache) {
    this.kind = 'cache-api';
    this.cache = cache;
  }

  static async open(name) {
    return new CacheStore(await caches.open(name));
  }

  address(name, start) {
    return `${location.origin}/.bitpair/${name}${start === undefined ? '' : `?${start}`}`;
  }

  async bytes(address) {
    return (await this.cache.match(address))?.arrayBuffer() ?? new ArrayBuffer(0);
  }

  async text(name) {
    return new TextDecoder().decode(await this.bytes(this.address(name)));
  }

  async read(id, start) {
    return new Uint8Array(await this.bytes(this.address(`${id}.gguf`, start)));
  }

  async writer(id) {
    const log = `${id}.log`;
    const pieces = new Set(); // lines written here: another page that writes at the same time may drop some
    let last = Promise.resolve(); // one after another: each writes the whole log
    const append = async (text) => {
      const before = await this.text(log);
      const lost = [...pieces].filter((line) => !`\n${before}`.includes(`\n${line}`));
      if (/^\d+\n$/.test(text)) pieces.add(text);
      await this.cache.put(this.address(log), new Response(before + lost.join('') + text));
    };
    return {
      write: (start, bytes) => this.cache.put(this.address(`${id}.gguf`, start), new Response(bytes)),
      append: (text) => (last = last.then(() => append(text))),
      clear: async () => {
        pieces.clear();
        for (const name of [log, `${id}.gguf`]) await this.remove(name).catch(() => {});
      },
      close: async () => {},
    };
  }

  room = roomOfOrigin;

  async names() {
    const names = (await this.cache.keys()).map(({ url }) => new URL(url).pathname.split('/').pop());
    return [...new Set(names)];
  }

  remove(name) {
    return this.cache.delete(this.address(name), { ignoreSearch: true });
  }
}

/** A folder of the file system. Writers do not lock each other out; one that begins anew leaves the old files to the others. */
class NodeFolder {
  constructor(folder, fs, join) {
    Object.assign(this, { kind: 'folder', folder, fs, path: (name) => join(folder, name) });
  }

  static async open(name) {
    const { join } = await nodeModule('node:path');
    const fs = await nodeModule('node:fs/promises');
    return new NodeFolder(name === DEFAULT_NAME ? await userFolder(join) : name, fs, join);
  }

  async text(name) {
    return this.fs.readFile(this.path(name), 'utf8').catch(missing(''));
  }

  async read(id, start, end) {
    const file = await this.fs.open(this.path(`${id}.gguf`));
    try {
      const { bytesRead, buffer } = await file.read(new Uint8Array(end - start), 0, end - start, start);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  }

  async writer(id) {
    const { fs } = this;
    const { O_RDWR, O_CREAT } = fs.constants;
    await fs.mkdir(this.folder, { recursive: true });
    const open = async () => {
      const data = await fs.open(this.path(`${id}.gguf`), O_RDWR | O_CREAT);
      try {
        return { data, log: await fs.open(this.path(`${id}.log`), 'a') };
      } catch (error) {
        await data.close();
        throw error;
      }
    };
    let files = await open();
    const close = async () => {
      await files.data.close();
      await files.log.close();
    };
    return {
      write: async (start, bytes) => {
        const { bytesWritten } = await files.data.write(bytes, 0, bytes.length, start);
        if (bytesWritten < bytes.length) throw new Error(FULL);
      },
      append: (text) => files.log.appendFile(text),
      clear: async () => {
        await close();
        for (const name of [`${id}.log`, `${id}.gguf`]) await fs.rm(this.path(name), { force: true });
        files = await open();
      },
      close,
    };
  }

  async room() {
    const { bavail, bsize } = await this.fs.statfs(this.folder);
    return bavail * bsize;
  }

  async names() {
    return this.fs.readdir(this.folder).catch(missing([]));
  }

  remove(name) {
    return this.fs.rm(this.path(name), { force: true });
  }
}

const missing = (value) => (error) => {
  if (error.code === 'ENOENT') return value;
  throw error;
};

async function userFolder(join) {
  const home = (await nodeModule('node:os')).homedir();
  const { env, platform } = process;
  if (platform === 'win32') return join(env.LOCALAPPDATA || join(home, 'AppData', 'Local'), DEFAULT_NAME, 'cache');
  if (platform === 'darwin') return join(home, 'Library', 'Caches', DEFAULT_NAME);
  return join(env.XDG_CACHE_HOME || join(home, '.cache'), DEFAULT_NAME);
}

const DEFAULT_NAME = 'bitpair';

const hasOriginFolder = () => typeof navigator.storage?.getDirectory === 'function';

/** Only workers can write there at once, so a page cannot tell which store they took. */
const canWrite = () => typeof FileSystemFileHandle === 'function' && 'createSyncAccessHandle' in FileSystemFileHandle.prototype;

/** The store that a worker uses. */
export async function openStore(name) {
  if (isNode()) return NodeFolder.open(name);
  if (!globalThis.isSecureContext) throw new Error('this page is not a secure context: storage needs https or localhost');
  if (hasOriginFolder() && canWrite()) {
    const folder = await OriginFolder.open(name).catch(() => null); // private windows of some browsers refuse
    if (folder) return folder;
  }
  if (typeof caches === 'undefined') throw new Error('this browser has neither a private file system nor the Cache API');
  return CacheStore.open(name);
}

/** Of the store that a worker uses: {storage, storageReason, storageBytes} of Capabilities in index.d.ts. */
export async function roomOfStore() {
  try {
    const store = await openStore(DEFAULT_NAME);
    const room = await store.room().catch(() => null);
    return { storage: store.kind, storageReason: null, storageBytes: Number.isFinite(room) ? room : null };
  } catch (error) {
    return { storage: null, storageReason: reasonOf(error), storageBytes: null };
  }
}

export function reasonOf({ name, code, message }) {
  if (name === 'NoModificationAllowedError') return 'another page or worker is writing this model into the cache';
  if (name === 'QuotaExceededError' || code === 'ENOSPC') return FULL;
  return message;
}

// ---- what callers see ----

async function openStores(name) {
  if (typeof name !== 'string' || name === '') fail('argument', 'the name of a cache must be a string');
  if (isNode()) return [await NodeFolder.open(name)];
  const stores = [];
  if (hasOriginFolder()) stores.push(await OriginFolder.open(name).catch(() => null));
  if (typeof caches !== 'undefined' && (await caches.has(name))) stores.push(await CacheStore.open(name));
  return stores.filter(Boolean);
}

async function describe(store, id) {
  const { meta, pieces, used } = parseLog(await store.text(`${id}.log`));
  if (!meta) return null;
  const { url, size, dataOffset, pieceBytes } = meta;
  const count = Math.ceil((size - dataOffset) / pieceBytes);
  let bytes = dataOffset;
  for (const i of pieces) if (i < count) bytes += Math.min(pieceBytes, size - dataOffset - i * pieceBytes);
  return { url, bytes, total: size, complete: bytes === size, lastUsed: used === null ? null : new Date(used) };
}

async function list(name = DEFAULT_NAME) {
  const found = [];
  for (const store of await openStores(name))
    for (const file of await store.names()) if (FILE.exec(file)?.[2] === 'log') found.push(await describe(store, FILE.exec(file)[1]));
  return found.filter(Boolean).sort((a, b) => b.lastUsed - a.lastUsed);
}

/** Removes files of copies, nothing else: in Node the folder may hold other things. */
async function remove(name, which) {
  let removed = false;
  for (const store of await openStores(name)) {
    for (const file of await store.names()) {
      if (!which(FILE.exec(file)?.[1])) continue;
      await store.remove(file).catch((error) => fail('io', `a cached model cannot be deleted: ${reasonOf(error)}`, { cause: error }));
      removed = true;
    }
  }
  return removed;
}

/** Runs fn; what a store throws becomes an error of this package. */
async function explained(fn) {
  try {
    return await fn();
  } catch (error) {
    if (error instanceof BitpairError) throw error;
    return fail('io', `the cache cannot be read or changed: ${reasonOf(error)}`, { cause: error });
  }
}

function addressOf(url) {
  try {
    return absolute(url);
  } catch (error) {
    return fail('argument', `the address of a cached model must be a URL, not '${url}'`, { cause: error });
  }
}

/** See index.d.ts. */
export const cache = {
  list: (name) => explained(() => list(name)),
  async size(name) {
    return (await cache.list(name)).reduce((sum, { bytes }) => sum + bytes, 0);
  },
  async delete(url, name = DEFAULT_NAME) {
    const address = addressOf(url);
    if (!globalThis.crypto?.subtle) return false; // not a secure context: there is no store
    return explained(async () => {
      const id = await idOf(address);
      return remove(name, (found) => found === id);
    });
  },
  async clear(name = DEFAULT_NAME) {
    await explained(() => remove(name, Boolean));
  },
};

/** The name of the store for the option `cache`; undefined: none. */
export function cacheName(option = true) {
  if (typeof option === 'string' && option !== '') return option;
  if (typeof option !== 'boolean') fail('argument', 'cache must be true, false or the name of a cache');
  return option ? DEFAULT_NAME : undefined;
}
