// The packed package, installed: what is in it, how large it is, what its types say, and programs that use it in Node, Deno
// and Bun.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';

import { load } from '../../web/index.js';
import { FIXTURE, ROOT } from '../web/helper.js';
import { importTool, installPackage, installTools, toolFile } from './installed.js';

const run = promisify(execFile);
const limits = { timeout: 300000 };

/** Bytes that a page downloads, uncompressed: one engine and the JavaScript of load(); JSON schemas and tools come when they are used. */
const BUDGET = 300_000;

let project;
let dist;
before(() => {
  installTools();
  project = installPackage();
  dist = `${project.path}/node_modules/bitpair/dist`;
}, { timeout: 300000 });
after(() => project?.remove());

const scripts = () => readdirSync(dist).filter((name) => name.endsWith('.js'));
const engines = () => readdirSync(dist).filter((name) => name.endsWith('.wasm'));
const read = (name) => readFileSync(`${dist}/${name}`, 'utf8');

/** The script and what it imports before it runs. */
function atOnce(name, found = new Set()) {
  if (found.has(name)) return found;
  found.add(name);
  for (const [, other] of read(name).matchAll(/(?:\bfrom|\bimport)"\.\/([\w-]+\.js)"/g)) atOnce(other, found);
  return found;
}

describe('the tarball', () => {
  test('holds the package and nothing else', () => {
    const files = project.packed.files.map(({ path }) => path).sort();
    const built = readdirSync(`${ROOT}web`).filter((name) => name.endsWith('.wasm')).map((name) => `dist/${name}`);
    assert.ok(built.length >= 2);
    for (const path of [...built, 'dist/index.js', 'dist/worker.js', 'dist/index.d.ts', 'LICENSE', 'README.md', 'CHANGELOG.md', 'package.json'])
      assert.ok(files.includes(path), `${path} is missing`);
    const others = /^(package\.json|LICENSE|(README|CHANGELOG|CONTRIBUTING|SECURITY)\.md|docs\/\w+\.(md|svg)|models\/README\.md)$/;
    for (const path of files) assert.match(path, path.startsWith('dist/') ? /^dist\/[\w-]+\.(js|wasm|d\.ts)$/ : others);
  });

  test('size of what a page downloads', (t) => {
    const sum = (names) => names.reduce((bytes, name) => bytes + readFileSync(`${dist}/${name}`).length, 0);
    const code = sum(['worker.js', ...atOnce('index.js')]);
    t.diagnostic(`later: ${scripts().filter((name) => name !== 'worker.js' && !atOnce('index.js').has(name)).join(', ')}`);
    for (const engine of engines()) {
      t.diagnostic(`${engine} ${sum([engine])} + JavaScript ${code} = ${sum([engine]) + code} bytes`);
      assert.ok(sum([engine]) + code <= BUDGET, `${engine}: ${sum([engine]) + code} bytes`);
    }
  });

  test('no eval, no blob worker, no host, no source map, no install script', () => {
    const all = [...scripts(), 'index.d.ts'].map(read).join('\n');
    assert.doesNotMatch(all.replace(/^ \*.*$/gm, ''), /https?:\/\/|wss?:\/\//); // comments of the types have examples
    assert.doesNotMatch(all, /\beval\(|new Function|createObjectURL|importScripts|sourceMappingURL|document\.write/);
    for (const engine of engines()) assert.doesNotMatch(readFileSync(`${dist}/${engine}`, 'latin1'), /https?:\/\/|\/home\/|\/root\/|\/work/);
    const { scripts: own, dependencies } = JSON.parse(readFileSync(`${dist}/../package.json`, 'utf8'));
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) assert.equal(own[name], undefined);
    assert.deepEqual(Object.keys(dependencies), ['@huggingface/jinja']);
  });

  test('addresses are literal, so that bundlers find worker and engines', () => {
    assert.match(read('index.js'), /new Worker\(new URL\("\.\/worker\.js",import\.meta\.url\),\{type:"module"/);
    for (const engine of engines()) assert.ok(read('worker.js').includes(`new URL("./${engine}",import.meta.url)`), engine);
    for (const name of scripts()) for (const [, target] of read(name).matchAll(/\bimport\(([^)]*)\)/g)) assert.match(target, /^"(@huggingface\/jinja|\.\/[\w-]+\.js)"$/);
  });

  test('publint finds nothing', async () => {
    const { publint } = await importTool('publint');
    const { formatMessage } = await importTool('publint/utils');
    const { messages, pkg } = await publint({ pkgDir: `${dist}/..`, strict: true });
    assert.deepEqual(messages.map((message) => formatMessage(message, pkg)), []);
  });

  test('"are the types wrong?": no', limits, async () => {
    const tool = toolFile('@arethetypeswrong/cli/dist/index.js');
    const { code = 0, stdout } = await run(process.execPath, [tool, project.packed.tarball, '--profile', 'esm-only', '--format', 'ascii', '--no-color', '--no-definitely-typed'])
      .catch((error) => error);
    assert.equal(code, 0, stdout);
    assert.match(stdout, /"bitpair"/);
  });
});

describe('types', () => {
  const parsed = new Map(); // of the standard library: most of the time goes there
  for (const [module, moduleResolution, lib] of [['ESNext', 'Bundler', []], ['Node16', 'Node16', ['lib.esnext.disposable.d.ts']]]) {
    test(`tsc --strict, moduleResolution ${moduleResolution}`, limits, async () => {
      const { default: ts } = await importTool('typescript');
      copyFileSync(`${ROOT}tests/package/use.ts`, `${project.path}/use.ts`);
      const options = {
        strict: true,
        noEmit: true,
        noUncheckedIndexedAccess: true,
        exactOptionalPropertyTypes: true,
        types: [],
        target: ts.ScriptTarget.ES2022,
        module: ts.ModuleKind[module],
        moduleResolution: ts.ModuleResolutionKind[moduleResolution],
        lib: ['lib.es2022.d.ts', ...lib, 'lib.dom.d.ts', 'lib.dom.iterable.d.ts'],
      };
      const host = ts.createCompilerHost(options);
      const { getSourceFile } = host;
      host.getSourceFile = (name, ...rest) => {
        if (!name.includes('/typescript/lib/')) return getSourceFile(name, ...rest);
        if (!parsed.has(name)) parsed.set(name, getSourceFile(name, ...rest));
        return parsed.get(name);
      };
      host.getCurrentDirectory = () => project.path;
      const program = ts.createProgram([`${project.path}/use.ts`], options, host);
      assert.ok(program.getSourceFiles().some(({ fileName }) => fileName.endsWith('bitpair/dist/index.d.ts')));
      assert.equal(ts.formatDiagnostics(ts.getPreEmitDiagnostics(program), host), '');
    });
  }
});

describe('programs', () => {
  let wanted;
  before(async () => {
    const model = await load(FIXTURE, { threads: 1, cache: false });
    wanted = await model.generate('Once upon a time', { greedy: true, maxTokens: 12 }).text();
    await model.dispose();
  });
  const check = async (command, args, env) => {
    const { stdout } = await run(command, [...args, FIXTURE], { cwd: project.path, timeout: 60000, env: { ...process.env, ...env } });
    const { text, chat, threads } = JSON.parse(stdout);
    assert.deepEqual([text, chat.length > 0, threads], [wanted, true, 2]);
  };

  test('Node', limits, () => check(process.execPath, ['node.mjs']));

  const deno = toolFile(`@deno/linux-${process.arch === 'x64' ? 'x64' : 'arm64'}-glibc/deno`);
  test('Deno', { ...limits, skip: !deno && 'no Deno for this platform' }, () =>
    check(deno, ['run', '--no-remote', '--allow-read', '--allow-env', '--allow-sys', 'node.mjs'], { DENO_NO_UPDATE_CHECK: '1' }));

  const bun = toolFile(`@oven/bun-linux-${process.arch === 'x64' ? 'x64' : 'aarch64'}/bin/bun`);
  test('Bun', { ...limits, skip: !bun && 'no Bun for this platform' }, () => check(bun, ['run', 'node.mjs']));

  test('on a server: an import touches nothing of a page, and none of the globals of Node', limits, async () => {
    writeFileSync(`${project.path}/bare.mjs`, BARE);
    const { stdout } = await run(process.execPath, ['--experimental-vm-modules', '--no-warnings', 'bare.mjs', `${dist}/index.js`], { cwd: project.path });
    assert.deepEqual(JSON.parse(stdout), Object.keys(await import('../../web/index.js')).sort());
  });
});

/** Evaluates the module in a context that has ECMAScript and nothing else. */
const BARE = `
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SourceTextModule, createContext } from 'node:vm';

const context = createContext(Object.create(null));
const modules = new Map();
const open = (path) => {
  if (!modules.has(path)) modules.set(path, new SourceTextModule(readFileSync(path, 'utf8'), { context, identifier: path }));
  return modules.get(path);
};
const main = open(process.argv[2]);
await main.link((name, from) => open(join(dirname(from.identifier), name)));
await main.evaluate();
console.log(JSON.stringify(Object.keys(main.namespace).sort()));
`;
