// The kernels inside WebAssembly give the bits of the native ones: compiles tests/wasm_kernels.c, runs the golden
// computations with every table of that build and compares with tests/golden/kernel_hashes.h.
// `node tests/web/kernels.test.js --bench` prints speeds instead; `--bench --relaxed` those of the relaxed binary.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';

import { has } from '../../web/wasm.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const SOURCES = [
  'tests/wasm_kernels.c', 'src/kernel.c', 'src/kernel_ref.c', 'src/kernel_attention_ref.c', 'src/kernel_simd128.c', 'src/kernel_attention_simd128.c', 'src/mathf.c', 'src/quant.c',
  'src/platform_wasm.c',
];
const FLAGS = [
  '--target=wasm32', '-std=c11', '-O3', '-ffp-contract=off', '-fno-math-errno', '-msimd128', '-mbulk-memory',
  '-mnontrapping-fptoint', '-nostdlibinc', '-fvisibility=hidden',
];

/** The first of the names that can be run. */
function find(...names) {
  const found = names.find((name) => spawnSync(name, ['--version']).status === 0);
  if (!found) throw new Error(`none of ${names.join(', ')} is installed`);
  return found;
}

function run(command, args) {
  const result = spawnSync(command, args, { cwd: root, encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`${command} ${args.join(' ')}\n${result.stderr}`);
}

if (!has('relaxed')) setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20 and 22

/** Compiles and links the module into build/; returns its bytes. Only the kernels differ with relaxed SIMD. */
function build(relaxed) {
  const clang = find('clang-19', 'clang-20', 'clang-21', 'clang');
  const linker = find('wasm-ld-19', 'wasm-ld-20', 'wasm-ld-21', 'wasm-ld');
  const folder = join(root, 'build/wasm_kernels');
  mkdirSync(folder, { recursive: true });
  const objects = SOURCES.map((source) => {
    const differs = relaxed && /kernel(_simd128)?\.c$/.test(source);
    const object = join(folder, source.replaceAll('/', '_') + (differs ? '.relaxed.o' : '.o'));
    if (relaxed && !differs && existsSync(object)) return object;
    const extra = source.endsWith('platform_wasm.c') ? ['-fno-builtin'] : differs ? ['-mrelaxed-simd'] : [];
    run(clang, [...FLAGS, ...extra, '-Isrc', '-Itests', '-c', source, '-o', object]);
    return object;
  });
  const out = join(folder, relaxed ? 'relaxed.wasm' : 'kernels.wasm');
  run(linker, ['--no-entry', '--gc-sections', '--stack-first', '-z', 'stack-size=1048576', ...objects, '-o', out]);
  return readFileSync(out);
}

async function load(relaxed = false) {
  const { instance } = await WebAssembly.instantiate(build(relaxed), { env: { seconds: () => performance.now() / 1000 } });
  return instance.exports;
}

function goldenHashes() {
  const header = readFileSync(join(root, 'tests/golden/kernel_hashes.h'), 'utf8');
  const hashes = Object.fromEntries([...header.matchAll(/#define (GOLDEN_\w+) (0x[0-9a-f]+)/g)].map((m) => [m[1], BigInt(m[2])]));
  return ['LUT8', 'POPCOUNT', 'FLOAT', 'MATHF', 'QUANT', 'CACHE16', 'CACHE8'].map((family) => hashes[`GOLDEN_${family}`]);
}

async function bench() {
  const relaxed = process.argv.includes('--relaxed');
  const kernels = await load(relaxed);
  const shapes = [[288, 576, 1], [576, 288, 1], [576, 576, 1], [1536, 576, 1], [576, 1536, 1], [49152, 576, 4], [49152, 576, 6]];
  const tokens = [0, 2, 3, 4, 6, 8, 9, 12, 16];
  console.log(`GMAC/s, ${relaxed ? 'relaxed' : 'simd128'}; product, batch of ` + tokens.slice(1).join(', '));
  for (let warm = 0; warm < 200; warm++) for (const t of tokens) kernels.bench_product(0, 1, 576, 576, 1, t, 10);
  for (const [rows, cols, planes] of shapes) {
    const speeds = tokens.map((t) => {
      const macs = rows * cols * planes * Math.max(1, t);
      const rounds = Math.ceil(2e9 / macs);
      return (macs / kernels.bench_product(0, 1, rows, cols, planes, t, rounds) / 1e9).toFixed(1).padStart(7);
    });
    console.log(`lut8 ${rows}x${cols} planes ${planes}`.padEnd(30), speeds.join(' '));
  }
  console.log('popcount 1536x576', ((1536 * 576) / kernels.bench_product(1, 1, 1536, 576, 1, 0, 500) / 1e9).toFixed(1));
  ['lut8 prepare 576', 'dots 576 x 16', 'swiglu 1536', 'rmsnorm 576', 'attention 3 x 64 x 128, 16 bits', 'the same, 8 bits', 'popcount prepare 576']
    .forEach((name, what) => {
      let seconds = Infinity;
      for (let round = 0; round < 300; round++) seconds = Math.min(seconds, kernels.bench_other(what, 1, 200));
      console.log(name.padEnd(22), (seconds * 1e6).toFixed(3), 'us');
    });
}

if (process.argv.includes('--bench')) {
  await bench();
} else {
  for (const isa of ['simd128', 'relaxed']) {
    test(`golden hashes of the kernels in WebAssembly, ${isa}`, async () => {
      const kernels = await load(isa === 'relaxed');
      goldenHashes().forEach((expected, family) => {
        assert.ok(expected, `hash of family ${family} in kernel_hashes.h`);
        for (const table of [0, 1]) {
          const actual = BigInt.asUintN(64, kernels.golden(family, table));
          assert.equal(actual.toString(16), expected.toString(16), `family ${family}, ${['ref', isa][table]}`);
        }
      });
    });

    test(`every kernel of ${isa} gives the bits of the reference, on every shape`, async () => {
      const counts = BigInt.asUintN(64, (await load(isa === 'relaxed')).sweep(1));
      const [failed, passed] = [Number(counts >> 32n), Number(counts & 0xffffffffn)];
      assert.equal(failed, 0, `${failed} of ${failed + passed} checks failed`);
      assert.ok(passed > 2000, `only ${passed} checks`);
    });
  }
}
