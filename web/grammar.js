// grammar.js - the grammar that an answer's options ask for.

import { fail } from './errors.js';

/**
 * @param {{grammar?: string, jsonSchema?: object | boolean, json?: boolean}} options
 * @returns {Promise<string | null>} GBNF; null: any text
 */
export async function chooseGrammar({ grammar, jsonSchema, json }) {
  const given = [grammar, jsonSchema, json || undefined].filter((value) => value !== undefined);
  if (given.length > 1) fail('argument', 'give one of grammar, jsonSchema and json');
  if (given.length === 0) return null;
  if (grammar !== undefined)
    return typeof grammar === 'string' ? grammar : fail('argument', 'grammar must be a string in GBNF, the notation of llama.cpp');
  const { schemaGrammar } = await schemas();
  return schemaGrammar(json ? { type: 'object' } : jsonSchema);
}

/** The grammar of a call, see toolGrammar() of schema.js. */
export const chooseToolGrammar = async (tools, key) => (await schemas()).toolGrammar(tools, key);

/** Most pages never need it. */
const schemas = () => import('./schema.js').catch((error) => fail('network', `schema.js did not load: ${error.message}`, { cause: error }));
