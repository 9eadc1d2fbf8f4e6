// speed.js - how fast it goes: tokens per second over time, the time to the first token, and what that depends on.

import { capabilities } from '../../index.js';
import { make } from '../dom.js';

const WINDOW = 0.6; // seconds that a rate is taken over,
const LEAST = 6;    // and at least so many tokens
const HEIGHT = 132; // of the chart, in CSS pixels

const ISAS = {
  simd128: ['SIMD128', 'instructions on 16 bytes at a time, which every browser of today has'],
  relaxed: ['relaxed SIMD', 'byte shuffles and dot products as this processor does them itself'],
  ref: ['scalar', 'one number at a time'],
};

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const seconds = (value) => (value < 1 ? `${Math.round(1000 * value)} ms` : `${value.toFixed(1)} s`);
const rateText = (rate) => (rate < 100 ? rate.toFixed(1) : rate.toFixed(0));

/** Rates at the times (s) of tokens: [[time since the first, tokens per second]] */
export function ratesOf(times) {
  const points = [];
  for (let i = 1, first = 0; i < times.length; i++) {
    while (first < i - LEAST && times[i] - times[first] > WINDOW) first++;
    if (times[i] > times[first]) points.push([times[i] - times[0], (i - first) / (times[i] - times[first])]);
  }
  return points;
}

export class SpeedView {
  #times = [];   // of the tokens, in seconds
  #tiers = [];   // {time, tier}: from when on
  #started = 0;
  #plot = null;
  #frame = 0;

  constructor() {
    this.number = make('strong', { class: 'inside-big', text: '\u2013' });
    this.phase = make('span', { class: 'inside-phase', text: 'tokens per second' });
    this.bar = make('div', { class: 'inside-bar', role: 'progressbar', 'aria-label': 'Prompt read', 'aria-valuemin': 0, 'aria-valuemax': 100, hidden: true }, make('i'));
    this.chart = make('div', { class: 'inside-chart', role: 'img', 'aria-label': 'Tokens per second over time: no answer yet' });
    this.facts = make('dl', { class: 'inside-facts' });
    this.element = make('section', { class: 'inside-section', 'aria-labelledby': 'inside-speed-title' },
      make('h3', { id: 'inside-speed-title', text: 'Speed' }),
      make('p', { class: 'inside-now' }, this.number, this.phase), this.bar, this.chart, this.facts);
    this.figures = {}; // of the latest answer
    this.model = null;
  }

  async setModel(model) {
    this.model = model;
    this.#drawFacts();
    await this.#measure();
  }

