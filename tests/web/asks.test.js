// docs/ASKS.md names tests that exist, and has all rows.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ROOT } from './helper.js';

const table = readFileSync(`${ROOT}docs/ASKS.md`, 'utf8');

/** Names of a test file's tests and groups, as they stand in its source; of a template string the parts before and after its values. */
function namesIn(file) {
  const source = readFileSync(ROOT + file, 'utf8');
  return [...source.matchAll(/\b(?:test|describe)\((['`])((?:\\.|(?!\1).)*)\1/g)]
    .flatMap(([, , name]) => name.replace(/\\(.)/g, '$1').split(/(?:: )?\$\{[^}]*\}(?:: )?/)).filter((name) => name.length > 2);
}

test('every test that docs/ASKS.md names exists', () => {
  const named = [...table.matchAll(/`(tests\/(?:web|browser|package)\/[\w.-]+): ([^`]+)`/g)];
  assert.ok(named.length > 50, `${named.length} names`);
  for (const [, file, name] of named) {
    assert.ok(existsSync(ROOT + file), file);
    assert.ok(namesIn(file).some((each) => each.startsWith(name)), `${file} has no test "${name}"`);
  }
  for (const [, file] of table.matchAll(/`(tests\/\w+\.c)`/g)) assert.ok(existsSync(ROOT + file), file);
});

test('every row says which test, or why not', () => {
  const rows = table.split('\n').filter((line) => line.startsWith('| ') && !/^\| (row|ask) \|/.test(line));
  const asks = rows.map((row) => Number(/^\| (\d+) /.exec(row)?.[1])).filter(Boolean);
  assert.deepEqual(asks, Array.from({ length: 25 }, (_, i) => i + 1));
  for (const row of rows) assert.match(row, /`tests\/|not: \w/, row);
});
