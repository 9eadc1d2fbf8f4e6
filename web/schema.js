// schema.js - a JSON schema -> a grammar (GBNF) of texts that all satisfy it. Where a schema leaves more freedom than a
// grammar can hold the texts are some of those it allows; what would have to be ignored is refused, with its path.

import { BitpairError, fail } from './errors.js';
import { integerGrammar, numberGrammar } from './numbers.js';
import { literal, patternGrammar } from './pattern.js';

const DEEPEST = 128;
const MOST_STEPS = 20000; // of visiting and merging: a few nested combinations can stand for any number of schemas

/** Rules that others are made of, and what those need in turn. */
const COMMON = {
  ws: '| " " | "\\n" [ \\t]{0,20}',
  char: '[^"\\\\\\x00-\\x1f] | "\\\\" (["\\\\/bfnrt] | "u" unit)',
  unit: '[0-9a-cefA-CEF] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}', // no halves of surrogate pairs
  string: '"\\"" char* "\\""',
  integer: '"-"? ("0" | [1-9] [0-9]{0,14})',
  number: 'integer ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
  boolean: '"true" | "false"',
  null: '"null"',
  value: 'object | array | string | number | boolean | null',
  object: '"{" ws (pair ("," ws pair)* ws)? "}"',
  pair: 'string ":" " "? value',
  array: '"[" ws (value ("," ws value)* ws)? "]"',
  // what is not escaped: a name has one way to be written
  plain: '[^"\\\\\\x00-\\x1f]',
  date: '[0-9]{4} "-" (("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | "1" [0-9] | "2" [0-8]) | ("0" [13-9] | "1" [0-2]) "-" ("29" | "30") | ("0" [13578] | "1" [02]) "-31")',
  time: '([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])',
  uuid: '[0-9a-f]{8} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{4} "-" [0-9a-f]{12}',
};

const FORMATS = { date: 'date', time: 'time', 'date-time': 'date "T" time', uuid: 'uuid' };

/** Keywords that say nothing about which values are allowed. */
const NOTES = ['$schema', '$id', '$anchor', '$comment', '$defs', 'definitions', 'title', 'description', 'default', 'examples', 'example',
  'deprecated', 'readOnly', 'writeOnly', 'discriminator'];

/** Keywords that are known only where they say nothing. */
const TRIVIAL = {
  uniqueItems: (value) => value === false,
  propertyNames: (value) => isBare(value) || (value?.type === 'string' && isBare({ ...value, type: undefined })), // names are strings
};

