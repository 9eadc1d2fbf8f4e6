// drop.js - files let fall on the page.

import { $ } from './dom.js';

/** take(file): called with the first file that is dropped anywhere on the page */
export function acceptDrops(take) {
  let depth = 0; // dragenter and dragleave come for every element on the way
  const hasFiles = (event) => event.dataTransfer?.types.includes('Files');
  const show = (yes) => {
    $('drop').hidden = !yes;
    if (!yes) depth = 0;
  };
  addEventListener('dragenter', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth++;
    show(true);
  });
  addEventListener('dragleave', () => --depth <= 0 && show(false));
  addEventListener('dragover', (event) => hasFiles(event) && event.preventDefault());
  addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    show(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
}
