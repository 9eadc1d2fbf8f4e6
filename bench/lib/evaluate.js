// evaluate.js - the `bitpair` command as the scripts about quality use it: run, its files and results kept in a folder.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const SHARED = process.env.BITPAIR_SHARED_DATA ?? `${ROOT}../shared/data`;
export const C4_BYTES = 300_000; // of c4.utf8: what is judged by; the rest may be calibrated on

/** Options that every such script has, for parseOptions(). */
export const COMMON = {
  teacher: { type: 'string', default: `${SHARED}/models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf` },
  text: { type: 'string' },
  ctx: { type: 'string', default: '512' },
  tool: { type: 'string', default: `${ROOT}build/native/bitpair` },
  threads: { type: 'string' },
};

/** A name for what was made from such values. */
export function digest(...values) {
  return createHash('sha256').update(JSON.stringify(values)).digest('hex').slice(0, 16);
}

/** Of a file, or of all in a folder: what tells it from another under its name. */
export function stamp(path) {
  const status = statSync(path);
  if (status.isDirectory()) return [path, ...readdirSync(path).sort().map((name) => stamp(join(path, name)))];
  return [path, status.size, Math.round(status.mtimeMs)];
}

export class Evaluator {
  /** `tool`: the command; `cache`: the folder of what is kept; `threads`: of every run, undefined: its default; `fail(text)` ends the script. */
  constructor({ tool, cache, threads, teacher, fail }) {
    if (!existsSync(tool)) fail(`${tool} is missing: cmake --preset native && cmake --build --preset native`);
    if (!existsSync(teacher)) fail(`${teacher} is missing: see --teacher`);
    mkdirSync(cache, { recursive: true });
    Object.assign(this, { tool, cache, teacher, fail, words: threads ? ['--threads', threads] : [] });
  }

  /** Runs the tool, progress on our stderr; its stdout. */
  run(...words) {
    const { status, stdout } = spawnSync(this.tool, words, { stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
    if (status !== 0) this.fail(`bitpair ${words[0]} ended with ${status}`);
    return stdout.toString();
  }

  path(name) {
    return join(this.cache, name);
  }

  /** A file of the folder that exists already, or is made under its name once it is whole. */
  once(name, make) {
    const path = this.path(name);
    if (!existsSync(path)) make(path);
    return path;
  }

  /** The texts of --text, or the shared data's, and what a table calls them: [{path, name}]. */
  texts(list) {
    if (list) return list.split(',').map((path) => ({ path, name: basename(path) }));
    const whole = `${SHARED}/text/c4.utf8`;
    const c4 = this.once(`c4-${digest(stamp(whole))}.txt`, (path) => {
      const bytes = readFileSync(whole).subarray(0, C4_BYTES);
      writeFileSync(path, new TextDecoder().decode(bytes, { stream: true })); // stream: no half character at the end
    });
    return [{ path: `${SHARED}/text/heldout_500KB.txt`, name: 'held-out textbooks' }, { path: c4, name: 'C4' }];
  }

  /** What `measure()` returned the last time for this `key` (any JSON), if it did. */
  kept(key, measure) {
    const file = this.path('results.json');
    const results = () => (existsSync(file) ? JSON.parse(readFileSync(file)) : {});
    const name = JSON.stringify(key);
    const old = results()[name];
    if (old !== undefined) return old;
    const value = measure();
    writeFileSync(`${file}.part`, JSON.stringify({ ...results(), [name]: value }));
    renameSync(`${file}.part`, file);
    return value;
  }

  /**
   * The rows of one `bitpair eval --json` of these files, or those kept from an earlier run of the same tool on the same files.
   * `inputs`: what else `words` name: texts, the teacher, folders.
   */
  evaluate(paths, words, inputs) {
    return this.kept([[this.tool, ...paths, ...inputs].map(stamp), words], () =>
      this.run('eval', ...paths, ...words, '--json', ...this.words).trim().split('\n').map((line) => JSON.parse(line)));
  }

  /** The same, of texts beside the teacher. */
  evaluateTexts(paths, texts, { tokens, ctx }) {
    const files = texts.map(({ path }) => path);
    const words = ['--teacher', this.teacher, '--text', files.join(','), '--tokens', tokens, '--ctx', ctx];
    return this.evaluate(paths, words, [this.teacher, ...files]);
  }
}
