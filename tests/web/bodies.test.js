// Bodies that are read: a Response or stream of which there is a second one, one that breaks off.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { estimateMemory, load } from '../../web/index.js';
import { fixtureBytes, loadsFixture, refused } from './helper.js';

const bytes = fixtureBytes();
const options = { threads: 1, cache: false, retries: 0 };
const limits = { timeout: 300_000 }; // for what would never settle

/** Some bytes, and then an error. */
function breaking(error) {
  let begun = false;
  const pull = (controller) => {
    if (begun) controller.error(error);
    else controller.enqueue(bytes.slice(0, 100));
    begun = true;
  };
  return new ReadableStream({ pull }, { highWaterMark: 0 });
}

describe('one of two that are read from the same body', limits, () => {
  test('an estimate of a clone, then the Response itself', async () => {
    const response = new Response(bytes);
    assert.ok((await estimateMemory(response.clone(), options)).total > bytes.length);
    await loadsFixture(response);
  });

  test('a load of a clone, then the Response itself', async () => {
    const response = new Response(bytes);
    await loadsFixture(response.clone());
    await loadsFixture(response);
  });

  test('both at once', async () => {
    const [one, other] = new Blob([bytes]).stream().tee();
    await Promise.all([loadsFixture(one), loadsFixture(other)]);
  });

  test('a load that fails', async () => {
    await refused(load(new Response('<!doctype html>').clone(), options), 'format', /doctype/);
    await refused(load(new Response(bytes.slice(0, 5000)).clone(), options), 'format', /./);
    await refused(load(new Response(bytes).clone(), { ...options, workerUrl: new URL('none.js', import.meta.url) }), 'worker', /./);
  });

  test('a load that is stopped', async () => {
    const stop = new AbortController();
    const stuck = new ReadableStream({ start: (controller) => controller.enqueue(bytes.slice(0, 100)) });
    const loading = load(stuck.tee()[0], { ...options, signal: stop.signal, onProgress: () => stop.abort() });
    await refused(loading, 'aborted', /./);
  });

  test('the stream is told that nobody reads it any more', async () => {
    let cancelled = false;
    const pull = (controller) => controller.enqueue(new TextEncoder().encode('<!doctype html>'));
    await refused(load(new ReadableStream({ pull, cancel: () => (cancelled = true) }), options), 'format', /doctype/);
    assert.equal(cancelled, true);
  });
});

describe('a body that breaks off', limits, () => {
  test('of a Response: the network', async () => {
    await refused(load(new Response(breaking(new Error('lost'))), options), 'network', /the Response broke off: lost/);
    await refused(load(new Response(breaking('lost')), options), 'network', /the Response broke off: lost/);
  });

  test('a stream: whatever it is, it cannot be read', async () => {
    await refused(load(breaking(new Error('lost')), options), 'io', /cannot be read: lost/);
  });
});
