// Where the package comes from: the same sources give the same bytes in another folder, locks that pin every dependency, a
// bill of materials.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { ROOT } from '../web/helper.js';
import { pack } from './installed.js';

const SOURCES = ['CMakeLists.txt', 'CMakePresets.json', 'src', 'wasm', 'web', 'scripts', 'package.json', 'package-lock.json', '.npmrc',
  'README.md', 'LICENSE', 'CHANGELOG.md',
  'CONTRIBUTING.md', 'SECURITY.md', 'docs', 'models/README.md'];
const run = (command, args, cwd) => execFileSync(command, args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
const digest = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');
const engines = (root) => readdirSync(`${root}/web`).filter((name) => name.endsWith('.wasm')).sort();

describe('a build in another folder', () => {
  let copy;
  before(() => {
    copy = mkdtempSync(join(tmpdir(), 'bitpair-again-'));
    for (const name of SOURCES) cpSync(`${ROOT}${name}`, join(copy, name), { recursive: true, filter: (path) => !path.endsWith('.wasm') });
    symlinkSync(`${ROOT}node_modules`, join(copy, 'node_modules'));
    run('cmake', ['--preset', 'wasm'], copy);
    run('cmake', ['--build', '--preset', 'wasm'], copy);
  }, { timeout: 600000 });
  after(() => rmSync(copy, { recursive: true, force: true }));

  test('gives the same engines, bit for bit', () => {
    assert.ok(engines(ROOT).length >= 2);
    assert.deepEqual(engines(copy), engines(ROOT));
    for (const name of engines(ROOT)) assert.equal(digest(join(copy, 'web', name)), digest(`${ROOT}web/${name}`), name);
  });

  test('gives the same tarball', { timeout: 120000 }, () => {
    const [here, there] = [ROOT, copy].map((root) => {
      run(process.execPath, ['scripts/build-package.js'], root);
      const folder = mkdtempSync(join(copy, 'packed-'));
      return digest(pack(folder, root).tarball);
    });
    assert.equal(there, here);
  });
});

for (const path of ['package-lock.json', 'tests/package/tools/package-lock.json']) {
  test(`${path}: every dependency by its digest, and no registry`, () => {
    const { lockfileVersion, packages } = JSON.parse(readFileSync(`${ROOT}${path}`, 'utf8'));
    assert.equal(lockfileVersion, 3);
    const names = Object.keys(packages).filter(Boolean);
    assert.ok(names.length > 5);
    for (const name of names) {
      assert.match(packages[name].integrity ?? '', /^sha512-/, name);
      assert.equal(packages[name].resolved, undefined, name);
    }
  });
}

test('the bill of materials names what the package brings, with digests and licences', { timeout: 60000 }, () => {
  const sbom = JSON.parse(run('npm', ['run', '--silent', 'sbom'], ROOT));
  const { name, version, dependencies } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
  assert.equal(sbom.bomFormat, 'CycloneDX');
  assert.equal(sbom.metadata.component.purl, `pkg:npm/${name}@${version}`);
  const found = sbom.components.map((component) => (component.group ? `${component.group}/${component.name}` : component.name));
  assert.deepEqual(found, Object.keys(dependencies));
  for (const { hashes, licenses } of sbom.components) assert.ok(hashes.length > 0 && licenses.length > 0);
});
