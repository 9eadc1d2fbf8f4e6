// signs.js - a matrix of signs as a picture: a pixel, or a square of them, per sign where there is room; where there is not, the
// share of +1 in what a pixel covers. Moved by dragging and arrow keys, zoomed by buttons, + and -, Ctrl and the wheel.

import { make } from '../dom.js';

const ZOOMS = [1, 2, 4, 8, 16]; // CSS pixels per sign, after the whole
const WHOLE = 0;                // place in zooms: the whole matrix

export const signAt = ({ columns, bits }, row, column) => (bits[row * Math.ceil(columns / 8) + (column >> 3)] >> (column & 7)) & 1;

/** Share of +1 */
export function shareOf({ rows, columns, bits }) {
  let ones = 0;
  for (let byte of bits) for (; byte; byte &= byte - 1) ones++; // bits past the last column are 0
  return ones / (rows * columns);
}

/** out [height * width] <- share of +1 in each square of `step` signs, from the top left on */
export function densityOf(matrix, step) {
  const [width, height] = [Math.ceil(matrix.columns / step), Math.ceil(matrix.rows / step)];
  const ones = new Float32Array(width * height);
  for (let row = 0; row < matrix.rows; row++) {
    const at = Math.floor(row / step) * width;
    for (let column = 0; column < matrix.columns; column++) ones[at + Math.floor(column / step)] += signAt(matrix, row, column);
  }
  for (let y = 0; y < height; y++) {
    const tall = Math.min(step, matrix.rows - y * step);
    for (let x = 0; x < width; x++) ones[y * width + x] /= tall * Math.min(step, matrix.columns - x * step);
  }
  return { width, height, shares: ones };
}

export class SignView {
  #matrix = null;
  #zoom = 2;         // index into [whole, ...ZOOMS]
  #x = 0;            // sign in the top left corner, fractions included
  #y = 0;
  #frame = 0;

