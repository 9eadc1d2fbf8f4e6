// Token ids against @huggingface/tokenizers: real vocabularies, the published pre-tokenizers, all the test texts, and every
// character of Unicode. Runs `bitpair tokenize`.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Tokenizer } from '@huggingface/tokenizers';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..');
const data = process.env.BITPAIR_SHARED_DATA ?? path.join(root, '../shared/data');
const bitpair = process.env.BITPAIR_BIN ?? path.join(root, 'build/native/bitpair');
const TEXTS = ['c4.utf8', 'code.utf8', 'multilingual.utf8', 'technical.utf8', 'heldout_500KB.txt'];

const WORDS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|";
const OTHERS = '| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

let folder; // for the tokenizer.json files and texts made here

const readJson = (file) => JSON.parse(fs.readFileSync(file, 'utf8'));
const textFile = (name) => path.join(data, 'text', name);

function run(args, input) {
  return execFileSync(bitpair, ['tokenize', ...args], { input, maxBuffer: 1 << 30, encoding: 'utf8' });
}

/** Ids of the whole text, and of each of its lines by itself, as the command prints them. */
const printed = (ids) => ids.join(' ') + '\n';
const lines = (text) => text.match(/[^\n]*\n|[^\n]+$/g) ?? [];

function encode(tokenizer, text) {
  return tokenizer.encode(text, { add_special_tokens: false }).ids;
}

/** Says where two outputs part instead of printing megabytes. */
function assertSame(got, wanted, what) {
  if (got === wanted) return;
  const [a, b] = [got.split(/\s/), wanted.split(/\s/)];
  const at = a.findIndex((id, i) => id !== b[i]);
  assert.fail(`${what}: token ${at}: ${a.slice(at - 2, at + 6)} instead of ${b.slice(at - 2, at + 6)}`);
}

function compareWhole(model, tokenizer, name) {
  const text = fs.readFileSync(textFile(name), 'utf8');
  const wanted = printed(encode(tokenizer, text));
  for (const m of [model].flat()) assertSame(run([m, '--special', '--file', textFile(name)]), wanted, `${m}, ${name}`);
}

/** The reference is slow on long texts without a pre-tokenizer: line by line covers all of the text. */
function compareLines(model, tokenizer, name) {
  const text = fs.readFileSync(textFile(name), 'utf8');
  const wanted = lines(text).map((line) => printed(encode(tokenizer, line))).join('');
  assertSame(run([model, '--special', '--lines', '--file', textFile(name)]), wanted, `${model}, lines of ${name}`);
}

/** Random lines of the characters that pre-tokenizers treat differently. */
function oddLines(count) {
  const parts = [' ', ' ', '  ', '\t', '\r', '\u00a0', '\u0085', '\u3000', '\ufeff', '\u2028', '\u200b', "'", "'s", "'S", "'ll", "'RE",
    "'\u017f", 'a', 'Z', 'hello', '\u00e9', 'e\u0301', '\u0301', '\u4f60\u597d', '\u1112\u1161\u11ab', '\u0958', '\u212b', '0', '7',
    '123', '\u00bd', '\u0663', '\u2167', '.', '!!', '<', '<|', '_', '\u2581', '\ud83d\ude00', '\u{10ffff}', '\0'];
  let seed = 12345;
  const next = (n) => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
  return Array.from({ length: count }, () => Array.from({ length: 1 + next(12) }, () => parts[next(parts.length)]).join('') + '\n').join('');
}

/** Characters that Unicode 15, which the engine's tables hold, does not have or know: a newer Node may. */
const NEWER = [[0x88f, 0x88f], [0xc5c, 0xc5c], [0xcdc, 0xcdc], [0x1acf, 0x1aff], [0x1c89, 0x1c8a], [0xa7cb, 0xa7cf], [0xa7d2, 0xa7dc], [0xa7f1, 0xa7f1]];

