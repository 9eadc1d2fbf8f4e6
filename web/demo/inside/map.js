// map.js - every matrix of the model in one picture: a row per block, a field per matrix, as wide as the bits it takes, cut into its
// stages. Fields of one kind begin at the same place, so blocks that were given fewer bits are seen at once. For pointers; the
// fields of the matrix view choose the same by keyboard, and a table says the same in words.

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 360;
const GAP = 3;      // between kinds
const HEAD = 16;    // height of the line of names
const SHORT = {
  attn_q: 'q', attn_k: 'k', attn_v: 'v', attn_qkv: 'q k v', attn_output: 'o', ffn_gate: 'gate', ffn_up: 'up', ffn_gate_up: 'gate up', ffn_down: 'down',
};

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const kindOf = ({ name }) => name.split('.').pop();
const bitsOf = ({ stages }) => stages.reduce((sum, { bits }) => sum + bits, 0);

/** kind -> {x, scale: units per bit} */
function columnsOf(layers) {
  const widest = new Map();
  for (const layer of layers) widest.set(kindOf(layer), Math.max(widest.get(kindOf(layer)) ?? 0, bitsOf(layer)));
  const total = [...widest.values()].reduce((sum, each) => sum + each, 0);
  const scale = (WIDTH - GAP * (widest.size - 1)) / total;
  let x = 0;
  const columns = new Map();
  for (const [kind, bits] of widest) {
    columns.set(kind, { x, width: bits * scale, scale });
    x += bits * scale + GAP;
  }
  return columns;
}

/**
 * @param {object[]} layers LayerInfo of type 'signs'
 * @param {{onhover(layer | null): void, onpick(layer): void}} actions
 * @returns {{element: SVGElement, mark(name: string | null): void}}
 */
export function drawMap(layers, { onhover, onpick }) {
  const blocks = Math.max(...layers.map(({ block }) => block)) + 1;
  const step = Math.max(5, Math.min(26, Math.round(300 / blocks)));
  const columns = columnsOf(layers);
  const element = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEAD + blocks * step}`, role: 'img',
    'aria-label': `${layers.length} matrices in ${blocks} blocks, each as wide as the bits it takes. A table below says the same.`,
  });
  for (const [kind, { x, width }] of columns) {
    if (width > 8) element.append(svg('text', { x: x + width / 2, y: HEAD - 5, class: 'kind' }, SHORT[kind] ?? kind));
  }
  const places = new Map();
  for (const layer of layers) {
    const { x, scale } = columns.get(kindOf(layer));
    const y = HEAD + layer.block * step;
    const field = svg('g', { 'data-name': layer.name });
    let at = x;
    layer.stages.forEach(({ bits, loaded }, i) => {
      field.append(svg('rect', { x: at.toFixed(2), y, width: Math.max(0.5, bits * scale - 0.6).toFixed(2), height: step - 1, rx: 1, class: `stage${Math.min(i, 3)}${loaded ? '' : ' missing'}` }));
      at += bits * scale;
    });
    places.set(layer.name, { layer, x, y, width: at - x });
    element.append(field);
  }
  const frame = svg('rect', { class: 'frame', rx: 2, x: 0, y: 0, width: 0, height: 0 });
  element.append(frame);
  const layerAt = ({ target }) => places.get(target.closest('[data-name]')?.dataset.name)?.layer ?? null;
  element.addEventListener('pointermove', (event) => onhover(layerAt(event)));
  element.addEventListener('pointerleave', () => onhover(null));
  element.addEventListener('click', (event) => layerAt(event) && onpick(layerAt(event)));
  return {
    element,
    mark(name) {
      const place = places.get(name);
      frame.setAttribute('visibility', place ? 'visible' : 'hidden');
      if (!place) return;
      const { x, y, width } = place;
      for (const [key, value] of Object.entries({ x: x - 1.5, y: y - 1.5, width: width + 2.4, height: step + 2 })) frame.setAttribute(key, value);
    },
  };
}
