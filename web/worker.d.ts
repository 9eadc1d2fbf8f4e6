/** What load() starts as a worker: an entry for bundlers, with nothing to import. */
export {};
