// gated.js - a server that gives the bytes of one file as far as a test lets it.

import { createServer } from 'node:http';

/**
 * server.limit: bytes of the file that may be sent, the rest waits; let(bytes) raises it. server.ranges: false: it has none.
 * server.handle(request, response) answers for it under another server. server.change(chunk, start): what is sent instead of a part of the file. server.down: every request breaks. server.log: requests.
 */
export async function gatedServer(file, headers = {}) {
  let waiting = [];
  const server = { file, etag: '"1"', sent: 0 };
  server.reset = () => Object.assign(server, { limit: Infinity, ranges: true, change: (chunk) => chunk, down: false, log: [], file, etag: '"1"' });
  server.reset();
  server.let = (bytes) => {
    server.limit = bytes;
    for (const go of waiting.splice(0)) go();
  };
  const send = async (response, at, end) => {
    while (at < end && !response.destroyed) {
      if (server.down) return response.destroy();
      const to = Math.min(end, at + (1 << 16), server.limit);
      if (to > at) {
        const chunk = server.change(Buffer.from(server.file.subarray(at, to)), at);
        if (!response.write(chunk)) await next(response, 'drain');
        server.sent += to - at;
        at = to;
      } else {
        await new Promise((go) => {
          waiting.push(go);
          if (response.destroyed) go();
        });
      }
    }
    return response.end();
  };
  const next = (response, event) => new Promise((resolve) => {
    const go = () => {
      response.off(event, go).off('close', go);
      resolve();
    };
    response.on(event, go).on('close', go);
  });
  server.handle = (request, response) => {
    server.log.push(request.headers.range ?? null);
    if (server.down) return response.destroy();
    const { length } = server.file;
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec((server.ranges && request.headers.range) || '') ?? [];
    const same = (request.headers['if-range'] ?? server.etag) === server.etag;
    const [start, end] = from !== undefined && same ? [Number(from), Math.min(Number(to) + 1, length)] : [0, length];
    const whole = end - start === length;
    const told = { ...headers, etag: server.etag, 'content-length': end - start };
    if (!whole) told['content-range'] = `bytes ${start}-${end - 1}/${length}`;
    response.writeHead(whole ? 200 : 206, told);
    response.on('close', () => server.let(server.limit)); // whoever waits for it
    return send(response, start, end);
  };
  const http = createServer(server.handle);
  http.keepAliveTimeout = 60_000; // a connection that the server closes between two requests would be a retry more
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  server.url = `http://127.0.0.1:${http.address().port}/model.gguf`;
  server.close = () => http.closeAllConnections() || http.close();
  return server;
}
