// The sums behind what the page shows of a model: rates, uncertainty, densities, spreads.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { spreadOf } from '../../web/demo/inside/histogram.js';
import { entropyOf } from '../../web/demo/inside/probabilities.js';
import { densityOf, shareOf, signAt } from '../../web/demo/inside/signs.js';
import { ratesOf } from '../../web/demo/inside/speed.js';

const near = (found, wanted, text) => assert.ok(Math.abs(found - wanted) < 1e-9, `${text ?? ''} ${found}, not ${wanted}`);

test('rates: even tokens give an even line, a pause shows', () => {
  const even = ratesOf(Array.from({ length: 50 }, (_, i) => 5 + i / 20));
  assert.equal(even.length, 49);
  for (const [, rate] of even) assert.ok(Math.abs(rate - 20) < 1e-6, `${rate}`);
  near(even.at(-1)[0], 49 / 20);
  const paused = ratesOf(Array.from({ length: 40 }, (_, i) => i / 20 + (i < 20 ? 0 : 3))).map(([, rate]) => rate);
  assert.ok(paused[15] > 19 && paused[19] < 3 && paused.at(-1) > 19, paused.join());
  assert.deepEqual(ratesOf([]), []);
  assert.deepEqual(ratesOf([1, 1]), [], 'two tokens at once are no rate');
});

test('entropy in bits, what is left over taken as one more', () => {
  const of = (...shares) => entropyOf(shares.map((share) => ({ logprob: Math.log(share) })));
  near(of(1), 0);
  near(of(0.5, 0.5), 1);
  near(of(0.25, 0.25, 0.25, 0.25), 2);
  near(of(0.5), 1, 'the other half is one token');
  near(of(0.5, 0.25), 1.5);
});

test('signs: single ones, their share, and the share in squares at an odd edge', () => {
  const [rows, columns] = [5, 11];
  const at = (row, column) => (row * 7 + column * 3) % 5 < 2;
  const bits = new Uint8Array(rows * 2);
  let ones = 0;
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++)
      if (at(row, column)) {
        ones++;
        bits[row * 2 + (column >> 3)] |= 1 << (column & 7);
      }
  const matrix = { rows, columns, bits };
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) assert.equal(signAt(matrix, row, column), Number(at(row, column)));
  near(shareOf(matrix), ones / 55);
  const { width, height, shares } = densityOf(matrix, 3);
  assert.deepEqual([width, height], [4, 2]);
  const square = (y, x) => {
    const signs = [];
    for (let row = 3 * y; row < Math.min(rows, 3 * y + 3); row++) for (let column = 3 * x; column < Math.min(columns, 3 * x + 3); column++) signs.push(Number(at(row, column)));
    return signs.reduce((sum, sign) => sum + sign, 0) / signs.length;
  };
  for (let y = 0; y < 2; y++) for (let x = 0; x < 4; x++) assert.ok(Math.abs(shares[y * 4 + x] - square(y, x)) < 1e-6, `square ${y}, ${x}`);
});

test('a histogram counts every value once', () => {
  const values = Float32Array.from({ length: 1000 }, (_, i) => Math.sin(i));
  const { low, high, mean, bins } = spreadOf(values);
  assert.equal(bins.reduce((sum, count) => sum + count, 0), 1000);
  assert.ok(low < -0.99 && high > 0.99 && Math.abs(mean) < 0.01);
  assert.equal(spreadOf(Float32Array.of(2, 2)).bins[0], 2, 'all the same');
});
