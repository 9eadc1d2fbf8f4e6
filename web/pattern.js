// pattern.js - a regular expression of a JSON schema -> the grammar of the JSON strings that match it. What has no plain
// equivalent (look-around, back references, word boundaries, properties of characters) is refused.

const LAST = 0x10ffff;
const DIGIT = [[48, 57]];
const WORD = [[48, 57], [65, 90], [95, 95], [97, 122]];
const SPACE = [[9, 13], [32, 32], [0xa0, 0xa0], [0x1680, 0x1680], [0x2000, 0x200a], [0x2028, 0x2029], [0x202f, 0x202f],
  [0x205f, 0x205f], [0x3000, 0x3000], [0xfeff, 0xfeff]];
const LINE_ENDS = [[10, 10], [13, 13], [0x2028, 0x2029]];
const ESCAPES = { t: 9, n: 10, v: 11, f: 12, r: 13, 0: 0 };
const SHORT = { 8: 'b', 9: 't', 10: 'n', 12: 'f', 13: 'r', 34: '"', 92: '\\' };

/** Ranges in order, without overlap. */
function tidy(ranges) {
  const sorted = ranges.map((range) => [...range]).sort((a, b) => a[0] - b[0]);
  const result = [];
  for (const range of sorted) {
    const last = result.at(-1);
    if (last && range[0] <= last[1] + 1) last[1] = Math.max(last[1], range[1]);
    else result.push(range);
  }
  return result;
}

function complement(ranges) {
  const result = [];
  let from = 0;
  for (const [low, high] of tidy(ranges)) {
    if (low > from) result.push([from, low - 1]);
    from = high + 1;
  }
  return from <= LAST ? [...result, [from, LAST]] : result;
}

const code = (value) => `\\U${value.toString(16).padStart(8, '0')}`;

