// prompts.js - English text to measure with, cut to a number of tokens.

const TEXT = [
  `A lighthouse stands where the land gives way to the sea, and for most of its life nobody thinks of it at all. The keeper climbs the
stairs in the evening, trims the lamp, winds the clockwork that turns the lens, and writes into a book what the wind did. Ships pass far
out, see a white flash every ten seconds, and know from the count which cape it is. In a storm the spray reaches the gallery, the glass
hums, and the whole tower seems to lean into the weather. When the morning comes the keeper draws the curtains, so that the sun does not
burn through the lens, and sleeps until noon. Later the light was driven by electricity, and later still nobody lived there, but the flash
remained, and the sailors went on counting. What makes a good light is not its strength alone, it is that it never changes.`,
  `Bread needs flour, water, salt and time, and of these time is the one that most recipes leave out. The baker mixes the dough in the
afternoon, folds it a few times while it rests, and lets it rise slowly in a cool room until the next day. Small bubbles grow, the sour
smell becomes round, and the surface holds the print of a finger for a moment before it comes back. A very hot oven with a little steam
makes the crust thin and shining. The loaf sings when it cools, a faint crackle that one hears only in a quiet kitchen. It is wise to
wait an hour before cutting it, although hardly anybody does. The oldest loaves we know were found in ashes, flat and black, made of
grain that grew wild, thousands of years before anyone had thought of a field.`,
].map((text) => text.replace(/\s+/g, ' '));

/**
 * The beginning of text `which`, of `n` tokens.
 * @param {import('../../web/index.js').Model} model whose tokenizer cuts it
 * @returns {Promise<{text: string, ids: number[]}>} ids of that text
 */
export async function cutPrompt(model, which, n) {
  const words = TEXT[which % TEXT.length].split(' ');
  let text = '';
  let ids = [];
  for (const word of words) {
    if (ids.length >= n) break;
    const longer = text ? `${text} ${word}` : word;
    const cut = await model.tokenize(longer);
    if (cut.length > n) {
      text += '.'.repeat(n - ids.length); // a word of several tokens: full stops make up for it
      ids = await model.tokenize(text);
      break;
    }
    [text, ids] = [longer, cut];
  }
  return { text, ids };
}