  constructor(name) {
    this.name = name;
    this.canvas = make('canvas', { role: 'img', 'aria-label': `Signs of ${name}` });
    this.readout = make('span', { class: 'inside-readout' });
    this.title = make('figcaption', {}, make('strong', { text: name }), this.readout);
    const zoomButton = (text, label, by) => make('button', { type: 'button', class: 'quiet', 'aria-label': label, title: label, text, onclick: () => this.#zoomBy(by) });
    this.out = zoomButton('\u2212', `Zoom out of ${name}`, -1);
    this.in = zoomButton('+', `Zoom into ${name}`, 1);
    this.stage = make('div', { class: 'inside-signs', tabindex: 0, role: 'group', 'aria-label': `${name}: arrow keys move the picture, plus and minus zoom` }, this.canvas);
    this.element = make('figure', { class: 'inside-figure' },
      make('div', { class: 'inside-figure-head' }, this.title, make('div', { class: 'inside-zoom' }, this.out, this.in)), this.stage);
    this.#listen();
  }

  show(matrix) {
    this.#matrix = matrix;
    this.#x = this.#y = 0;
    const share = (100 * shareOf(matrix)).toFixed(1);
    this.facts = `${matrix.rows} \u00d7 ${matrix.columns}, ${share} % are +1`;
    this.canvas.setAttribute('aria-label', `Signs of ${this.name}, ${matrix.rows} rows and ${matrix.columns} columns: ${share} % are plus one`);
    this.readout.textContent = this.facts;
    this.#later();
  }

  #listen() {
    const { stage } = this;
    new ResizeObserver(() => this.#later()).observe(stage);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#later());
    new MutationObserver(() => this.#later()).observe(document.documentElement, { attributeFilter: ['data-theme'] });
    stage.addEventListener('keydown', (event) => this.#key(event));
    stage.addEventListener('wheel', (event) => {
      if (!event.ctrlKey) return; // without it the panel scrolls
      event.preventDefault();
      this.#zoomBy(event.deltaY < 0 ? 1 : -1);
    }, { passive: false });
    stage.addEventListener('pointerdown', (event) => this.#grab(event));
    stage.addEventListener('pointermove', (event) => this.#read(event));
    stage.addEventListener('pointerleave', () => (this.readout.textContent = this.facts));
  }

  #key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const far = 0.25 * this.stage.clientWidth / this.#scale();
    if (moves[event.key]) this.#moveTo(this.#x + far * moves[event.key][0], this.#y + far * moves[event.key][1]);
    else if (event.key === '+' || event.key === '=') this.#zoomBy(1);
    else if (event.key === '-') this.#zoomBy(-1);
    else if (event.key === 'Home') this.#moveTo(0, 0);
    else return;
    event.preventDefault();
  }

  #grab(event) {
    if (this.#zoom === WHOLE || event.button !== 0) return;
    const [x, y, scale] = [this.#x, this.#y, this.#scale()];
    const move = (next) => this.#moveTo(x - (next.clientX - event.clientX) / scale, y - (next.clientY - event.clientY) / scale);
    const release = () => this.stage.removeEventListener('pointermove', move);
    this.stage.setPointerCapture(event.pointerId);
    this.stage.addEventListener('pointermove', move);
    for (const end of ['pointerup', 'pointercancel']) this.stage.addEventListener(end, release, { once: true });
  }

  #read(event) {
    const box = this.stage.getBoundingClientRect();
    const column = Math.floor(this.#x + (event.clientX - box.left) / this.#scale());
    const row = Math.floor(this.#y + (event.clientY - box.top) / this.#scale());
    const matrix = this.#matrix;
    const inside = matrix && row >= 0 && column >= 0 && row < matrix.rows && column < matrix.columns;
    this.readout.textContent = inside ? `row ${row}, column ${column}: ${signAt(matrix, row, column) ? '+1' : '\u22121'}` : this.facts;
  }

  /** CSS pixels per sign */
  #scale() {
    if (this.#zoom !== WHOLE || !this.#matrix) return ZOOMS[this.#zoom - 1] ?? 1;
    const { rows, columns } = this.#matrix;
    return Math.min(this.stage.clientWidth / columns, this.stage.clientHeight / rows);
  }

  #zoomBy(by) {
    const centre = (size) => 0.5 * size / this.#scale();
    const [x, y] = [this.#x + centre(this.stage.clientWidth), this.#y + centre(this.stage.clientHeight)];
    this.#zoom = Math.min(ZOOMS.length, Math.max(WHOLE, this.#zoom + by));
    this.#moveTo(x - centre(this.stage.clientWidth), y - centre(this.stage.clientHeight));
  }

  #moveTo(x, y) {
    if (!this.#matrix) return;
    const { rows, columns } = this.#matrix;
    const most = (size, count) => Math.max(0, count - size / this.#scale());
    this.#x = this.#zoom === WHOLE ? 0 : Math.min(Math.max(0, x), most(this.stage.clientWidth, columns));
    this.#y = this.#zoom === WHOLE ? 0 : Math.min(Math.max(0, y), most(this.stage.clientHeight, rows));
    this.#later();
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#draw();
    });
  }

  #draw() {
    const { canvas, stage } = this;
    const [width, height] = [Math.round(stage.clientWidth * devicePixelRatio), Math.round(stage.clientHeight * devicePixelRatio)];
    if (!this.#matrix || width === 0 || height === 0) return;
    this.out.disabled = this.#zoom === WHOLE;
    this.in.disabled = this.#zoom === ZOOMS.length;
    stage.classList.toggle('movable', this.#zoom !== WHOLE);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const scale = this.#scale() * devicePixelRatio;
    if (scale < 1) this.#drawShares(context, scale);
    else this.#drawSigns(context, scale, Math.ceil(width / scale) + 1, Math.ceil(height / scale) + 1);
  }

  /** Signs [tall, wide] from the corner on, as squares of `scale` device pixels. */
  #drawSigns(context, scale, wide, tall) {
    const matrix = this.#matrix;
    const [left, top] = [Math.floor(this.#x), Math.floor(this.#y)];
    const [columns, rows] = [Math.min(wide, matrix.columns - left), Math.min(tall, matrix.rows - top)];
    const picture = paint(columns, rows, this.#colours(), (i) => signAt(matrix, top + Math.floor(i / columns), left + (i % columns)));
    context.drawImage(picture, Math.round((left - this.#x) * scale), Math.round((top - this.#y) * scale), columns * scale, rows * scale);
  }

  #drawShares(context, scale) {
    const step = Math.ceil(1 / scale);
    const { width, height, shares } = densityOf(this.#matrix, step);
    const picture = paint(width, height, this.#colours(), (i) => shares[i]);
    context.drawImage(picture, 0, 0, Math.round(this.#matrix.columns * scale), Math.round(this.#matrix.rows * scale));
  }

  /** Of -1 and +1: background and text of the stage. */
  #colours() {
    const { color, backgroundColor } = getComputedStyle(this.stage);
    return [backgroundColor, color].map(rgb);
  }
}

function rgb(colour) {
  const context = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return context.getImageData(0, 0, 1, 1).data;
}

/** A canvas of one pixel per value, 0 to 1 between two colours. */
function paint(width, height, [low, high], valueAt) {
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const context = canvas.getContext('2d');
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    const value = valueAt(i);
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + value * (high[c] - low[c]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
