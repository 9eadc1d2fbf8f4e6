// control.js - holds a load and lets it go on.

const followers = new WeakMap(); // LoadController -> functions that want to know

/** See index.d.ts. */
export class LoadController {
  #paused = false;

  constructor() {
    followers.set(this, new Set());
  }

  get paused() {
    return this.#paused;
  }

  pause() {
    this.#set(true);
  }

  resume() {
    this.#set(false);
  }

  #set(paused) {
    if (paused === this.#paused) return;
    this.#paused = paused;
    for (const tell of followers.get(this)) tell(paused);
  }
}

/** tell(paused) is called with each change, and at once where it is paused. Returns a function that ends that. */
export function follow(controller, tell) {
  const list = followers.get(controller);
  list.add(tell);
  if (controller.paused) tell(true);
  return () => list.delete(tell);
}