  /** What is not in model.info: where the memory goes, what this browser could do. */
  async #measure() {
    const { model } = this;
    const [stats, host] = await Promise.all([model?.stats(), this.host ?? capabilities()]).catch(() => [null, null]);
    if (model !== this.model) return;
    Object.assign(this, { stats, host });
    this.#drawFacts();
  }

  async show() {
    this.shown = true;
    this.observer ??= new ResizeObserver(() => this.#resize());
    this.observer.observe(this.chart);
    await this.#open();
    this.#later();
  }

  hide() {
    this.shown = false;
    this.observer?.disconnect();
  }

  begin({ tier } = {}) {
    this.#times = [];
    this.#tiers = tier ? [{ time: 0, tier }] : [];
    this.#started = performance.now() / 1000;
    this.figures = {};
    this.number.textContent = '\u2013';
    this.phase.textContent = 'reading the prompt';
    this.#drawFacts();
    this.#later();
  }

  prefill({ done, total }) {
    const percent = Math.floor((100 * done) / total);
    this.bar.hidden = done >= total;
    this.bar.setAttribute('aria-valuenow', percent);
    this.bar.firstElementChild.style.setProperty('inline-size', `${percent}%`);
    this.phase.textContent = `reading the prompt: ${done} of ${total} tokens`;
  }

  token({ time = performance.now(), tier }) {
    const at = time / 1000;
    if (this.#times.length === 0) {
      this.bar.hidden = true;
      this.figures.first = at - this.#started;
      this.phase.textContent = 'tokens per second';
    }
    if (tier && this.#tiers.at(-1)?.tier !== tier) this.#tiers.push({ time: at - (this.#times[0] ?? at), tier });
    this.#times.push(at);
    this.#later();
  }

  end(stats) {
    this.bar.hidden = true;
    this.phase.textContent = 'tokens per second';
    this.#draw();
    if (stats) {
      this.figures = { first: stats.timeToFirstToken, prompt: stats.promptTokens, cached: stats.cachedTokens, prefill: stats.prefillTokensPerSecond, count: stats.completionTokens };
      if (stats.decodeTokensPerSecond) this.number.textContent = rateText(stats.decodeTokensPerSecond);
    }
    this.#drawFacts();
    this.#describe();
    this.#measure();
  }

  // ---- drawing ----

  #later() {
    this.#frame ||= requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (!this.shown) return;
    const points = ratesOf(this.#times);
    if (points.length > 0) this.number.textContent = rateText(points.at(-1)[1]);
    this.#plot?.setData([points.map(([x]) => x), points.map(([, y]) => y)]);
    if (this.#times.length === 1) this.#drawFacts();
  }

  /** What the chart shows, in words, once it stands still. */
  #describe() {
    const rates = ratesOf(this.#times).map(([, rate]) => rate);
    if (rates.length === 0) return;
    const mean = (this.#times.length - 1) / (this.#times.at(-1) - this.#times[0]);
    this.chart.setAttribute('aria-label', `Tokens per second over ${seconds(this.#times.at(-1) - this.#times[0])}: ` +
      `from ${rateText(Math.min(...rates))} to ${rateText(Math.max(...rates))}, ${rateText(mean)} on average`);
  }

  async #open() {
    if (this.#plot || this.opening) return;
    this.opening = true;
    const { default: Plot } = await import('uplot');
    const color = (name) => () => resolveColor(this.chart, name);
    const axis = { stroke: color('--muted'), grid: { stroke: color('--line'), width: 1 }, ticks: { show: false }, font: '11px system-ui, sans-serif' };
    this.#plot = new Plot({
      width: Math.max(160, this.chart.clientWidth), height: HEIGHT, legend: { show: false }, padding: [8, 8, 0, 0],
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: { x: { time: false, range: (_, low, high) => [0, Math.max(2, high ?? 0)] }, y: { range: (_, low, high) => [0, Math.max(10, 1.15 * (high ?? 0))] } },
      axes: [
        { ...axis, size: 26, values: (_, ticks) => ticks.map((tick) => `${tick} s`), grid: { show: false } },
        { ...axis, size: 34, space: 34 },
      ],
      series: [{}, { stroke: color('--accent'), width: 2, points: { show: false }, fill: color('--accent-soft') }],
      hooks: { draw: [(plot) => this.#markTiers(plot)] },
    }, [[], []], this.chart);
    this.#resize();
  }

  /** A line where a tier came while the answer was written. */
  #markTiers(plot) {
    const { ctx } = plot;
    ctx.save();
    ctx.strokeStyle = ctx.fillStyle = resolveColor(this.chart, '--muted');
    ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
    for (const { time, tier } of this.#tiers.slice(1)) {
      const x = Math.round(plot.valToPos(time, 'x', true));
      ctx.fillRect(x, plot.bbox.top, 1, plot.bbox.height);
      ctx.fillText(`tier ${tier}`, x + 5 * devicePixelRatio, plot.bbox.top + 11 * devicePixelRatio);
    }
    ctx.restore();
  }

  #resize() {
    if (this.#plot && this.chart.clientWidth > 0) this.#plot.setSize({ width: this.chart.clientWidth, height: HEIGHT });
  }

  #drawFacts() {
    const { first, prompt, cached, prefill, count } = this.figures;
    const rows = [];
    const add = (term, value, note) => value && rows.push(make('div', {}, make('dt', { text: term }), make('dd', {}, value, ...(note ? [make('small', { text: note })] : []))));
    add('First token', first === undefined || first === null ? '' : seconds(first));
    add('Prompt', prompt ? `${prompt} tokens` : '', prompt && [prefill > 0 ? `${rateText(prefill)} tokens/s` : '', cached ? `${cached} known from before` : ''].filter(Boolean).join(', '));
    add('Answer', count ? `${count} tokens` : '');
    if (this.model) this.#addModelFacts(add);
    this.facts.replaceChildren(...rows);
  }

  #addModelFacts(add) {
    const { threads, threadsReason, isa, memoryBytes, bytes, contextSize } = this.model.info;
    const [name, why] = ISAS[isa] ?? [isa, ''];
    const { total = memoryBytes, weights = bytes, sessions = 0 } = this.stats?.memory ?? {};
    const relaxed = !this.host || isa === 'relaxed' ? '' : this.host.relaxedSimd ? '; this one knows relaxed SIMD too' : '; this one has no relaxed SIMD';
    add('Threads', String(threads), threadsReason ?? `of ${this.host?.logicalProcessors ?? navigator.hardwareConcurrency} logical processors`);
    add('Kernels', name, why + relaxed);
    add('Memory', megabytes(total), `${megabytes(weights)} the model's file${sessions ? `, ${megabytes(sessions)} room for what it reads and writes` : ''}`);
    add('Context', `${contextSize} tokens`);
  }
}

/** A custom property as a colour that a canvas knows: light-dark() and the like are resolved. */
function resolveColor(element, name) {
  const probe = make('i', { hidden: true });
  probe.style.setProperty('color', `var(${name})`);
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
