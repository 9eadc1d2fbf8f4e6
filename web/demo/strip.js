// strip.js - the file as a small matrix of cells that fill as its pieces arrive, one block of cells for each tier.

import { make } from './dom.js';

const ROWS = 4;
const CELLS = 112; // about

/** Plus or minus: cells of a filled strip have two tones, like the signs they stand for. */
const sign = (i) => ((Math.imul(i + 1, 0x9e3779b1) >>> 13) & 3) > 0;

export class Strip {
  /** @param {HTMLElement} root with role progressbar */
  constructor(root) {
    this.root = root;
    this.setEnds([]);
  }

  /** ends: bytes of the file at the end of each tier; the last is its size */
  setEnds(ends) {
    this.ends = ends;
    const size = ends.at(-1) ?? 0;
    this.unit = size / CELLS;
    this.cells = [];
    this.root.replaceChildren(...ends.map((end, i) => this.#makeTier(ends[i - 1] ?? 0, end, i)));
    this.loaded = 0;
  }

  #makeTier(start, end, i) {
    const n = ROWS * Math.max(1, Math.round((end - start) / this.unit / ROWS));
    const grid = make('div', { class: 'cells' });
    for (let k = 0; k < n; k++) {
      const cell = make('i', { class: sign(this.cells.length) ? 'plus' : 'minus' });
      grid.append(cell);
      this.cells.push({ cell, end: start + ((k + 1) * (end - start)) / n });
    }
    const tier = make('div', { class: 'tier', 'data-tier': i + 1 }, grid);
    tier.style.flexGrow = n / ROWS;
    if (this.ends.length > 1) tier.append(make('span', { class: 'tier-name', text: `Tier ${i + 1}` }));
    return tier;
  }

  /** A cell is on when the bytes up to its end have come. */
  update(loaded, total) {
    for (const { cell, end } of this.cells) cell.classList.toggle('on', loaded >= Math.floor(end));
    this.ends.forEach((end, i) => this.root.children[i]?.classList.toggle('whole', loaded >= end));
    const percent = total ? Math.floor((100 * loaded) / total) : 0;
    this.root.setAttribute('aria-valuenow', percent);
    this.loaded = loaded;
  }
}
