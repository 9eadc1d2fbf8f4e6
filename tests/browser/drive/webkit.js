// webkit.js - WebKitGTK, the engine of Safari, in its own small browser on an invisible screen. It speaks W3C WebDriver: one
// command at a time and no events, so a script that takes long is started, and asked for its result later.

import { existsSync, readdirSync, writeFileSync } from 'node:fs';

import { freePort, pause, programPath, startProgram, temporaryFolder, until } from './common.js';

const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'; // how the standard marks a reference to an element
const KEYS = { Enter: '\uE007', Escape: '\uE00C', Tab: '\uE004' };

/** What Safari has, and WebKitGTK only when asked. */
const SAFARI = {
  environment: { JSC_useSharedArrayBuffer: '1', JSC_useWasmRelaxedSIMD: '1', JSC_useWebAssemblyRelaxedSIMD: '1' },
  args: ['--features=+StorageAPI,+StorageAPIEstimate,+FileSystem,+AccessHandle'],
};
const PLAIN = { environment: {}, args: [] };

/** safari: with SharedArrayBuffer, relaxed SIMD and the interface of the origin private file system */
export async function openWebkit({ safari }) {
  const { environment, args } = safari ? SAFARI : PLAIN;
  const home = temporaryFolder('webkit');
  const programs = [];
  const close = async () => {
    for (const { end } of programs.reverse()) await end();
    home.remove();
  };
  try {
    const display = await startScreen(programs);
    const port = await freePort();
    programs.push(startProgram(programPath('WEBKIT_DRIVER', '/usr/bin/WebKitWebDriver'), [`--port=${port}`], {
      env: { ...process.env, DISPLAY: display, HOME: home.path, WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: '1', ...environment },
    }));
    const session = await openSession(`http://127.0.0.1:${port}`, ['--automation', ...args]);
    return {
      version: session.version,
      isolates: false,
      keepsStorage: false,
      canBeOffline: false,
      newPage: (url, options) => newPage(session, url, options),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** An X server that chooses its number itself, and tells it. -> ':N' */
async function startScreen(programs) {
  const path = programPath('XVFB', '/usr/bin/Xvfb');
  const screen = startProgram(path, ['-displayfd', '3', '-screen', '0', '1280x1024x24', '-nolisten', 'tcp'], { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] });
  programs.push(screen);
  const number = await new Promise((resolve, reject) => {
    screen.child.stdio[3].once('data', (data) => resolve(Number(data)));
    screen.child.once('close', () => reject(new Error('Xvfb did not start')));
  });
  return `:${number}`;
}

function miniBrowser() {
  const folders = readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/webkit2gtk-4.1/MiniBrowser`);
  return programPath('MINIBROWSER', folders.find(existsSync) ?? '/usr/lib/webkit2gtk-4.1/MiniBrowser');
}

/** {version, home, inWindow(handle, method, path, body)}: commands wait for each other. */
async function openSession(driver, args) {
  const command = async (method, path, body) => {
    const response = await fetch(driver + path, { method, body: body && JSON.stringify(body), headers: { 'content-type': 'application/json' } });
    const { value } = await response.json();
    if (value?.error) throw new Error(`WebKit: ${value.error}: ${value.message}`);
    return value;
  };
  await until(() => command('GET', '/status').then(({ ready }) => ready, () => false), 'WebKitWebDriver');
  const { sessionId, capabilities } = await command('POST', '/session', {
    capabilities: { alwaysMatch: { 'webkitgtk:browserOptions': { binary: miniBrowser(), args } } },
  });
  const base = `/session/${sessionId}`;
  let last = Promise.resolve();
  const inTurn = (work) => {
    const done = last.then(work);
    last = done.catch(() => {});
    return done;
  };
  const home = await command('GET', `${base}/window`); // stays open: no window, no session
  await command('POST', `${base}/timeouts`, { script: 600000, pageLoad: 120000 });
  return {
    version: `${capabilities.browserName} ${capabilities.browserVersion}`,
    home,
    inWindow: (handle, method, path, body) => inTurn(async () => {
      await command('POST', `${base}/window`, { handle });
      return command(method, base + path, body);
    }),
  };
}

/** Put into the page in this form: no eval, so it runs under any content security policy. */
const starter = (fn) => `
  const [key, args] = arguments;
  const results = (window.driverResults ??= {});
  const settle = (name) => (value) => (results[key] = { [name]: name === 'error' ? String(value?.stack ?? value) : value });
  results[key] = {};
  (async () => (${fn})(...args))().then(settle('value'), (error) => settle('error')(\`\${error}\\n\${error?.stack ?? ''}\`));`;

const COLLECTOR = `
  const found = window.driverResults?.[arguments[0]];
  if (found && Object.keys(found).length === 0) return { busy: true };
  delete window.driverResults?.[arguments[0]];
  return found ?? { error: 'the page has gone' };`;

let lastKey = 0;

async function newPage(session, url, { viewport = { width: 1000, height: 760 } } = {}) {
  const { handle } = await session.inWindow(session.home, 'POST', '/window/new', { type: 'window' });
  const send = (method, path, body) => session.inWindow(handle, method, path, body);
  const run = (script, args) => send('POST', '/execute/sync', { script, args });
  const evaluate = async (fn, ...args) => {
    const key = `${++lastKey}`;
    await run(starter(fn), [key, args]);
    for (let wait = 5; ; wait = Math.min(100, 2 * wait)) {
      const { busy, error, value } = await run(COLLECTOR, [key]);
      if (error) throw new Error(error);
      if (!busy) return value;
      await pause(wait);
    }
  };
  const find = async (selector) => (await send('POST', '/element', { using: 'css selector', value: selector }))[ELEMENT];
  const setViewport = async ({ width, height }) => {
    const { border, frame } = await evaluate(() => ({ border: outerWidth - innerWidth, frame: outerHeight - innerHeight }));
    await send('POST', '/window/rect', { width: width + border, height: height + frame });
  };
  // The driver may take the end of an earlier load for that of this one.
  const navigate = async (path, body) => {
    await run('window.driverOld = true', []);
    await send('POST', path, body);
    await until(() => run('return !window.driverOld && document.readyState === "complete"', []), 'a page to load');
  };
  const page = {
    problems: null,
    evaluate,
    another: (to) => newPage(session, to, { viewport }),
    setViewport,
    goto: (to) => navigate('/url', { url: to }),
    reload: () => navigate('/refresh', {}),
    waitFor: (fn, ...args) => until(() => evaluate(fn, ...args), fn),
    click: async (selector) => send('POST', `/element/${await find(selector)}/click`, {}),
    type: async (selector, typed) => send('POST', `/element/${await find(selector)}/value`, { text: typed }),
    press: (key) => send('POST', '/actions', { actions: [keyPress(KEYS[key] ?? key)] }),
    screenshot: async (path) => writeFileSync(path, Buffer.from(await send('GET', '/screenshot'), 'base64')),
    offline: async () => Promise.reject(new Error('this driver cannot take WebKit off the network')),
    close: () => send('DELETE', '/window'),
  };
  await setViewport(viewport);
  if (url) await page.goto(url);
  return page;
}

const keyPress = (value) => ({
  type: 'key',
  id: 'keyboard',
  actions: [{ type: 'keyDown', value }, { type: 'keyUp', value }],
});
