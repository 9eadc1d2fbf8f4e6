// kept.js - small things that are kept for this tab or this browser; where a browser refuses storage, for this visit.

class Kept {
  #memory = new Map();

  /** @param {'sessionStorage' | 'localStorage'} name */
  constructor(name) {
    this.name = name;
  }

  get(key) {
    try {
      return globalThis[this.name].getItem(key);
    } catch {
      return this.#memory.get(key) ?? null;
    }
  }

  /** null: forgets it */
  set(key, value) {
    this.#memory.set(key, value);
    try {
      if (value === null) globalThis[this.name].removeItem(key);
      else globalThis[this.name].setItem(key, value);
    } catch {
      // refused, or full
    }
  }
}

export const forTab = new Kept('sessionStorage');
export const forBrowser = new Kept('localStorage');