/** A line for every character of the basic plane, and of some blocks above it; for few ideographs and syllables. */
function everyCharacter(line) {
  let out = '';
  const add = (first, last, step = 1) => {
    for (let code = first; code <= last; code += step)
      if (code !== 10 && !NEWER.some(([a, b]) => code >= a && code <= b)) out += line(String.fromCodePoint(code)) + '\n';
  };
  add(1, 0x33ff), add(0x3400, 0xa48f, 61), add(0xa490, 0xabff), add(0xac00, 0xd7a3, 31), add(0xd7a4, 0xd7ff), add(0xe000, 0xf8ff, 211), add(0xf900, 0xffff);
  add(0x10000, 0x105bf), add(0x1d100, 0x1d7ff), add(0x1f100, 0x1f9ff), add(0x20000, 0x2a6df, 301), add(0x2f800, 0x2fa1d), add(0xe0000, 0xe01ef);
  return out;
}

function compareText(model, tokenizer, text, what) {
  const file = path.join(folder, 'text.txt');
  fs.writeFileSync(file, text);
  const wanted = lines(text).map((line) => encode(tokenizer, line));
  const got = run([model, '--special', '--lines', '--file', file]).split('\n');
  lines(text).forEach((line, i) => assert.equal(got[i], wanted[i].join(' '), `${what}: ${JSON.stringify(line)} (newer than Unicode 15?)`));
}

/** Writes a tokenizer.json and opens it with the reference. */
function make(name, json) {
  fs.mkdirSync(path.join(folder, name));
  fs.writeFileSync(path.join(folder, name, 'tokenizer.json'), JSON.stringify(json));
  return [path.join(folder, name), new Tokenizer(json, {})];
}

const byteLevel = (use_regex) => ({ type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex });
const splitBy = (expression) => ({
  type: 'Sequence',
  pretokenizers: [{ type: 'Split', pattern: { Regex: expression }, behavior: 'Isolated', invert: false }, byteLevel(false)],
});

function byteModel(vocab, merges, options) {
  const model = { type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: '', end_of_word_suffix: '', fuse_unk: false,
    byte_fallback: false, ignore_merges: false, vocab, merges, ...options };
  return { version: '1.0', added_tokens: [], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: byteLevel(true), model };
}

/** A vocabulary of bytes where 'a', '1' and '.' merge with any byte: so ids tell whether a character went with letters, numbers or neither. */
function classModel(pre_tokenizer) {
  const chars = [];
  for (let byte = 0, other = 256; byte < 256; byte++)
    chars.push(String.fromCodePoint((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174 ? byte : other++));
  const merges = [...'a1.'].flatMap((first) => chars.map((c) => `${first} ${c}`));
  const vocab = Object.fromEntries([...chars, ...merges.map((m) => m.replace(' ', ''))].map((t, id) => [t, id]));
  return { ...byteModel(vocab, merges), pre_tokenizer };
}

function qwenFiles() {
  const at = path.join(data, 'tokenizers/qwen2.5');
  const merges = fs.readFileSync(path.join(at, 'merges.txt'), 'utf8').split('\n').filter((l) => l && !l.startsWith('#version'));
  const added = Object.entries(readJson(path.join(at, 'tokenizer_config.json')).added_tokens_decoder).map(([id, t]) => ({ id: +id, ...t }));
  return { at, merges, added, vocab: readJson(path.join(at, 'vocab.json')) };
}

/** The pieces of a SentencePiece model: fields 1 (text), 2 (score) of each field 1 of the protobuf. */
function readPieces(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  const pieces = [];
  while (at < bytes.length) {
    const tag = varint(), end = varint() + at;
    const piece = { text: '', score: 0 };
    while (tag === 10 && at < end) {
      const field = varint();
      if (field === 10) piece.text = bytes.toString('utf8', at + 1, (at += 1 + bytes[at]));
      else if (field === 21) piece.score = bytes.readFloatLE((at += 4) - 4);
      else varint();
    }
    if (tag === 10) pieces.push(piece);
    at = end;
  }
  return pieces;
}

/** Merges as the usual converter derives them: every split of a piece into two, best score first, longer parts first among equals. */
function deriveMerges(pieces) {
  const ids = new Map(pieces.map((p, i) => [p.text, i]));
  const merges = [];
  for (const p of pieces) {
    const chars = Array.from(p.text);
    for (let i = 1; i < chars.length; i++) {
      const [left, right] = [chars.slice(0, i).join(''), chars.slice(i).join('')];
      if (ids.has(left) && ids.has(right)) merges.push({ left, right, score: p.score, n: i, m: chars.length - i });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.n - a.n || b.m - a.m);
  return merges.map((m) => [m.left, m.right]);
}

function llamaJson(pieces) {
  const space = { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' };
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: '1.0',
    added_tokens: pieces.slice(0, 3).map((p, id) => ({ id, content: p.text, ...special })),
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '\u2581' }, space] },
    pre_tokenizer: null, post_processor: null, decoder: { type: 'Fuse' },
    model: { type: 'BPE', dropout: null, unk_token: '<unk>', fuse_unk: true, byte_fallback: true, ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((p, i) => [p.text, i])), merges: deriveMerges(pieces) },
  };
}

