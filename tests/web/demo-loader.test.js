// The demo page's loader, without the page: which model it has when several are asked for at once.

import assert from 'node:assert/strict';
import { after, before, beforeEach, afterEach, describe, test } from 'node:test';

import { load } from '../../web/index.js';
import { fixtureBytes } from './helper.js';

const bytes = fixtureBytes();
const limits = { timeout: 300_000 };

describe('models that are asked for at once', limits, () => {
  let Loader;
  let sources; // the same file up to each of its tiers, so that they differ in size
  let loader;
  before(async () => {
    globalThis.location = { search: '', origin: 'http://page.test' };
    ({ Loader } = await import('../../web/demo/loader.js'));
    const model = await load(bytes, { threads: 1, cache: false });
    sources = (await model.fileTiers()).map((tier, i) => ({ name: `to tier ${i + 1}`, file: new Blob([bytes.subarray(0, tier.bytes)]) }));
    await model.dispose();
  });
  after(() => delete globalThis.location);
  beforeEach(() => (loader = new Loader()));
  afterEach(async () => {
    await loader.cancel();
    await loader.model?.dispose();
  });

  /** The loader has this one, and says so. */
  const has = (source) => assert.deepEqual(
    [loader.source, loader.state, loader.model?.info.bytes, loader.size], [source, 'ready', source.file.size, source.file.size]);

  /** A load that ends only when it is stopped. */
  const begin = () => {
    loader.use({ name: 'silent', file: new ReadableStream() });
    return new Promise((resolve) => (loader.onchange = () => loader.state === 'loading' && resolve()));
  };

  test('while a load is being stopped: the last', async () => {
    await begin();
    await Promise.all([loader.use(sources[0]), loader.use(sources[1]), loader.use(sources[2])]);
    has(sources[2]);
  });

  test('one after the other, while a model is being put away', async () => {
    await loader.use(sources[0]);
    has(sources[0]);
    const first = loader.use(sources[1]);
    await new Promise(setImmediate);
    await Promise.all([first, loader.use(sources[2])]);
    has(sources[2]);
  });

  test('while somebody who needs a model begins anew with the one before', async () => {
    await loader.use(sources[0]);
    let asked = false;
    loader.onmodel = (model) => {
      if (model || asked) return;
      asked = true;
      loader.whenReady(new AbortController().signal).catch(() => {});
    };
    await loader.use(sources[1]);
    assert.equal(asked, true);
    has(sources[1]);
  });
});
