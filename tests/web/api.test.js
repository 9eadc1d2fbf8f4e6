// The examples of docs/API.md do what they say, and docs/API.md has one for each call.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { load } from '../../web/index.js';
import { bodyOf, examples } from './examples.js';
import { gatedServer } from './gated.js';
import { EMBEDDED, FIXTURE, ROOT, fixtureBytes } from './helper.js';

const TEMPLATE = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
const AsyncFunction = (async () => {}).constructor;
const folder = mkdtempSync(join(tmpdir(), 'bitpair-api-'));
let server;
before(async () => {
  server = await gatedServer(Buffer.from(fixtureBytes()));
  process.env.XDG_CACHE_HOME = folder; // where the examples keep models; workers copy the environment
});
after(() => {
  server?.close();
  rmSync(folder, { recursive: true });
});

/** The small model, with a chat template. */
async function small() {
  const model = await load(FIXTURE, { threads: 1 });
  const { chat } = model;
  model.chat = (messages, options) => chat.call(model, messages, { template: TEMPLATE, ...options });
  return model;
}

const large = () => load(EMBEDDED, { tier: 1, threads: 2, contextSize: 512 });

for (const { name, kind, code } of examples().filter((example) => example.kind !== 'page')) {
  test(`example: ${name}`, async () => {
    const model = /^const model|\bmodel = await load/m.test(code) ? null : await (kind === 'large' ? large : small)();
    const said = [];
    const print = { log: (...words) => said.push(words) };
    const names = ['url', 'write', 'console', ...(model ? ['model'] : [])];
    const run = new AsyncFunction(...names, bodyOf(code, new URL('../../web/index.js', import.meta.url).href));
    await run(server.url, (text) => assert.equal(typeof text, 'string'), print, model);
    for (const word of said.flat()) assert.ok(word !== undefined && !Number.isNaN(word), JSON.stringify(said));
    if (code.includes('console.log')) assert.ok(said.length > 0);
    await model?.dispose();
  });
}

/** The texts of a folder's scripts. */
const scripts = (path) => readdirSync(ROOT + path).filter((name) => name.endsWith('.js')).map((name) => readFileSync(`${ROOT}${path}/${name}`, 'utf8'));

test('every documented error code is thrown by the package and expected by a test, and no other is thrown', () => {
  const [, union] = /export type ErrorCode =([^;]*);/.exec(readFileSync(`${ROOT}web/index.d.ts`, 'utf8'));
  const codes = [...union.matchAll(/'(\w+)'/g)].map(([, code]) => code);
  assert.ok(codes.length > 10);
  const [sources, tests] = [scripts('web').join(), ['tests/web', 'tests/browser', 'tests/package'].flatMap(scripts).join()];
  const thrown = new Set([...sources.matchAll(/\b(?:fail|new BitpairError)\('(\w+)'/g)].map(([, code]) => code));
  for (const code of codes) assert.match(tests, new RegExp(`(?:\\bcode(?:: | === )|\\b(?:refused|rejects|throws)\\(.*, )'${code}'`), `no test expects '${code}'`);
  for (const code of thrown) assert.ok(codes.includes(code), `'${code}' is thrown and not documented`);
  const engine = /ENGINE_CODES = \[([^\]]*)\]/.exec(readFileSync(`${ROOT}web/errors.js`, 'utf8'))[1]; // they come by their number
  for (const code of codes) assert.ok(thrown.has(code) || engine.includes(`'${code}'`), `'${code}' is never thrown`);
});

test('every call has an example', () => {
  const code = examples().map((example) => example.code).join('\n');
  const types = readFileSync(`${ROOT}web/index.d.ts`, 'utf8');
  const exported = [...types.matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  const bodies = ['Session', 'Model'].map((name) => new RegExp(`^export interface ${name}\\b[^]*?^}`, 'm').exec(types)[0]);
  const methods = bodies.flatMap((body) => [...body.matchAll(/^ {2}(?:readonly )?(\w+)[(:]/gm)].map(([, name]) => name));
  assert.ok(exported.length >= 7 && methods.length >= 18, `${exported} ${methods}`);
  for (const name of [...exported, ...methods]) if (name !== 'contextSize') assert.match(code, new RegExp(`\\b${name}\\b`), name);
  assert.ok(examples().length > 15);
});
