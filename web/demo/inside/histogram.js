// histogram.js - how the scales of a stage are spread.

import { make } from '../dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const BINS = 28;
const [WIDTH, HEIGHT] = [112, 44];

/** {low, high, mean, bins: counts} */
export function spreadOf(values) {
  let [low, high, sum] = [Infinity, -Infinity, 0];
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
    sum += value;
  }
  const bins = new Array(BINS).fill(0);
  const width = (high - low) / BINS || 1;
  for (const value of values) bins[Math.min(BINS - 1, Math.floor((value - low) / width))]++;
  return { low, high, mean: sum / values.length, bins };
}

const short = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2))));

export function drawHistogram(name, values) {
  const { low, high, mean, bins } = spreadOf(values);
  const most = Math.max(...bins);
  const picture = document.createElementNS(SVG, 'svg');
  picture.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  picture.setAttribute('role', 'img');
  picture.setAttribute('aria-label', `Scales ${name}: ${values.length} values from ${short(low)} to ${short(high)}, ${short(mean)} on average`);
  bins.forEach((count, i) => {
    const height = (count / most) * (HEIGHT - 2);
    const bar = document.createElementNS(SVG, 'rect');
    for (const [key, value] of Object.entries({ x: (i * WIDTH) / BINS, y: HEIGHT - height, width: WIDTH / BINS - 0.8, height })) bar.setAttribute(key, value);
    picture.append(bar);
  });
  return make('figure', { class: 'inside-histogram' }, picture,
    make('figcaption', {}, make('em', { text: name }), make('small', { text: `${values.length} scales, ${short(low)} to ${short(high)}` })));
}