const BY_TYPE = {
  object: ['properties', 'required', 'additionalProperties', 'minProperties', 'maxProperties'],
  array: ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems'],
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'],
};
const TYPES = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'];
const COUNTS = ['minProperties', 'maxProperties', 'minItems', 'maxItems', 'minLength', 'maxLength'];
const GENERAL = ['type', 'nullable', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref'];
const KNOWN = new Set([...NOTES, ...GENERAL, ...Object.values(BY_TYPE).flat()]);

const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);
const equal = (a, b) => canonical(a) === canonical(b);
const canonical = (value) => JSON.stringify(value, (_, part) => {
  if (typeof part === 'bigint') return `${part}n`; // of a keyword that is refused later
  return isObject(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part;
});
/** Will JSON.stringify() write all of it? */
function isJson(value) {
  try {
    JSON.stringify(value, function check(key, part) {
      const hole = part === undefined && (key === '' || Array.isArray(this)); // elsewhere it is a member that is left out
      const odd = typeof part === 'number' ? !Number.isFinite(part) : ['bigint', 'function', 'symbol'].includes(typeof part);
      if (hole || odd) throw new TypeError();
      return part;
    });
    return true;
  } catch {
    return false; // also what holds itself
  }
}

const step = (path, ...keys) => path + keys.map((key) => `/${String(key).replaceAll('~', '~0').replaceAll('/', '~1')}`).join('');
const refuse = (path, what) => fail('argument', `jsonSchema, ${path}: ${what}`);
const isBare = (schema) => schema === true ||
  (isObject(schema) && Object.keys(schema).every((key) => NOTES.includes(key) || schema[key] === undefined));
const own = (object, key) => (object !== undefined && Object.hasOwn(object, key) ? object[key] : undefined);

function typeOf(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return Number.isInteger(value) ? 'integer' : typeof value;
}

const hasType = (type, allowed) => allowed.includes(type) || (type === 'integer' && allowed.includes('number'));

/** The type names of a schema; null: any. */
function typesOf(schema, path) {
  if (schema.type === undefined) return null;
  const types = [].concat(schema.type);
  for (const type of types)
    if (!TYPES.includes(type)) refuse(step(path, 'type'), `${typeof type === 'string' ? `'${type}'` : 'this'} is not a type`);
  return schema.nullable && !types.includes('null') ? [...types, 'null'] : types;
}

/** Schemas as they are written, checked; booleans as objects, `const` as `enum`. */
function checked(schema, path) {
  if (schema === true) return {};
  if (!isObject(schema)) refuse(path, schema === false ? 'nothing satisfies false' : 'a schema must be an object, true or false');
  for (const key of Object.keys(schema))
    if (schema[key] !== undefined && !KNOWN.has(key) && !own(TRIVIAL, key)?.(schema[key]))
      refuse(step(path, key), 'this keyword is not supported');
  for (const key of COUNTS)
    if (schema[key] !== undefined && !(Number.isInteger(schema[key]) && schema[key] >= 0)) refuse(step(path, key), 'must be a whole number from 0');
  for (const key of BY_TYPE.number)
    if (schema[key] !== undefined && !Number.isFinite(schema[key])) refuse(step(path, key), 'must be a number');
  for (const key of ['anyOf', 'oneOf', 'allOf'])
    if (schema[key] !== undefined && !(Array.isArray(schema[key]) && schema[key].length > 0)) refuse(step(path, key), 'must be an array of schemas');
  for (const key of ['pattern', 'format'])
    if (schema[key] !== undefined && typeof schema[key] !== 'string') refuse(step(path, key), 'must be a string');
  if (schema.enum !== undefined && !(Array.isArray(schema.enum) && schema.enum.every(isJson)))
    refuse(step(path, 'enum'), 'must be an array of JSON values');
  if (schema.const !== undefined && !isJson(schema.const)) refuse(step(path, 'const'), 'must be a JSON value');
  if (schema.properties !== undefined && !isObject(schema.properties)) refuse(step(path, 'properties'), 'must be an object of schemas');
  if (schema.required !== undefined && !(Array.isArray(schema.required) && schema.required.every((name) => typeof name === 'string')))
    refuse(step(path, 'required'), 'must be an array of names');
  if (own(schema, 'const') === undefined) return schema;
  const { const: only, ...rest } = schema;
  return { ...rest, enum: (rest.enum ?? [only]).filter((value) => equal(value, only)) };
}

/** A key as a reference writes it; what is no such text is as it stands. */
function unescapeKey(key) {
  try {
    return decodeURIComponent(key).replaceAll('~1', '/').replaceAll('~0', '~');
  } catch {
    return key;
  }
}

class Converter {
  constructor() {
    this.root = null; // what '#' means now, see within()
    this.references = new Map(); // into that root: pointer -> name
    this.rules = new Map(); // name -> body
    this.depth = 0;
    this.steps = 0;
  }

  /** A common rule, with those it needs. */
  common(name) {
    if (!this.rules.has(name)) {
      this.rules.set(name, COMMON[name]);
      const words = COMMON[name].replace(/"(\\.|[^"\\])*"|\[(\\.|[^\]\\])*\]/g, ' ').match(/[a-z]+/g) ?? [];
      for (const word of words) this.common(word);
    }
    return name;
  }

  rule(body) {
    const name = `r${this.rules.size}`;
    this.rules.set(name, body);
    return name;
  }

  text(root) {
    return [`root ::= ${root}`, ...[...this.rules].map(([name, body]) => `${name} ::= ${body}`)].join('\n') + '\n';
  }

  /** An element for the values of a schema whose references are into itself. */
  within(root) {
    Object.assign(this, { root, references: new Map() });
    return this.visit(root, '#');
  }

  /** An element for one call: its schema is a root of its own, wherever it comes to stand. */
  call({ name, parameters }, key) {
    const schema = parameters === undefined || isBare(parameters) ? { type: 'object' } : parameters;
    const pairs = [literal(JSON.stringify(name)), this.within(schema)]
      .map((value, i) => ({ required: true, pair: `"\\"${['name', key][i]}\\"" ":" " "? ${value}` }));
    this.common('ws');
    return this.rule(`"{" ws ${this.members(pairs, null)} "}"`);
  }

  /** An element of a grammar for the values of a schema. */
  visit(written, path) {
    this.count(path);
    if (++this.depth > DEEPEST) refuse(path, `schemas may not be nested deeper than ${DEEPEST}`);
    const schema = checked(written, path);
    const element = this.combined(schema, path);
    this.depth--;
    return element;
  }

  count(path, steps = 1) {
    this.steps += steps;
    if (this.steps > MOST_STEPS) refuse(path, 'the schema stands for too many combinations of others');
  }

  combined(schema, path) {
    const { $ref, allOf, anyOf, oneOf, ...rest } = schema;
    const alone = isBare(rest) && !allOf && !anyOf && !oneOf;
    if ($ref !== undefined) return alone ? this.reference($ref, path) : this.visit(this.merge(this.resolve($ref, path), { ...rest, ...pick({ allOf, anyOf, oneOf }) }, path), path);
    if (allOf) return this.visit(allOf.reduce((all, part, i) => this.merge(all, part, step(path, 'allOf', i)), { ...rest, ...pick({ anyOf, oneOf }) }), path);
    if (anyOf && oneOf) refuse(path, 'anyOf together with oneOf is not supported');
    if (anyOf || oneOf) return this.ways(rest, anyOf ?? oneOf, step(path, anyOf ? 'anyOf' : 'oneOf'), !anyOf);
    return schema.enum ? this.values(schema, path) : this.typed(schema, path);
  }

  ways(rest, branches, path, exclusive) {
    const full = branches.map((branch, i) => this.merge(rest, branch, step(path, i)));
    for (let i = 0; exclusive && i < full.length; i++)
      for (let j = 0; j < i; j++)
        if (!this.disjoint(full[i], full[j], path)) refuse(path, `a value may satisfy both ${j} and ${i}: use anyOf, or give them different types or constants`);
    return this.either(full.map((branch, i) => this.visit(branch, step(path, i))));
  }

  either(elements) {
    return elements.length === 1 ? elements[0] : this.rule(elements.join(' | '));
  }

  /* ---- references ---- */

  /** The schema behind a reference and behind those it leads to. */
  resolve($ref, path) {
    for (const seen = new Set(); ;) {
      if (typeof $ref !== 'string') refuse(step(path, '$ref'), 'must be a string');
      if (!/^#(\/|$)/.test($ref)) refuse(step(path, '$ref'), `only references within the schema (#/...) are supported, not '${$ref}'`);
      if (seen.has($ref)) refuse(step(path, '$ref'), `'${$ref}' leads back to itself`);
      seen.add($ref);
      let schema = this.root;
      for (const key of $ref.split('/').slice(1)) {
        schema = isObject(schema) || Array.isArray(schema) ? own(schema, unescapeKey(key)) : undefined;
        if (schema === undefined) refuse(step(path, '$ref'), `there is no '${$ref}'`);
      }
      if (!isObject(schema) || Object.keys(schema).some((key) => key !== '$ref' && !NOTES.includes(key)) || !schema.$ref) return schema;
      ({ $ref } = schema);
    }
  }

  reference($ref, path) {
    const schema = this.resolve($ref, path);
    let name = this.references.get($ref);
    if (name) return name;
    name = `ref${this.rules.size}`; // by the rules: there may be several roots
    this.references.set($ref, name);
    this.rules.set(name, '');
    this.rules.set(name, this.visit(schema, $ref));
    return name;
  }

  /* ---- combinations ---- */

  /** A schema for what satisfies both. */
  merge(first, second, path) {
    this.count(path);
    if (isBare(first)) return second; // as it is: a reference in it may be recursive
    if (isBare(second)) return first;
    const [a, b] = [first, second].map((schema) => checked(schema, path)).map((schema) => {
      if (schema.$ref === undefined) return schema;
      const { $ref, ...rest } = schema;
      if (++this.depth > DEEPEST) refuse(path, 'references within combinations may not be recursive');
      const merged = this.merge(this.resolve($ref, path), rest, path);
      this.depth--;
      return merged;
    });
    const merged = { ...a };
    for (const key of Object.keys(b)) {
      if (NOTES.includes(key) || b[key] === undefined) continue;
      merged[key] = own(a, key) === undefined ? b[key] : this.mergeKeyword(key, a[key], b[key], path);
    }
    const types = [a, b].map((schema) => typesOf(schema, path));
    if (types[0] && types[1]) merged.type = bothTypes(...types, path);
    delete merged.nullable;
    if (!(types[0] && types[1]) && (types[0] ?? types[1])) merged.type = types[0] ?? types[1];
    return this.closeProperties(merged, a, b, path);
  }

  mergeKeyword(key, a, b, path) {
    if (key === 'type') return b;
    if (key === 'allOf' || key === 'anyOf') this.count(path, a.length + b.length);
    if (key === 'required') return [...new Set([...a, ...b])];
    if (key === 'enum') return a.filter((value) => b.some((other) => equal(value, other)));
    if (key === 'allOf') return [...a, ...b];
    if (key === 'anyOf') return a.flatMap((x) => b.map((y) => ({ allOf: [x, y] })));
    if (key === 'properties') return Object.fromEntries([...new Set([...Object.keys(a), ...Object.keys(b)])].map((name) =>
      [name, own(a, name) === undefined ? b[name] : own(b, name) === undefined ? a[name] : { allOf: [a[name], b[name]] }]));
    if (key === 'additionalProperties' || (key === 'items' && !Array.isArray(a) && !Array.isArray(b)))
      return a === false || b === false ? false : a === true ? b : b === true ? a : { allOf: [a, b] };
    if (/^(min|exclusiveMin)/.test(key)) return Math.max(a, b);
    if (/^(max|exclusiveMax)/.test(key)) return Math.min(a, b);
    return equal(a, b) ? a : refuse(path, `'${key}' cannot be combined`);
  }

  /** A property that only one side names has to satisfy the other side's additionalProperties. */
  closeProperties(merged, a, b, path) {
    if (!merged.properties) return merged;
    const properties = {};
    for (const [name, schema] of Object.entries(merged.properties)) {
      const closed = [a, b].filter((side) => own(side.properties, name) === undefined).map((side) => side.additionalProperties);
      if (closed.includes(false)) {
        if (merged.required?.includes(name)) refuse(path, `'${name}' is required, and not allowed by additionalProperties`);
        continue;
      }
      const others = closed.filter(isObject);
      properties[name] = others.length > 0 ? { allOf: [schema, ...others] } : schema;
    }
    return { ...merged, properties };
  }

  /** Is it certain that no value satisfies both? */
  disjoint(a, b, path, depth = 0) {
    const [x, y] = [a, b].map((schema) => checked(schema, path))
      .map((schema) => (schema.$ref === undefined ? schema : checked(this.resolve(schema.$ref, path), path)));
    if (x.enum && y.enum) return !x.enum.some((value) => y.enum.some((other) => equal(value, other)));
    const [s, t] = [x, y].map((schema) => (schema.enum ? schema.enum.map(typeOf) : typesOf(schema, path)));
    if (s && t && !s.some((type) => hasType(type, t)) && !t.some((type) => hasType(type, s))) return true;
    if (!(s && t) || [...s, ...t].some((type) => type !== 'object') || depth > 4) return false;
    return Object.keys(x.properties ?? {}).some((name) => own(y.properties, name) !== undefined &&
      x.required?.includes(name) && y.required?.includes(name) && this.disjoint(x.properties[name], y.properties[name], path, depth + 1));
  }

  /* ---- values of one type ---- */

  values(schema, path) {
    const types = typesOf(schema, path);
    const other = Object.values(BY_TYPE).flat().find((key) => schema[key] !== undefined);
    if (other) refuse(step(path, other), 'is not supported together with enum or const');
    const values = schema.enum.filter((value) => !types || hasType(typeOf(value), types));
    if (values.length === 0) refuse(path, 'no value is left of enum or const');
    return this.either(values.map((value) => literal(JSON.stringify(value))));
  }

  typed(schema, path) {
    let types = typesOf(schema, path);
    // Without a type the keywords say it: other types would satisfy the schema too, but are not what is meant.
    types ??= Object.keys(BY_TYPE).filter((type) => BY_TYPE[type].some((key) => schema[key] !== undefined));
    if (schema.nullable && types.length > 0 && !types.includes('null')) types = [...types, 'null'];
    if (types.length === 0) return this.common('value');
    for (const type of Object.keys(BY_TYPE))
      for (const key of BY_TYPE[type])
        if (schema[key] !== undefined && !types.includes(type) && !(type === 'number' && types.includes('integer')))
          refuse(step(path, key), `says nothing about a value of type ${types.join(' or ')}`);
    return this.either([...new Set(types)].map((type) => this[type]?.(schema, path) ?? this.common(type)));
  }

  string({ minLength = 0, maxLength = Infinity, pattern, format }, path) {
    const sized = minLength > 0 || maxLength < Infinity;
    if ((pattern !== undefined) + (format !== undefined) + sized > 1) refuse(path, 'pattern, format and a length cannot be combined');
    if (format !== undefined) {
      if (!Object.hasOwn(FORMATS, format)) refuse(step(path, 'format'), `'${format}' is not supported: ${Object.keys(FORMATS).join(', ')} are`);
      FORMATS[format].match(/[a-z]+/g).forEach((name) => this.common(name));
      return this.rule(`"\\"" ${FORMATS[format]} "\\""`);
    }
    if (!sized && pattern === undefined) return this.common('string');
    this.common('char');
    if (pattern !== undefined) return this.rule(`"\\"" ${patternGrammar(pattern, (what) => refuse(path, what))} "\\""`);
    if (minLength > maxLength) refuse(path, 'minLength is above maxLength');
    return this.rule(`"\\"" char${times(minLength, maxLength)} "\\""`);
  }

  integer(schema, path) {
    const { minimum = -Infinity, maximum = Infinity, exclusiveMinimum = -Infinity, exclusiveMaximum = Infinity } = schema;
    const low = Math.max(minimum, Math.floor(exclusiveMinimum) + 1);
    const high = Math.min(maximum, Math.ceil(exclusiveMaximum) - 1);
    if (low === -Infinity && high === Infinity) return this.common('integer');
    return this.rule(integerGrammar(low, high, (what) => refuse(path, `${what} is not supported`)));
  }

  number(schema, path) {
    const { minimum = -Infinity, maximum = Infinity, exclusiveMinimum = -Infinity, exclusiveMaximum = Infinity } = schema;
    const low = Math.max(minimum, exclusiveMinimum);
    const high = Math.min(maximum, exclusiveMaximum);
    if (low === -Infinity && high === Infinity) return this.common('number');
    return this.rule(numberGrammar(low, high, exclusiveMinimum >= minimum, exclusiveMaximum <= maximum, (what) => refuse(path, `${what} is not supported`)));
  }

  array(schema, path) {
    const { minItems = 0, maxItems = Infinity } = schema;
    const listed = schema.prefixItems ?? (Array.isArray(schema.items) ? schema.items : []);
    const further = Array.isArray(schema.items) ? schema.additionalItems : schema.items;
    if (minItems > maxItems) refuse(path, 'minItems is above maxItems');
    if (!Array.isArray(listed)) refuse(step(path, 'prefixItems'), 'must be an array of schemas');
    this.common('ws');
    const parts = listed.slice(0, maxItems).map((item, i) => this.visit(item, step(path, schema.prefixItems ? 'prefixItems' : 'items', i)));
    const [least, most] = [Math.max(0, minItems - parts.length), maxItems - parts.length];
    if (further === false && least > 0) refuse(path, `there are fewer than ${minItems} items`);
    // A list that is written out ends with it, unless more is asked for.
    const open = most > 0 && further !== false && (further !== undefined || listed.length === 0 || least > 0);
    const item = open ? this.visit(further ?? true, step(path, 'items')) : null;
    let body = parts.join(' "," ws ');
    if (open && parts.length > 0) body += ` ("," ws ${item})${times(least, most)}`;
    else if (open) body = `${item} ("," ws ${item})${times(Math.max(0, least - 1), most - 1)}`;
    if (body === '') return this.rule('"[" ws "]"');
    return this.rule(`"[" ws ${parts.length > 0 || least > 0 ? `${body} ws` : `(${body} ws)?`} "]"`);
  }

  object(schema, path) {
    const { properties = {}, required = [], additionalProperties } = schema;
    const free = additionalProperties ?? (schema.properties === undefined && required.length === 0);
    const names = Object.keys(properties);
    for (const name of required) {
      if (names.includes(name)) continue;
      if (additionalProperties === false) refuse(step(path, 'required'), `'${name}' is not allowed by additionalProperties`);
      names.push(name);
    }
    this.common('ws');
    const members = names.filter((name) => own(properties, name) !== false || required.includes(name)).map((name) => {
      const inner = Object.hasOwn(properties, name) ? this.visit(properties[name], step(path, 'properties', name)) : this.visit(additionalProperties ?? true, step(path, 'additionalProperties'));
      return { required: required.includes(name), pair: this.rule(`${literal(JSON.stringify(name))} ":" " "? ${inner}`) };
    });
    const extra = free === false ? null : this.extra(names, free, path);
    this.checkCounts(schema, members, extra, path);
    return this.rule(`"{" ws ${this.members(members, extra)} "}"`);
  }

  checkCounts({ minProperties = 0, maxProperties = Infinity }, members, extra, path) {
    const least = members.filter((member) => member.required).length;
    if (minProperties > least) refuse(step(path, 'minProperties'), 'is supported only up to the number of required properties');
    if (maxProperties < (extra ? Infinity : members.length)) refuse(step(path, 'maxProperties'), 'is supported only where it follows from the properties');
  }

  /** A further member, of a name that is not listed. */
  extra(names, schema, path) {
    this.common('plain');
    const value = this.visit(schema, step(path, 'additionalProperties'));
    const plain = names.filter((name) => JSON.stringify(name) === `"${name}"`); // the others cannot be met without escapes
    return this.rule(`"\\"" ${this.otherName(plain.map((name) => [...name]))} "\\"" ":" " "? ${value}`);
  }

  /** What is none of `names`, arrays of characters. */
  otherName(names) {
    if (names.length === 0) return 'plain*';
    const firsts = [...new Set(names.filter((name) => name.length > 0).map(([first]) => first))];
    const ways = firsts.map((first) => `${literal(first)} ${this.otherName(names.filter((name) => name[0] === first).map((name) => name.slice(1)))}`);
    const taken = firsts.map((first) => `\\U${first.codePointAt(0).toString(16).padStart(8, '0')}`).join('');
    ways.push(`[^"\\\\\\x00-\\x1f${taken}] plain*`);
    if (names.every((name) => name.length > 0)) ways.push('""');
    return this.rule(ways.join(' | '));
  }

  /** Members in order: what may follow when one has been written (tail), and when none has (head). */
  members(members, extra) {
    let tail = extra ? `("," ws ${extra})* ws` : 'ws';
    let head = extra ? `(${extra} ${tail})?` : '""';
    for (const { pair, required } of [...members].reverse()) {
      const rest = this.rule(tail);
      head = required ? `${pair} ${rest}` : this.rule(`${pair} ${rest} | ${head}`);
      tail = required ? `"," ws ${pair} ${rest}` : `("," ws ${pair})? ${rest}`;
    }
    return head;
  }
}

const times = (low, high) => (high === Infinity ? `{${low},}` : `{${low},${high}}`);
const pick = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

function bothTypes(a, b, path) {
  const both = [...new Set([...a.filter((type) => hasType(type, b)), ...b.filter((type) => hasType(type, a))])];
  return both.length > 0 ? both : refuse(path, `no value is of type ${a.join(' or ')} and ${b.join(' or ')}`);
}

/**
 * The grammar of JSON texts that satisfy a schema.
 * @param {object | boolean} schema of JSON Schema; true or {}: any JSON
 * @returns {string} GBNF
 * @throws {BitpairError} code 'argument'
 */
export function schemaGrammar(schema) {
  const converter = new Converter();
  return converter.text(converter.within(schema));
}

/**
 * The grammar of one call out of several tools: {"name": ..., [key]: ...}.
 * @param {{name: string, parameters?: object}[]} tools
 * @param {string} key of the arguments
 * @returns {string} GBNF
 * @throws {BitpairError} code 'argument', it names the tool
 */
export function toolGrammar(tools, key) {
  const converter = new Converter();
  return converter.text(converter.either(tools.map((tool) => {
    try {
      return converter.call(tool, key);
    } catch (error) {
      if (!(error instanceof BitpairError)) throw error;
      return fail(error.code, error.message.replace(/^jsonSchema/, () => `parameters of the tool ${tool.name}`));
    }
  })));
}