before(() => {
  for (const name of [bitpair, ...TEXTS.map(textFile)]) assert.ok(fs.existsSync(name), `this test needs ${name}`);
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'bitpair-tokenizer-'));
});
after(() => fs.rmSync(folder, { recursive: true, force: true }));

test('SmolLM2: GGUF and tokenizer.json', () => {
  const at = path.join(data, 'tokenizers/smollm2');
  const gguf = path.join(data, 'models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf');
  const tokenizer = new Tokenizer(readJson(path.join(at, 'tokenizer.json')), {});
  for (const name of TEXTS) compareWhole([gguf, at], tokenizer, name);
  compareText(at, tokenizer, oddLines(3000), 'SmolLM2');
  const chat = '<|im_start|>user\nHi<|im_end|>\n';
  assert.equal(run([gguf, '--special'], chat), printed(encode(tokenizer, chat)));
  assert.notEqual(run([gguf], chat), printed(encode(tokenizer, chat)));
});

test('Qwen2.5: vocab.json with merges.txt', () => {
  const { at, merges, added, vocab } = qwenFiles();
  const json = { ...byteModel(vocab, merges), added_tokens: added, normalizer: { type: 'NFC' }, pre_tokenizer: splitBy(`${WORDS}\\p{N}${OTHERS}`) };
  const [made, tokenizer] = make('qwen2', json);
  for (const name of TEXTS) compareWhole([at, made], tokenizer, name);
  compareText(at, tokenizer, oddLines(3000), 'Qwen2');
  compareText(at, tokenizer, everyCharacter((c) => `a${c}b ${c} 1${c}\u0301`), 'Qwen2');
});

test('Llama 3: its expression, and whole words before merges', () => {
  const { merges, vocab } = qwenFiles();
  const half = merges.filter((_, i) => i % 3); // so that there are words that merges do not reach
  const parts = new Set(Object.keys(vocab).filter((t) => Array.from(t).length === 1));
  const kept = half.filter((m) => {
    const [a, b] = m.split(' ');
    return parts.has(a) && parts.has(b) && parts.add(a + b);
  });
  const json = { ...byteModel(vocab, kept, { ignore_merges: true }), pre_tokenizer: splitBy(`${WORDS}\\p{N}{1,3}${OTHERS}`) };
  const [made, tokenizer] = make('llama3', json);
  for (const name of TEXTS) compareWhole(made, tokenizer, name);
  compareText(made, tokenizer, oddLines(3000), 'Llama 3');
});