/** A grammar literal for text that is to appear as it is. */
export function literal(text) {
  const characters = [...text].map((character) => (/[ !#-[\]-~]/.test(character) ? character : code(character.codePointAt(0))));
  return `"${characters.join('')}"`;
}

/** How JSON writes a character that cannot stand for itself in a string. */
const escaped = (value) => literal(SHORT[value] ? `\\${SHORT[value]}` : `\\u${value.toString(16).padStart(4, '0')}`);

/** One character of a JSON string out of a set; `controls`: also those that JSON has to escape. */
function oneOf(ranges, controls) {
  const taken = [[0, 31], [34, 34], [92, 92], [0xd800, 0xdfff]];
  const plain = complement([...complement(ranges), ...taken]);
  const ways = plain.length > 0 ? [`[${plain.map(([low, high]) => code(low) + (high > low ? `-${code(high)}` : '')).join('')}]`] : [];
  for (const value of [34, 92, ...(controls ? Array(32).keys() : [])])
    if (ranges.some(([low, high]) => low <= value && value <= high)) ways.push(escaped(value));
  return ways;
}

class Pattern {
  constructor(source, refuse) {
    this.characters = [...source];
    this.at = 0;
    this.refuse = (what) => refuse(`pattern: ${what} at character ${this.at + 1} is not supported`);
  }

  get next() {
    return this.characters[this.at];
  }

  take(text) {
    const found = [...text].every((character, i) => this.characters[this.at + i] === character);
    if (found) this.at += [...text].length;
    return found;
  }

  /** The whole pattern. A way that is not anchored may have anything before or behind it. */
  whole() {
    const ways = [];
    do {
      const start = this.take('^') ? '' : 'char* ';
      const sequence = this.sequence();
      ways.push(start + sequence + (this.take('$') ? '' : ' char*'));
    } while (this.take('|'));
    if (this.next !== undefined) this.refuse(`'${this.next}'`);
    return `(${ways.join(' | ')})`;
  }

  group() {
    if (this.take('?') && !this.take(':')) this.refuse('look-around or a named group');
    const ways = [];
    do ways.push(this.sequence()); while (this.take('|'));
    if (!this.take(')')) this.refuse(this.next === undefined ? 'an open group' : `'${this.next}'`);
    return `(${ways.join(' | ')})`;
  }

  sequence() {
    const parts = [];
    while (this.next !== undefined && !'|)$'.includes(this.next)) parts.push(this.repeated(this.atom()));
    return parts.length > 0 ? parts.join(' ') : '""';
  }

  repeated(atom) {
    let signs = '';
    if (this.next !== undefined && '*+?'.includes(this.next)) {
      signs = this.characters[this.at++];
    } else if (this.next === '{') {
      const counts = /^\{\d+(,\d*)?\}/.exec(this.characters.slice(this.at).join(''));
      if (!counts) this.refuse("'{'");
      signs = counts[0];
      this.at += signs.length;
    }
    if (signs) this.take('?'); // lazy or not, it matches the same texts
    return atom + signs;
  }

  atom() {
    if (this.take('(')) return this.group();
    if (this.take('[')) return this.set();
    if (this.take('.')) return this.choice(complement(LINE_ENDS), false);
    if (this.take('\\')) {
      const escape = this.escape();
      return this.choice(escape.ranges, !escape.negated);
    }
    if ('*+?{}]^'.includes(this.next)) this.refuse(`'${this.next}'`);
    const value = this.characters[this.at++].codePointAt(0);
    return this.choice([[value, value]], true);
  }

  choice(ranges, controls) {
    const ways = oneOf(ranges, controls);
    if (ways.length === 0) this.refuse('a set without characters');
    return ways.length === 1 ? ways[0] : `(${ways.join(' | ')})`;
  }

  set() {
    const negated = this.take('^');
    const ranges = [];
    while (!this.take(']')) {
      const low = this.member();
      ranges.push(...low);
      if (this.next !== '-' || this.characters[this.at + 1] === ']') continue;
      this.at++;
      const high = this.member();
      if (low.length !== 1 || high.length !== 1 || low[0][0] !== low[0][1] || high[0][0] !== high[0][1] || high[0][0] < low[0][0])
        this.refuse('this range');
      ranges.push([low[0][0], high[0][0]]);
    }
    return this.choice(negated ? complement(ranges) : tidy(ranges), !negated);
  }

  member() {
    if (this.next === undefined) this.refuse('an open set');
    if (this.take('\\')) return this.next === 'b' ? (this.at++, [[8, 8]]) : this.escape().ranges;
    const value = this.characters[this.at++].codePointAt(0);
    return [[value, value]];
  }

  /** Behind a backslash. */
  escape() {
    const sign = this.characters[this.at++];
    const sets = { d: DIGIT, w: WORD, s: SPACE };
    if (sign in sets) return { ranges: sets[sign] };
    if (sign !== undefined && 'DWS'.includes(sign)) return { ranges: complement(sets[sign.toLowerCase()]), negated: true };
    const digits = { x: 2, u: 4 }[sign];
    let value = sign in ESCAPES ? ESCAPES[sign] : sign?.codePointAt(0);
    if (digits) {
      const text = this.characters.slice(this.at, this.at + digits).join('');
      if (!new RegExp(`^[0-9a-fA-F]{${digits}}$`).test(text)) this.refuse(`'\\${sign}'`);
      value = parseInt(text, 16);
      this.at += digits;
    } else if (sign === undefined || (/[a-zA-Z1-9]/.test(sign) && !(sign in ESCAPES))) {
      this.refuse(`'\\${sign ?? ''}'`);
    }
    return { ranges: [[value, value]] };
  }
}

/**
 * Grammar of what stands between the quotes of a JSON string that matches; it uses the rule `char`.
 * @param {string} source of the regular expression
 * @param {(what: string) => never} refuse
 */
export function patternGrammar(source, refuse) {
  return new Pattern(source, refuse).whole();
}
