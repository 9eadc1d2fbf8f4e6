// options.js - the command line of the scripts: their options, what these may say, and --help, which prints the comment they begin with.

import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { ENGINES } from '../../web/protocol.js';

/** The comment at the top of a script, without its slashes. */
export function helpOf(url) {
  const lines = readFileSync(fileURLToPath(url), 'utf8').split('\n');
  const end = lines.findIndex((line) => !line.startsWith('//'));
  return lines.slice(0, end).map((line) => line.replace(/^\/\/ ?/, '')).join('\n');
}

/** parseArgs() of the script at `url` (import.meta.url); ends the process where only help is wanted or the options are none. */
export function parseOptions(url, config) {
  try {
    const { values, positionals } = parseArgs({ ...config, options: { ...config.options, help: { type: 'boolean', short: 'h', default: false } } });
    if (!values.help) return { values, positionals };
    console.log(helpOf(url));
    process.exit(0);
  } catch (error) {
    console.error(`${error.message.split('\n')[0]}\n\n${helpOf(url)}`);
    process.exit(2);
  }
}

/** Ends the process with one line: 2 where the options are none, 1 where something is missing. */
export function refuse(text, code = 2) {
  console.error(`${basename(process.argv[1], '.js')}: ${text}`);
  process.exit(code);
}

/** The words of a list that `--name` gives, each one of `known` (without it: any). */
export function wordsOf(name, value, known) {
  const words = value.split(',').filter(Boolean);
  const strange = known ? words.filter((word) => !known.includes(word)) : [];
  const choice = known ? `; there are ${known.join(', ')}` : '';
  if (words.length === 0) refuse(`--${name} is empty${choice}`);
  if (strange.length > 0) refuse(`--${name} ${value}: no ${strange.join(', ')}${choice}`);
  return words;
}

/** The number that `--name` gives: a whole one from 1 on. */
export function countOf(name, value) {
  const count = Number(value);
  if (!Number.isSafeInteger(count) || count < 1) refuse(`--${name} ${value}: a whole number from 1 on is needed`);
  return count;
}

export const countsOf = (name, value) => wordsOf(name, value).map((word) => countOf(name, word));

/** The engines that pages and Node load are there, or the process ends. */
export function needEngines() {
  const folder = fileURLToPath(new URL('../../web/', import.meta.url));
  const missing = ENGINES.filter((name) => !existsSync(folder + name));
  if (missing.length > 0) refuse(`web/${missing[0]} is missing: npm run setup -- build && npm run build:wasm`, 1);
}