test('GPT-2: its expression', () => {
  const { model } = readJson(path.join(data, 'tokenizers/smollm2/tokenizer.json'));
  const [made, tokenizer] = make('gpt2', { ...byteModel(model.vocab, model.merges.map((m) => [m].flat().join(' ').split(' '))), pre_tokenizer: byteLevel(true) });
  for (const name of TEXTS) compareWhole(made, tokenizer, name);
  compareText(made, tokenizer, oddLines(3000), 'GPT-2');
});

test('the class of every character', () => {
  const digits = { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits: true }, byteLevel(true)] };
  const text = everyCharacter((c) => `a${c} 1${c} .${c}`);
  for (const [name, pre] of [['classes1', digits], ['classes2', splitBy(`${WORDS}\\p{N}{1,3}${OTHERS}`)]]) {
    const [made, tokenizer] = make(name, classModel(pre));
    compareText(made, tokenizer, text, name);
  }
});

test('tinystories-656k: SentencePiece style with merges across spaces', () => {
  const at = path.join(data, 'models/tinystories-656k');
  const tokenizer = new Tokenizer(readJson(path.join(at, 'tokenizer.json')), {});
  for (const name of TEXTS) compareLines(at, tokenizer, name);
  compareWhole(at, tokenizer, 'multilingual.utf8');
  compareText(at, tokenizer, oddLines(2000) + 'a<unk> <unk>b<|start_story|>\n<|start_story|>Once <|end_story|>\n', 'tinystories');
});

test('Llama 2: tokenizer.model', () => {
  const at = path.join(data, 'tokenizers/llama2-spm');
  const [made, tokenizer] = make('llama2', llamaJson(readPieces(fs.readFileSync(path.join(at, 'tokenizer.model')))));
  for (const name of TEXTS) compareLines(at, tokenizer, name);
  compareWhole([at, made], tokenizer, 'multilingual.utf8');
  compareText(at, tokenizer, oddLines(2000) + 'a<s> b</s>c\n<s>a\n', 'Llama 2');
});

test('decoding gives the text back', () => {
  for (const model of ['tokenizers/smollm2', 'tokenizers/qwen2.5', 'tokenizers/llama2-spm']) {
    for (const name of ['multilingual.utf8', 'technical.utf8', 'heldout_500KB.txt']) {
      const at = path.join(data, model);
      const ids = run([at, '--file', textFile(name)]);
      assert.ok(run([at, '--decode'], ids) === fs.readFileSync(textFile(name), 'utf8'), `${model}, ${name}`);
    }
  }
});

test('what is not supported is named', () => {
  const model = { vocab: { a: 0 }, merges: [] };
  const cases = [
    [{ ...byteModel({ a: 0 }, []), pre_tokenizer: splitBy('\\d+') }, /pre-tokenizer expression/],
    [{ ...byteModel({ a: 0 }, []), pre_tokenizer: { type: 'BertPreTokenizer' } }, /BertPreTokenizer/],
    [{ ...byteModel({ a: 0 }, []), normalizer: { type: 'Lowercase' } }, /Lowercase/],
    [{ ...byteModel({ a: 0 }, []), model: { ...model, type: 'WordPiece' }, pre_tokenizer: byteLevel(true) }, /WordPiece/],
    [{ ...byteModel({ a: 1e300 }, []), pre_tokenizer: byteLevel(true) }, /token id/],
    [{ ...byteModel({ a: 0 }, ['a b']), pre_tokenizer: byteLevel(true) }, /merge 0/],
    [{}, /tokenizer without/],
  ];
  cases.forEach(([json, wanted], i) => {
    const at = path.join(folder, `bad${i}`);
    fs.mkdirSync(at);
    fs.writeFileSync(path.join(at, 'tokenizer.json'), JSON.stringify(json));
    assert.throws(() => execFileSync(bitpair, ['tokenize', at], { input: 'a', stdio: 'pipe' }), (e) => {
      assert.equal(e.status, 1);
      return wanted.test(e.stderr.toString()) || assert.fail(e.stderr.toString());
    });
  });
});
