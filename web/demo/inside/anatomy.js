// anatomy.js - the model drawn: its file tier by tier, every matrix with its stages, and one of them down to the signs.

import { make } from '../dom.js';
import { drawMap } from './map.js';
import { MatrixView } from './matrix.js';

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const bits = (value) => value.toFixed(2);
const PARTS = {
  attn_q: 'queries', attn_k: 'keys', attn_v: 'values', attn_qkv: 'queries, keys and values', attn_output: 'attention output',
  ffn_gate: 'gate', ffn_up: 'up', ffn_gate_up: 'gate and up', ffn_down: 'down',
};

/** 'queries of block 3' */
export function layerTitle({ name, block }) {
  if (block === null) return name === 'token_embd' ? 'embedding' : 'head';
  return `${PARTS[name.split('.').pop()] ?? name} of block ${block}`;
}

export class Anatomy {
  #model = null;
  #turn = 0; // of the latest setModel(): an earlier one that is still waiting draws nothing

  constructor() {
    this.summary = make('p', { class: 'inside-note', text: 'No model is loaded.' });
    this.file = make('div', { class: 'inside-file' });
    this.map = make('div', { class: 'inside-map' });
    this.caption = make('p', { class: 'inside-caption' });
    this.table = make('details', { class: 'inside-table', hidden: true }, make('summary', { text: 'All matrices as a table' }));
    this.table.addEventListener('toggle', () => this.table.open && this.#drawTable());
    this.matrix = new MatrixView({ onpick: (layer) => this.select(layer) });
    const inner = make('section', { class: 'inside-section', 'aria-labelledby': 'inside-model-title' },
      make('h3', { id: 'inside-model-title', text: 'The model' }), this.summary, this.file, this.map, this.caption, this.table);
    this.element = make('div', {}, inner, this.matrix.element);
    this.layers = [];
    this.selected = null; // name
  }

  async setModel(model) {
    const turn = ++this.#turn;
    this.#model = model;
    let [layers, tiers] = [[], []];
    try {
      if (model) [layers, tiers] = await Promise.all([model.layers(), model.fileTiers()]);
    } catch (error) {
      if (error.code !== 'disposed') throw error; // another model takes its place
    }
    if (turn !== this.#turn) return;
    Object.assign(this, { layers, tiers });
    const stacks = layers.filter(({ type }) => type === 'signs');
    this.#drawSummary(layers, stacks);
    this.#drawFile(layers, tiers);
    this.#drawMap(stacks);
    this.table.hidden = layers.length === 0;
    this.table.open = false;
    const kept = stacks.find(({ name }) => name === this.selected) ?? stacks.find(({ name }) => /\.attn_q(kv)?$/.test(name)) ?? null;
    this.matrix.setModel(model, stacks);
    this.select(kept);
  }

  select(layer) {
    this.selected = layer?.name ?? null;
    this.markSelected?.(this.selected);
    this.matrix.show(layer);
    this.#say(layer);
  }

  #say(layer) {
    if (!layer) return void (this.caption.textContent = '');
    const middles = layer.stages.map(({ middle }) => middle);
    const title = layerTitle(layer);
    this.caption.textContent = `${title[0].toUpperCase()}${title.slice(1)}: ${layer.rows} \u00d7 ${layer.columns}, ` +
      `${middles.length === 1 ? 'one stage' : `${middles.length} stages`} of k = ${[...new Set(middles)].join(', ')}, ${bits(layer.bitsPerWeight)} bits per weight`;
  }

  #drawSummary(layers, stacks) {
    if (!this.#model) return void (this.summary.textContent = 'No model is loaded.');
    const { bitsPerWeight, layers: blocks } = this.#model.info;
    const weights = layers.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
    const count = weights >= 1e7 ? `${(weights / 1e6).toFixed(0)} million` : `${(weights / 1e6).toFixed(1)} million`;
    this.summary.textContent = stacks.length > 0
      ? `${count} weights. ${stacks.length} matrices in ${blocks} blocks, each a sum of stages: two matrices of signs and three rows of scales. ${bits(bitsPerWeight)} bits per weight are loaded.`
      : `${count} weights in ${blocks} blocks, not factorized: ${bits(bitsPerWeight)} bits per weight.`;
  }

  /** The file as one bar: what precedes the tiers, then each of them, those that are not loaded hollow. */
  #drawFile(layers, tiers) {
    this.file.replaceChildren();
    if (tiers.length === 0) return;
    const size = tiers.at(-1).bytes;
    const tables = layers.filter(({ block }) => block === null).reduce((sum, each) => sum + each.bits / 8, 0);
    const first = layers.reduce((sum, { stages }) => sum + (stages[0]?.bits ?? 0) / 8, 0);
    const parts = [{ name: 'embedding', bytes: tables, loaded: true, kind: 'base' }];
    tiers.forEach(({ bytes, bitsPerWeight, loaded }, i) => parts.push({
      name: `tier ${i + 1}`, bytes: i === 0 ? first : bytes - tiers[i - 1].bytes, note: `${bits(bitsPerWeight)} bits`, loaded, kind: `stage${Math.min(i, 3)}`,
    }));
    const bar = make('div', { class: 'inside-filebar', 'aria-hidden': 'true' });
    const list = make('ul', { class: 'inside-legend' });
    for (const { name, bytes, note, loaded, kind } of parts) {
      const piece = make('i', { class: `${kind}${loaded ? '' : ' missing'}` });
      piece.style.setProperty('flex-grow', String((100 * bytes) / size));
      bar.append(piece);
      list.append(make('li', {}, make('i', { class: `${kind}${loaded ? '' : ' missing'}` }), `${name} ${megabytes(bytes)}`,
        make('small', { text: [note && `up to ${note} per weight`, loaded ? '' : 'not loaded'].filter(Boolean).join(', ') })));
    }
    this.file.append(bar, list);
  }

  #drawMap(stacks) {
    this.map.replaceChildren();
    if (stacks.length === 0) return;
    const { element, mark } = drawMap(stacks, {
      onhover: (layer) => this.#say(layer ?? stacks.find(({ name }) => name === this.selected)),
      onpick: (layer) => this.select(layer),
    });
    this.markSelected = mark;
    this.map.append(element);
  }

  #drawTable() {
    const head = make('tr', {}, ...['Matrix', 'Shape', 'Stored as', 'Bits per weight'].map((text) => make('th', { scope: 'col', text })));
    const rows = this.layers.map(({ name, rows: n, columns, type, planes, stages, bitsPerWeight }) => make('tr', {},
      make('th', { scope: 'row', text: name }), make('td', { text: `${n} \u00d7 ${columns}` }),
      make('td', { text: type === 'signs' ? `k = ${stages.map(({ middle, loaded }) => (loaded ? middle : `(${middle})`)).join(', ')}` : planes ? `${planes} bit planes` : type }),
      make('td', { text: bits(bitsPerWeight) })));
    const scroller = make('div', { class: 'inside-scroll', tabindex: 0, role: 'region', 'aria-label': 'All matrices' },
      make('table', {}, make('thead', {}, head), make('tbody', {}, ...rows)));
    this.table.replaceChildren(this.table.firstElementChild, scroller);
  }
}
