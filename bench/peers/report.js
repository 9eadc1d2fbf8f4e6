// report.js - prints what peers.js has measured, and how it compares with the best peer.

import { median, spread, table } from '../lib/table.js';

const pick = (rows, key) => rows.flatMap(({ figures }) => figures.map((figure) => figure[key]));
const of = (row, key) => row.figures.map((figure) => figure[key]);

/** The peer with the best median of `key` among rows; lower: less is better. */
function bestPeer(rows, key, lower = false) {
  const peers = rows.filter(({ ours, figures }) => !ours && figures.length > 0);
  const value = (row) => (lower ? -1 : 1) * median(of(row, key));
  return peers.reduce((best, row) => (best && value(best) >= value(row) ? best : row), null);
}

/** Ratio of ours to the peer in the same round, since what slows the machine down slows down both. */
export function ratios(ours, peer, key) {
  const [a, b] = [of(ours, key), of(peer, key)];
  return a.slice(0, b.length).map((x, i) => x / b[i]);
}

const against = (row, peer, key) => (row.ours && peer ? `${spread(ratios(row, peer, key), 2)}` : '');

export function printSpeed(rows) {
  for (const count of new Set(rows.map(({ threads }) => threads))) {
    const same = rows.filter(({ threads }) => threads === count);
    const best = { prefill: bestPeer(same, 'prefill'), decode: bestPeer(same, 'decode') };
    const line = (row) => [row.name, spread(of(row, 'prefill'), 0), against(row, best.prefill, 'prefill'),
      spread(of(row, 'decode')), against(row, best.decode, 'decode')];
    console.log(`\n${count} thread(s), tokens per second: median (range), and how many times the best peer\n`);
    console.log(table([['', 'prefill', 'x', 'decode', 'x'], ...same.map(line)]));
  }
}

export function printStart(rows) {
  console.log('\nmilliseconds from navigation with everything cached, and bytes of scripts and WebAssembly\n');
  const line = (row) => [row.name, spread(of(row, 'opened'), 0), spread(of(row, 'first'), 0), row.bytes];
  console.log(table([['', 'model open', 'first token of 20', 'bytes'], ...rows.map(line)]));
}

const MB = 1e6;

export function printMemory(rows, context) {
  console.log(`\nMB of the page's process over an empty page, context of ${context}, after one answer; and its peak\n`);
  const mb = (row, key) => spread(of(row, key).map((bytes) => bytes / MB), 0);
  console.log(table([['', 'pss', 'rss', 'peak rss'], ...rows.map((row) => [row.name, mb(row, 'pss'), mb(row, 'rss'), mb(row, 'peak')])]));
}

export function printNative(rows) {
  console.log('\nnative, tokens per second\n');
  const line = (row) => [row.name, row.threads, spread(of(row, 'prefill'), 0), spread(of(row, 'decode'))];
  console.log(table([['', 'threads', 'prefill', 'decode'], ...rows.map(line)]));
  if (pick(rows, 'prefill').length === 0) console.log('nothing was measured');
}
