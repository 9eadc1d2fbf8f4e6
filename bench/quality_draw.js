// quality_draw.js - the table and the picture of quality.js, from its rows:
// {name, kind: 'teacher' | 'baseline' | 'ours', line?, bytes, packed, bits_per_weight, texts: [{ppl, teacher_ppl, kl, top1}], mean?, mean_se?}.

const bySize = (rows) => [...rows].sort((a, b) => b.bytes - a.bytes);
const ratio = (row, i) => row.texts[i].ppl / row.texts[i].teacher_ppl;

/** A number in few digits: 25.12, 152, 1,204. */
const short = (x) => (x < 100 ? x.toFixed(2) : Math.round(x).toLocaleString('en-US'));

/** The Markdown table: rows by size, one group of columns per text. */
export function tableOf(rows, textNames) {
  const tasks = rows.some(({ mean }) => mean !== undefined);
  const head = ['file', 'bytes', 'bits per weight'];
  for (const name of textNames) head.push(`${name}: perplexity (x teacher)`, 'KL', 'top-1');
  if (tasks) head.push('zero-shot mean');
  const lines = bySize(rows).map((row) => {
    const cells = [row.name, row.bytes.toLocaleString('en-US') + (row.packed ? ' *' : ''), row.bits_per_weight.toFixed(2)];
    textNames.forEach((_, i) => {
      const { ppl, kl, top1 } = row.texts[i];
      cells.push(`${short(ppl)} (${short(ratio(row, i))})`, kl.toFixed(3), `${(100 * top1).toFixed(1)} %`);
    });
    if (tasks) cells.push(row.mean === undefined ? '' : `${(100 * row.mean).toFixed(1)} ± ${(100 * row.mean_se).toFixed(1)} %`);
    return `| ${cells.join(' | ')} |`;
  });
  const packed = rows.some((row) => row.packed) ? ['', '\\* as packed bits; the file that is measured stores them wider.'] : [];
  return [`| ${head.join(' | ')} |`, `|${'---|'.repeat(head.length)}`, ...lines, ...packed].join('\n');
}

// ---- the picture -----------------------------------------------------------------------------------------------------

const WIDTH = 960;
const HEIGHT = 430;
const BOX = { top: 64, bottom: HEIGHT - 52 };
const FONT = 12;
const CAP = 6; // ratios beyond are drawn at the upper edge, with their number

const STYLE = '.bg{fill:#fff}.t{fill:#1f2430}.m{fill:#667085}.g{stroke:#e4e7ec}.ax{stroke:#98a2b3}.ours{fill:#2f5fd0;stroke:#2f5fd0}'
  + '.baseline{fill:#e39b2d;stroke:#e39b2d}.teacher{fill:#667085;stroke:#667085}.link{fill:none;stroke-width:1.5;opacity:.55}'
  + '@media (prefers-color-scheme:dark){.bg{fill:#0e1116}.t{fill:#e8eaf0}.m{fill:#98a2b3}.g{stroke:#232a36}.ax{stroke:#667085}'
  + '.ours{fill:#6f9bff;stroke:#6f9bff}.baseline{fill:#f0b35a;stroke:#f0b35a}.teacher{fill:#98a2b3;stroke:#98a2b3}}';

const escape = (s) => s.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);
const text = (x, y, s, css = 't', anchor = 'start', size = FONT) =>
  `<text class="${css}" x="${x.toFixed(1)}" y="${y.toFixed(1)}" font-size="${size}" text-anchor="${anchor}">${escape(s)}</text>`;
const line = (x1, y1, x2, y2, css) =>
  `<line class="${css}" x1="${x1.toFixed(1)}" y1="${y1.toFixed(1)}" x2="${x2.toFixed(1)}" y2="${y2.toFixed(1)}"/>`;

/** Round steps: at most `most` of them between 0 and `top`. */
function stepOf(top, most) {
  const step = 10 ** Math.floor(Math.log10(top / most));
  return [1, 2, 5, 10].map((k) => k * step).find((s) => top / s <= most);
}

