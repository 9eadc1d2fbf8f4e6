// numbers.js - grammars of the decimal numbers between two bounds.

const MOST = 10n ** 15n - 1n; // beyond it JavaScript's numbers get coarse

const digits = (n) => (n === 0 ? '' : n === 1 ? '[0-9]' : `[0-9]{${n}}`);
const digit = (low, high) => (low === high ? `"${low}"` : `[${low}-${high}]`);

/** Digit strings of one length from low to high. */
function between(low, high) {
  if (low === '') return '""';
  if (/^0*$/.test(low) && /^9*$/.test(high)) return digits(low.length);
  const [a, b, rest] = [Number(low[0]), Number(high[0]), low.length - 1];
  if (a === b) return rest ? `"${a}" ${between(low.slice(1), high.slice(1))}` : `"${a}"`;
  if (rest === 0) return digit(a, b);
  const ways = [];
  const zeros = '0'.repeat(rest);
  const nines = '9'.repeat(rest);
  const first = low.slice(1) === zeros ? a : a + 1; // first digits that leave the others free
  const last = high.slice(1) === nines ? b : b - 1;
  if (first > a) ways.push(`"${a}" ${between(low.slice(1), nines)}`);
  if (first <= last) ways.push(`${digit(first, last)} ${digits(rest)}`);
  if (last < b) ways.push(`"${b}" ${between(zeros, high.slice(1))}`);
  return `(${ways.join(' | ')})`;
}

/** Whole numbers from low to high, 0 <= low <= high, bigints: ways of writing them. */
function wholeWays(low, high) {
  const ways = [];
  for (let from = low; from <= high;) {
    const end = 10n ** BigInt(String(from).length) - 1n;
    const to = end < high ? end : high;
    ways.push(between(String(from), String(to)));
    from = to + 1n;
  }
  return ways;
}

/** Whole bounds as bigints, none of them beyond `most`: of what lies there the grammar leaves out the rest. */
function within(low, high, most, refuse) {
  if (low > Number(most) || high < -Number(most)) refuse(`a range beyond ${most}`);
  const bound = (value) => (value < -Number(most) ? -most : value > Number(most) ? most : BigInt(value));
  return [bound(low), bound(high)];
}

/**
 * @param {number} low -Infinity: none
 * @param {number} high
 * @param {(what: string) => never} refuse
 */
export function integerGrammar(low, high, refuse) {
  const [from, to] = within(Math.ceil(low), Math.floor(high), MOST, refuse);
  if (from > to) refuse('no whole number lies between the bounds: this');
  const ways = [];
  if (from < 0n) ways.push(`"-" (${wholeWays(to < 0n ? -to : 1n, -from).join(' | ')})`);
  if (to >= 0n) ways.push(...wholeWays(from > 0n ? from : 0n, to));
  return `(${ways.join(' | ')})`;
}

const FRACTION = '("." [0-9]{1,6})?';
const NOT_ZERO = '"." [0-9]{0,5} [1-9]';

/** Numbers from `low` to `high`, both whole and not negative; open: without the bound itself. */
function magnitudes(low, high, openLow, openHigh) {
  const ways = [];
  const free = openLow ? low + 1n : low;
  if (openLow && low < high) ways.push(`"${low}" ${NOT_ZERO}`);
  if (free < high) ways.push(`(${wholeWays(free, high - 1n).join(' | ')}) ${FRACTION}`);
  if (!openHigh && !(openLow && low === high)) ways.push(`"${high}"`);
  return ways;
}

/**
 * Numbers with or without a fraction between bounds that are whole. See integerGrammar.
 * @param {boolean} openLow without `low` itself
 */
export function numberGrammar(low, high, openLow, openHigh, refuse) {
  const most = 10n ** 9n; // with six digits of fraction every such number is told apart from its neighbours
  const whole = (value) => Number.isInteger(value) || Math.abs(value) > Number(most); // what lies beyond is cut off
  if (!whole(low) || !whole(high)) refuse('a bound of a number that is not whole');
  const [from, to] = within(low, high, most, refuse);
  const ways = [];
  if (from < 0n && from <= to)
    ways.push(...magnitudes(to < 0n ? -to : 0n, -from, to <= 0n && openHigh, openLow).map((way) => `"-" ${way}`));
  if (to >= 0n && from <= to) ways.push(...magnitudes(from > 0n ? from : 0n, to, from >= 0n && openLow, openHigh));
  if (ways.length === 0) refuse('no number lies between the bounds: this');
  return `(${ways.join(' | ')})`;
}
