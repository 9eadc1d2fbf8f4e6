// The surface of the two binaries, and the heap in platform_wasm.c.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

import { openWasm } from '../../web/wasm.js';
import { ROOT } from './helper.js';

const listed = readFileSync(`${ROOT}wasm/exports.txt`, 'utf8').split('\n').filter((line) => /^[a-z]/.test(line)).map((line) => line.split(/\s/)[0]);

for (const threads of [1, 2]) {
  describe(threads > 1 ? 'bitpair-threads.wasm' : 'bitpair.wasm', () => {
    test('exports what exports.txt lists, and imports next to nothing', async () => {
      const { module } = await openWasm(threads);
      const own = threads > 1 ? ['__stack_pointer'] : ['__stack_pointer', 'memory'];
      assert.deepEqual(WebAssembly.Module.exports(module).map(({ name }) => name).sort(), [...listed, ...own].sort());
      const imports = WebAssembly.Module.imports(module).map(({ name }) => name).filter((name) => name !== 'seconds');
      assert.deepEqual(imports, threads > 1 ? ['memory'] : []);
    });

    test('the heap gives zeroed, aligned, disjoint blocks and takes them back', async () => {
      const { wasm } = await openWasm(threads);
      let seed = 12345;
      const random = (n) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % n;
      const blocks = [];
      for (let step = 0; step < 4000; step++) {
        if (blocks.length > 50 || (blocks.length > 0 && random(3) === 0)) {
          const [{ pointer, size, mark }] = blocks.splice(random(blocks.length), 1);
          assert.ok(wasm.bytes(pointer, size).every((byte) => byte === mark), `block of ${size} was overwritten`);
          wasm.free(pointer);
        } else {
          const size = random(4) === 0 ? random(100000) : random(300);
          const pointer = wasm.alloc(size);
          assert.equal(pointer % 64, 0);
          assert.ok(wasm.bytes(pointer, size).every((byte) => byte === 0), `block of ${size} is not zero`);
          const mark = 1 + random(255);
          wasm.bytes(pointer, size).fill(mark);
          blocks.push({ pointer, size, mark });
        }
      }
      for (const { pointer } of blocks) wasm.free(pointer);
      const before = wasm.memory.buffer.byteLength;
      const all = wasm.alloc(before - 2 ** 21); // nothing is lost to fragments
      wasm.free(all);
      assert.ok(wasm.memory.buffer.byteLength <= before + 2 ** 21);
    });

    test('what does not fit is a memory error', async () => {
      const { wasm } = await openWasm(threads);
      assert.throws(() => wasm.alloc(2 ** 32 - 1), { code: 'memory' });
      assert.throws(() => wasm.alloc(2 ** 33), { code: 'memory' });
      assert.ok(wasm.alloc(1000));
    });
  });
}