/** Where x (MB) and y (ratio, log) lie in a panel. */
function scalesOf(rows, i, left, right) {
  const sizes = rows.map(({ bytes }) => bytes / 1e6);
  const step = stepOf(Math.max(...sizes) * 1.1, 8);
  const first = Math.floor((Math.min(...sizes) * 0.95) / step) * step;
  const last = Math.ceil((Math.max(...sizes) * 1.12) / step) * step;
  const ratios = rows.map((row) => Math.min(CAP, ratio(row, i)));
  const top = Math.max(1.5, Math.max(...ratios) * 1.08);
  const bottom = Math.min(0.97, Math.min(...ratios) * 0.97);
  const x = (mb) => left + ((mb - first) / (last - first)) * (right - left);
  const y = (r) => BOX.bottom - (Math.log(r / bottom) / Math.log(top / bottom)) * (BOX.bottom - BOX.top);
  return { x, y, first, last, step, top, bottom };
}

function gridOf(scale, left, right) {
  const out = [];
  for (const r of [1, 1.2, 1.5, 2, 3, 4, 5, 6].filter((v) => v <= scale.top)) {
    const y = scale.y(r);
    out.push(line(left, y, right, y, r === 1 ? 'ax' : 'g'), text(left - 6, y + 4, `${r}×`, 'm', 'end', 11));
  }
  for (let mb = scale.first; mb <= scale.last + 1e-9; mb += scale.step)
    out.push(line(scale.x(mb), BOX.top, scale.x(mb), BOX.bottom, 'g'), text(scale.x(mb), BOX.bottom + 17, `${+mb.toFixed(3)}`, 'm', 'middle', 11));
  return out;
}

const overlap = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;

/** A free place for the label of a point: right, left, above, below, then further away. -> {x, y, anchor, box} */
function placeLabel(point, label, taken, left, right) {
  const w = label.length * FONT * 0.55;
  const boxes = [];
  for (const d of [0, 12, 24, 36]) {
    for (const [x, y] of [[9, -6 - d], [9, -6 + d], [-9 - w, -6 - d], [-9 - w, -6 + d], [-w / 2, -22 - d], [-w / 2, 10 + d]])
      boxes.push({ x: point.x + x, y: point.y + y, w, h: FONT });
  }
  const fits = (b) => b.x >= left && b.x + b.w <= right && b.y >= BOX.top - 14 && b.y + b.h <= BOX.bottom;
  const box = boxes.find((b) => fits(b) && !taken.some((other) => overlap(b, other))) ?? boxes[0];
  taken.push(box);
  return box;
}

function panelOf(rows, i, name, left, right) {
  const scale = scalesOf(rows, i, left, right);
  const points = bySize(rows).map((row) => {
    const r = ratio(row, i);
    return { row, r, x: scale.x(row.bytes / 1e6), y: scale.y(Math.min(r, CAP)) };
  });
  const taken = points.map(({ x, y }) => ({ x: x - 6, y: y - 6, w: 12, h: 12 }));
  const out = [text(left, BOX.top - 24, name, 't', 'start', 14), ...gridOf(scale, left, right)];
  for (const group of new Set(points.map(({ row }) => row.line).filter(Boolean))) {
    const path = points.filter(({ row }) => row.line === group).map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`);
    if (path.length > 1) out.push(`<polyline class="ours link" style="fill:none" points="${path.join(' ')}"/>`);
  }
  for (const { row, r, x, y } of points) {
    const label = r > CAP ? `${row.name}: ${short(r)}×` : row.name;
    const mark = r > CAP
      ? `<path class="${row.kind}" d="M${x.toFixed(1)} ${(y - 6).toFixed(1)}l6 10h-12z"/>`
      : `<circle class="${row.kind}" cx="${x.toFixed(1)}" cy="${y.toFixed(1)}" r="5"/>`;
    const box = placeLabel({ x, y }, label, taken, left, right);
    out.push(mark, text(box.x, box.y + FONT - 2, label));
  }
  out.push(text((left + right) / 2, HEIGHT - 14, 'megabytes of the whole file', 'm', 'middle'));
  return out;
}

/** An SVG with one panel per text: bytes across, perplexity over the teacher's upwards (log). Lower left is better. */
export function drawQuality(rows, textNames) {
  const width = WIDTH / textNames.length;
  const panels = textNames.flatMap((name, i) => panelOf(rows, i, `${name}: perplexity ÷ teacher's`, i * width + 46, (i + 1) * width - 18));
  const label = 'Perplexity divided by the teacher\'s against bytes, for the teacher, plainly rounded baselines and bitpair files';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" role="img" aria-label="${escape(label)}">`,
    `<style>${STYLE}</style>`,
    `<rect class="bg" width="${WIDTH}" height="${HEIGHT}" rx="12"/>`,
    ...panels,
    '</svg>',
    '',
  ].join('\n');
}
