// common.js - what the drivers share: programs and their ends, waiting.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The program that the environment names, or Debian's. */
export function programPath(variable, path) {
  const chosen = process.env[variable] ?? path;
  if (!existsSync(chosen)) throw new Error(`${chosen} is missing: run scripts/setup.sh, or set ${variable}`);
  return chosen;
}

/** Calls fn again and again until it gives something true. */
export async function until(fn, what, seconds = 60) {
  for (const end = performance.now() + 1000 * seconds; performance.now() < end; await pause(50)) {
    const value = await fn();
    if (value) return value;
  }
  throw new Error(`waited ${seconds} s for ${what}`);
}

/** A port that was free a moment ago. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A folder for this run: {path, remove()}. */
export function temporaryFolder(name) {
  const path = mkdtempSync(join(tmpdir(), `bitpair-${name}-`));
  return { path, remove: () => rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }) };
}

const groups = new Set();
process.on('exit', () => groups.forEach(killGroup));

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // it has ended
  }
}

/** A program with a process group of its own, which ends when we do. -> {child, end()} */
export function startProgram(path, args, options) {
  const child = spawn(path, args, { detached: true, stdio: 'ignore', ...options });
  const exited = new Promise((resolve) => child.on('close', resolve).on('error', resolve));
  if (child.pid) groups.add(child.pid);
  const end = async () => {
    if (!child.pid) return;
    killGroup(child.pid);
    groups.delete(child.pid);
    await exited;
  };
  return { child, end };
}
