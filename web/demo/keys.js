// keys.js - what keys mean where text is written.

/** While an input method composes, keys belong to it; Safari tells only by key code 229. */
export const isComposing = (event) => event.isComposing || event.keyCode === 229;

/** Enter sends, Shift+Enter breaks the line. */
export const isSend = (event) => event.key === 'Enter' && !event.shiftKey && !isComposing(event);
