// meter.js - what onProgress gets while a model loads: bytes, rate and the time that is left, retries.

const REPORT_EVERY = 0.1; // seconds between two reports
const REPORT_IDLE = 1;     // seconds after which one is made although nothing came
const RATE_WINDOW = 3;    // seconds over which the rate is averaged

export class Meter {
  constructor(send) {
    this.send = send;
    this.total = null;
    this.retries = 0;
    this.lastError = null; // why something was tried again
    this.tier = 0;
    this.paused = false;
    this.cacheReason = null;
    this.last = -Infinity;
    this.later = null; // timer of the next report
    this.early = false; // does it make up for one that came too early?
    this.loaded = 0;
    this.restart();
  }

  /** What came before says nothing about the rate from here on. */
  restart() {
    this.samples = [];
  }

  pause(yes) {
    this.paused = yes;
    this.restart();
    this.report(this.loaded, true);
  }

  /** Something is tried again. error: why, where it was not a checksum */
  again(error) {
    this.retries++;
    if (error) this.lastError = error.message;
    this.report(this.loaded, true);
  }

  reach(tier) {
    this.tier = tier;
    this.report(this.loaded);
  }

  /** Nothing is reported any more but what is asked for. */
  end() {
    clearTimeout(this.later);
    this.later = null;
    this.early = false;
  }

  reportIn(seconds) {
    this.end();
    this.later = setTimeout(() => this.report(this.loaded, true), 1000 * seconds);
  }

  report(loaded, now) {
    this.loaded = loaded;
    const time = performance.now() / 1000;
    const early = this.last + REPORT_EVERY - time;
    if (!now && early > 0) {
      if (!this.early) this.reportIn(early);
      this.early = true;
      return;
    }
    if (this.paused) this.end();
    else this.reportIn(REPORT_IDLE); // nothing else may come for long: then the rate falls
    this.last = time;
    this.samples.push([time, loaded]);
    while (this.samples.length > 2 && time - this.samples[0][0] > RATE_WINDOW) this.samples.shift();
    const [since, from] = this.samples[0];
    const rate = !this.paused && time > since ? Math.max(0, loaded - from) / (time - since) : null;
    const { total, retries, lastError, cacheReason, paused, tier } = this;
    const eta = loaded === total ? 0 : rate > 0 && total !== null ? Math.max(0, total - loaded) / rate : null;
    this.send({ phase: 'download', paused, tier, loaded, total, rate, eta, retries, lastError, cacheReason });
  }
}
