// examples.js - the code blocks of docs/API.md: {name: the heading above it, kind: '', 'page' or 'large', code}.

import { readFileSync } from 'node:fs';

import { ROOT } from './helper.js';

export function examples() {
  const blocks = [];
  let heading = '';
  for (const [, title, kind, code] of readFileSync(`${ROOT}docs/API.md`, 'utf8').matchAll(/^#+ (.*)$|^```js ?(\w*)\n([^]*?)^```$/gm)) {
    if (title) heading = title;
    else blocks.push({ name: `${heading}, ${blocks.filter(({ name }) => name.startsWith(heading)).length + 1}`, kind, code });
  }
  return blocks;
}

/** The body of an async function of `names` that does what an example does; the package comes from `from`. */
export const bodyOf = (code, from) => code.replace(/^import (\{.*\}) from 'bitpair';$/gm, (_, names) => `const ${names} = await import(${JSON.stringify(from)});`);
