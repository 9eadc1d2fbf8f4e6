// matrix.js - one matrix of the model: W = sum of diag(a) A diag(c) B diag(b). Which one, its two sign matrices as pictures, and how
// its scales are spread.

import { make } from '../dom.js';
import { drawHistogram } from './histogram.js';
import { SignView } from './signs.js';

const option = (value, text) => make('option', { value, text });

function field(label, select) {
  return make('label', { class: 'inside-field' }, make('span', { text: label }), select);
}

export class MatrixView {
  #model = null;
  #layers = [];
  #layer = null;
  #turn = 0;

  /** onpick(layer): another matrix was chosen here */
  constructor({ onpick }) {
    this.onpick = onpick;
    const pick = () => this.#pick();
    this.block = make('select', { onchange: pick });
    this.kind = make('select', { onchange: pick });
    this.stage = make('select', { onchange: () => this.#draw() });
    this.views = { A: new SignView('A'), B: new SignView('B') };
    this.scales = make('div', { class: 'inside-scales' });
    this.problem = make('p', { class: 'inside-note', role: 'status' });
    const equation = make('p', { class: 'inside-equation' });
    equation.append('W = \u2211 diag(', em('a'), ') ', strong('A'), ' diag(', em('c'), ') ', strong('B'), ' diag(', em('b'), ')');
    this.element = make('section', { class: 'inside-section', 'aria-labelledby': 'inside-matrix-title', hidden: true },
      make('h3', { id: 'inside-matrix-title', text: 'One matrix' }), equation,
      make('div', { class: 'inside-fields' }, field('Block', this.block), field('Matrix', this.kind), field('Stage', this.stage)),
      this.problem, this.views.A.element, this.views.B.element, this.scales);
  }

  setModel(model, layers) {
    this.#model = model;
    this.#layers = layers;
    this.element.hidden = layers.length === 0;
    this.block.replaceChildren(...[...new Set(layers.map(({ block }) => block))].map((block) => option(block, String(block))));
  }

  show(layer) {
    this.#layer = layer;
    if (!layer) return;
    const kinds = this.#layers.filter(({ block }) => block === layer.block).map(({ name }) => name.split('.').pop());
    this.block.value = layer.block;
    this.kind.replaceChildren(...kinds.map((kind) => option(kind, kind)));
    this.kind.value = layer.name.split('.').pop();
    const stage = Math.min(Number(this.stage.value) || 0, layer.stages.length - 1);
    this.stage.replaceChildren(...layer.stages.map(({ middle, loaded }, i) => option(i, `${i + 1} (k = ${middle})${loaded ? '' : ', not loaded'}`)));
    this.stage.value = layer.stages[stage]?.loaded ? stage : 0;
    this.#draw();
  }

  #pick() {
    const found = this.#layers.find(({ name }) => name === `blk.${this.block.value}.${this.kind.value}`);
    if (found) this.onpick(found);
  }

  async #draw() {
    const turn = ++this.#turn;
    const [layer, stage] = [this.#layer, Number(this.stage.value)];
    const { loaded } = layer.stages[stage];
    this.problem.textContent = loaded ? '' : 'This stage is not loaded: it belongs to a later tier.';
    for (const view of Object.values(this.views)) view.element.hidden = !loaded;
    this.scales.hidden = !loaded;
    if (!loaded) return;
    try {
      const [A, B, scales] = await Promise.all([
        this.#model.signs(layer.name, stage, 'A'), this.#model.signs(layer.name, stage, 'B'), this.#model.scales(layer.name, stage),
      ]);
      if (turn !== this.#turn) return;
      this.views.A.show(A);
      this.views.B.show(B);
      this.scales.replaceChildren(...Object.entries(scales).map(([name, values]) => drawHistogram(name, values)));
    } catch (error) {
      if (turn === this.#turn) this.problem.textContent = error.code === 'disposed' ? '' : `The signs could not be read: ${error.message}`;
    }
  }
}

const em = (text) => make('em', { text });
const strong = (text) => make('strong', { text });
