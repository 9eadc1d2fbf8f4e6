// source.js - where a model's bytes come from: {name, about, size: bytes or null, remote, ranges, lanes, open, close?}.
// open(start, end) gives a reader: read() -> a chunk or null at the end, close(). Runs in the engine worker.

import { BitpairError, abortError, fail } from './errors.js';
import { isNode, nodeModule } from './protocol.js';
import { HttpFile } from './ranges.js';

const PIECE = 1 << 22; // most bytes of one read from a file or from the page

/**
 * @param {object} described as engine.js does it: {kind: 'url' | 'path' | 'blob' | 'pull' | 'stream', ...}
 * @param {Function} pull (offset, size) -> bytes, of what stays in the page
 * @param {boolean} kept will it go into the package's own cache?
 */
export async function openSource(described, pull, kept) {
  switch (described.kind) {
    case 'url':
      return new HttpFile(described, kept);
    case 'path':
      return openPath(described.path);
    case 'blob':
      return openBlob(described.blob);
    case 'stream':
      return local('the stream', null, pull);
    default:
      return local('the data', described.size, pull);
  }
}

/** A source that is read one piece after another; get(offset, size) -> bytes, or null at the end. */
function local(name, size, get, close) {
  const open = async (start, end) => {
    let at = start;
    return {
      read: async () => {
        const wanted = Math.min(PIECE, (size ?? Infinity) - at, end - at);
        const bytes = wanted > 0 ? await get(at, wanted) : null;
        at += bytes?.length ?? 0;
        return bytes;
      },
      close: async () => {},
    };
  };
  return { name, about: '', size, remote: false, ranges: false, lanes: 1, open, close };
}

function openBlob(blob) {
  const get = async (at, size) => new Uint8Array(await blob.slice(at, at + size).arrayBuffer());
  return local(blob.name ?? 'the file', blob.size, get);
}

async function openPath(path) {
  if (!isNode()) return fail('argument', 'paths can be opened in Node only: give a URL, a File or bytes');
  const fs = await nodeModule('node:fs/promises');
  let file;
  try {
    file = await fs.open(path);
    const { size } = await file.stat();
    const get = async (at, wanted) => {
      const { bytesRead, buffer } = await file.read(new Uint8Array(wanted), 0, wanted, at);
      return bytesRead > 0 ? buffer.subarray(0, bytesRead) : null;
    };
    await get(0, 1); // a folder opens, but cannot be read
    return local(path, size, get, () => file.close());
  } catch (error) {
    await file?.close();
    return fail('io', `${path} cannot be read: ${error.message}`, { cause: error });
  }
}

/** What the caller hears of an error that ended the reading. */
export function readError(error, { name, remote }, signal) {
  if (signal.aborted) return abortError(signal);
  if (error instanceof BitpairError || error instanceof WebAssembly.RuntimeError) return error;
  return new BitpairError(remote ? 'network' : 'io', `${name} cannot be read: ${error.message}`, { cause: error });
}

export function concatenate(chunks, size) {
  const all = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** The first bytes of what is not a model usually tell what it is: an error page, a pointer of Git LFS. */
export function sniff(chunks, size, { name, about }) {
  const bytes = concatenate(chunks, size);
  if (bytes.length < 4 || (bytes[0] === 71 && bytes[1] === 71 && bytes[2] === 85 && bytes[3] === 70)) return;
  const start = String.fromCharCode(...bytes.subarray(0, 40)).replace(/[^ -~]+/g, '.');
  fail('format', `${name} is not a GGUF file${about ? ` (${about})` : ''}: it begins with "${start}"`);
}
