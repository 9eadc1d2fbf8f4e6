// options.js - the command line of the scripts here: their options, and --help, which prints the comment they begin with.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

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
