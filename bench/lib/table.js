// table.js - numbers of several rounds as medians with their range, and tables of text.

export const median = (numbers) => {
  const sorted = [...numbers].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};

/** '37.9 (35.0-39.1)': median and range; the range of one number is left out. */
export function spread(numbers, digits = 1) {
  if (numbers.length === 0) return '-';
  const text = (x) => x.toFixed(digits);
  const range = numbers.length > 1 ? ` (${text(Math.min(...numbers))}-${text(Math.max(...numbers))})` : '';
  return text(median(numbers)) + range;
}

/** Rows of cells, the first of them the heads, as a table of Markdown whose columns line up. */
export function table(rows) {
  const widths = rows[0].map((_, i) => Math.max(3, ...rows.map((row) => String(row[i]).length)));
  const line = (cells) => `| ${cells.map((cell, i) => String(cell).padEnd(widths[i])).join(' | ')} |`;
  return [line(rows[0]), line(widths.map((n) => '-'.repeat(n))), ...rows.slice(1).map(line)].join('\n');
}
