#include "tokenizer_internal.h"

size_t utf8_check(const char *text, size_t n) {
    const uint8_t *s = (const uint8_t *)text;
    for (size_t at = 0; at < n;) {
        size_t length = utf8_length(s[at]);
        if (length == 0 || length > n - at) return at;
        for (size_t i = 1; i < length; i++)
            if (!utf8_continues(s + at, i, s[at + i])) return at;
        at += length;
    }
    return n;
}

/* Bytes 33-126, 161-172 and 174-255 stand for themselves; the others, in order, for U+0100 and on. */
uint32_t byte_to_char(uint8_t byte) {
    if (byte <= 32) return 256u + byte;
    if (byte >= 127 && byte <= 160) return 289u + (byte - 127u);
    return byte == 173 ? 323 : byte;
}

int32_t char_to_byte(uint32_t code) {
    if (code >= 256 && code <= 288) return (int32_t)(code - 256);
    if (code >= 289 && code <= 322) return (int32_t)(code - 289 + 127);
    if (code == 323) return 173;
    return code < 256 && byte_to_char((uint8_t)code) == code ? (int32_t)code : -1;
}

/* ---- encoding ---- */

typedef struct {
    const tokenizer *t;
    bool control;        /* match control tokens */
    bool full;           /* ids or symbols did not fit: *ids is not complete */
    bool mapped_unknown; /* the last symbol put stands for unknown characters */
    char *normal;        /* [3 n] form C of a section */
    bpe_word word;
    int32_t *ids;
    size_t n, room;
} encoder;

/* Of the tokens in [low, high), sorted and equal before byte `depth`: the first whose byte there is >= wanted */
static uint32_t first_not_below(const tokenizer *t, const added_set *set, uint32_t low, uint32_t high, size_t depth,
                                unsigned wanted) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint8_t)token_text(t, set->ids[middle])[depth] < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int32_t added_match(const tokenizer *t, const added_set *set, const char *text, size_t n, bool control,
                    size_t *length) {
    uint32_t low = 0, high = set->n;
    int32_t best = -1;
    if (!n || !set->first[(uint8_t)text[0]]) return -1;
    for (size_t depth = 0;; depth++) {
        for (; low < high && token_bytes(t, set->ids[low]) == depth; low++) {
            if (!control && t->type[set->ids[low]] != TOKEN_USER) continue;
            best = (int32_t)set->ids[low];
            *length = depth;
        }
        if (low == high || depth == n) return best;
        unsigned byte = (uint8_t)text[depth];
        low = first_not_below(t, set, low, high, depth, byte);
        high = first_not_below(t, set, low, high, depth, byte + 1);
    }
}

static void put_id(encoder *en, int32_t id) {
    if (id < 0) return;
    if (en->n == en->room)
        en->full = true;
    else
        en->ids[en->n++] = id;
}

static void put_symbol(encoder *en, int32_t id) {
    en->mapped_unknown = false;
    if (en->word.n == en->word.room)
        en->full = true;
    else
        en->word.id[en->word.n++] = id;
}

/* Merges the symbols gathered so far and appends what they become. */
static void put_word(encoder *en) {
    bpe_word *w = &en->word;
    if (w->n > 1)
        bpe_merge(en->t, w);
    else
        w->next[0] = UINT32_MAX;
    for (uint32_t i = 0; w->n && i != UINT32_MAX; i = w->next[i]) put_id(en, w->id[i]);
    w->n = 0;
}

/* The token that a whole pre-token is, or -1; its bytes are written as the vocabulary writes them. */
static int32_t find_whole(const encoder *en, const char *text, size_t n) {
    char *mapped = (char *)en->word.heap; /* free between words; 16 bytes for each of text */
    size_t bytes = 0;
    if (n > en->t->longest) return -1;
    for (size_t i = 0; i < n; i++) bytes += utf8_put(mapped + bytes, byte_to_char((uint8_t)text[i]));
    int32_t id = tokenizer_find(en->t, mapped, bytes, "", 0);
    return tokenizer_is_control(en->t, id) ? -1 : id; /* those never come from text */
}

static void encode_bytes(encoder *en, const char *text, size_t n) {
    const tokenizer *t = en->t;
    if (t->nfc && !nfc_is_stable(&t->unicode, text, n)) {
        n = nfc_normalize(&t->unicode, en->normal, text, n, (uint32_t *)(void *)en->word.id);
        text = en->normal;
    }
    for (pre_cursor c = pre_begin(&t->unicode, t->pre, text, n); c.at < c.end && !en->full;) {
        size_t start = c.at;
        pre_next(&c);
        int32_t whole =
            t->whole_first && c.at - start <= en->word.room ? find_whole(en, text + start, c.at - start) : -1;
        if (whole >= 0) {
            put_id(en, whole);
            continue;
        }
        for (size_t i = start; i < c.at; i++) put_symbol(en, t->byte_id[(uint8_t)text[i]]);
        put_word(en);
    }
}

static size_t space_at(const char *text, size_t n) {
    if (n && text[0] == ' ') return 1;
    return n >= SPACE_BYTES && memcmp(text, SPACE_MARK, SPACE_BYTES) == 0 ? SPACE_BYTES : 0;
}

/* A character that is no token: its bytes, or one unknown token for a run of such characters. */
static void put_unknown(encoder *en, const char *text, size_t n) {
    if (en->t->byte_fallback) {
        for (size_t i = 0; i < n; i++) put_symbol(en, en->t->byte_id[(uint8_t)text[i]]);
    } else if (!en->mapped_unknown) {
        if (en->t->unknown >= 0) put_symbol(en, en->t->unknown);
        en->mapped_unknown = true;
    }
}

/* The text between added tokens, `prefix`: with a space before it */
static void encode_pieces(encoder *en, const char *text, size_t n, bool prefix) {
    const tokenizer *t = en->t;
    bool spaced = prefix;
    en->mapped_unknown = false;
    if (prefix && n) {
        if (t->ascii_id[' '] >= 0)
            put_symbol(en, t->ascii_id[' ']);
        else
            put_unknown(en, SPACE_MARK, SPACE_BYTES);
    }
    for (size_t at = 0; at < n && !en->full;) {
        size_t start = at;
        uint32_t code = utf8_next(text, &at);
        bool space = code == ' ' || code == 0x2581;
        if (t->cuts && space && !spaced && start) put_word(en);
        spaced = space;
        const char *s = space ? SPACE_MARK : text + start;
        size_t bytes = space ? SPACE_BYTES : at - start;
        int32_t id = code < 128 ? t->ascii_id[code] : tokenizer_find(t, s, bytes, "", 0);
        if (id >= 0)
            put_symbol(en, id);
        else
            put_unknown(en, s, bytes);
    }
    put_word(en);
}

/* Where the prefix goes (PREFIX_EACH), a token that is matched in normalized text carries one too: it is found behind a
 * space, or at the beginning, where it takes the prefix. */
static int32_t normalized_match(const encoder *en, const char *text, size_t n, bool prefix, size_t at, size_t *end) {
    const tokenizer *t = en->t;
    size_t space = t->prefix == PREFIX_NONE ? 0 : space_at(text + at, n - at), length = 0;
    int32_t id = -1;
    if (prefix && at == 0 && (id = added_match(t, &t->normalized, text, n, en->control, &length)) >= 0) space = 0;
    if (id < 0 && (space || t->prefix == PREFIX_NONE))
        id = added_match(t, &t->normalized, text + at + space, n - at - space, en->control, &length);
    *end = at + space + length;
    return id;
}

static void encode_spm(encoder *en, const char *text, size_t n, bool first) {
    const tokenizer *t = en->t;
    bool prefix = t->prefix == PREFIX_EACH || (t->prefix == PREFIX_ALWAYS && !space_at(text, n)) ||
                  (t->prefix == PREFIX_FIRST && first && !space_at(text, n));
    size_t start = 0, end;
    for (size_t at = 0; t->normalized.n && at < n;) {
        int32_t id = normalized_match(en, text, n, prefix, at, &end);
        if (id < 0) {
            utf8_next(text, &at);
            continue;
        }
        encode_pieces(en, text + start, at - start, prefix && start == 0);
        put_id(en, id);
        start = at = end;
    }
    encode_pieces(en, text + start, n - start, prefix && start == 0);
}

static void encode_section(encoder *en, const char *text, size_t n, bool first) {
    if (n == 0 || en->full) return;
    if (en->t->spm)
        encode_spm(en, text, n, first);
    else
        encode_bytes(en, text, n);
}

/* Scratch: symbols [n + 8] as id, next, prev (also the code points of a normalization), the heap, form C of the text */
static size_t scratch_room(size_t n) { return bp_round_up(n + 8, 16); }

size_t tokenizer_scratch(const tokenizer *t, size_t n) {
    size_t per_byte = BPE_ITEM + (t->nfc ? 3 : 0);
    return n > SIZE_MAX / per_byte - 64 ? SIZE_MAX : scratch_room(n) * per_byte;
}

static encoder begin(const tokenizer *t, size_t n, uint32_t flags, void *scratch, int32_t *ids) {
    size_t room = scratch_room(n);
    encoder en = {.t = t, .control = (flags & TOKENIZE_SPECIAL) != 0, .ids = ids, .room = n + 8};
    uint8_t *memory = scratch;
    en.word.id = (int32_t *)(void *)memory;
    en.word.next = (uint32_t *)(void *)(memory + 4 * room);
    en.word.prev = (uint32_t *)(void *)(memory + 8 * room);
    en.word.heap = (uint64_t *)(void *)(memory + 12 * room);
    en.normal = (char *)memory + BPE_ITEM * room;
    en.word.room = room;
    return en;
}

bool tokenizer_encode(const tokenizer *t, const char *text, size_t n, uint32_t flags, void *scratch, int32_t *ids,
                      size_t *n_ids, bp_err *e) {
    *n_ids = 0;
    if (n >= UINT32_MAX / 4)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "text of %zu bytes is too long to tokenize at once", n);
    size_t good = utf8_check(text, n);
    if (good < n) return bp_fail(e, BP_ERR_FORMAT, good, "the text is not UTF-8");
    encoder en = begin(t, n, flags, scratch, ids);
    if ((flags & TOKENIZE_BOS) && t->add_bos) put_id(&en, t->bos);
    size_t start = 0, length = 0;
    for (size_t at = 0; at < n;) {
        int32_t id =
            t->added.first[(uint8_t)text[at]] ? added_match(t, &t->added, text + at, n - at, en.control, &length) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        encode_section(&en, text + start, at - start, start == 0);
        put_id(&en, id);
        start = at += length;
    }
    encode_section(&en, text + start, n - start, start == 0);
    if (en.full) return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "text of %zu bytes gives more than %zu tokens", n, n + 8);
    *n_ids = en.n;
    return true;
}

/* ---- properties ---- */

uint32_t tokenizer_size(const tokenizer *t) { return t->size; }

int32_t tokenizer_bos(const tokenizer *t) { return t->bos; }

int32_t tokenizer_eos(const tokenizer *t) { return t->eos; }

bool tokenizer_adds_bos(const tokenizer *t) { return t->add_bos && t->bos >= 0; }

bool tokenizer_is_end(const tokenizer *t, int32_t id) {
    for (uint32_t i = 0; i < t->n_ends; i++)
        if (t->ends[i] == id) return true;
    return false;
}

bool tokenizer_is_control(const tokenizer *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->size && (t->type[id] == TOKEN_CONTROL || t->type[id] == TOKEN_UNKNOWN);
}

size_t tokenizer_longest(const tokenizer *t) { return 3 * t->longest; }

/* ---- decoding ---- */

/* The bytes of a token one by one: what is left of its text, and how that is written */
typedef struct {
    const char *text;
    size_t n;
    enum { PIECE_RAW, PIECE_MAPPED, PIECE_SPACED, PIECE_BYTE } form;
} piece;

static piece piece_begin(const tokenizer *t, int32_t id, bool special) {
    if (id < 0 || (uint32_t)id >= t->size || (!special && tokenizer_is_control(t, id)))
        return (piece){"", 0, PIECE_RAW};
    piece p = {token_text(t, (uint32_t)id), token_bytes(t, (uint32_t)id), PIECE_RAW};
    uint8_t type = t->type[id];
    if (t->spm && type == TOKEN_BYTE)
        p.form = PIECE_BYTE;
    else if (type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_USER)
        p.form = t->spm ? PIECE_SPACED : PIECE_MAPPED;
    return p;
}

static uint8_t piece_next(piece *p) {
    const uint8_t *s = (const uint8_t *)p->text;
    size_t used = 1;
    uint8_t byte = s[0];
    if (p->form == PIECE_BYTE) {
        byte =
            (uint8_t)((s[3] <= '9' ? s[3] - '0' : s[3] - 'A' + 10) * 16 + (s[4] <= '9' ? s[4] - '0' : s[4] - 'A' + 10));
        used = p->n;
    } else if (p->form == PIECE_SPACED && p->n >= SPACE_BYTES && memcmp(s, SPACE_MARK, SPACE_BYTES) == 0) {
        byte = ' ';
        used = SPACE_BYTES;
    } else if (p->form == PIECE_MAPPED && p->n >= 2 && byte >= 0xc2 && byte <= 0xc5 && (s[1] & 0xc0) == 0x80) {
        int32_t mapped = char_to_byte((s[0] & 0x1fu) << 6 | (s[1] & 0x3fu));
        if (mapped >= 0) {
            byte = (uint8_t)mapped;
            used = 2;
        }
    }
    p->text += used;
    p->n -= used;
    return byte;
}

size_t tokenizer_piece(const tokenizer *t, int32_t id, bool special, char *out, size_t cap) {
    size_t n = 0;
    for (piece p = piece_begin(t, id, special); p.n; n++) {
        char byte = (char)piece_next(&p);
        if (n < cap) out[n] = byte;
    }
    return n;
}

void token_stream_begin(const tokenizer *t, token_stream *s) { *s = (token_stream){.strip = t->prefix != PREFIX_NONE}; }

typedef struct {
    char *out;
    size_t cap, n;
} sink;

static void sink_bytes(sink *o, const void *bytes, size_t n) {
    if (n > o->cap - o->n) return;
    memcpy(o->out + o->n, bytes, n);
    o->n += n;
}

static void release(token_stream *s, sink *o) {
    if (s->n_held) sink_bytes(o, "\xef\xbf\xbd", 3);
    s->n_held = 0;
}

/* A broken character ends before the first byte that cannot belong to it; that byte is looked at anew. */
static void stream_byte(token_stream *s, sink *o, uint8_t byte) {
    if (s->n_held && !utf8_continues(s->held, s->n_held, byte)) release(s, o);
    if (s->n_held == 0 && utf8_length(byte) == 0) {
        sink_bytes(o, "\xef\xbf\xbd", 3);
        return;
    }
    s->held[s->n_held++] = byte;
    if (s->n_held < utf8_length(s->held[0])) return;
    sink_bytes(o, s->held, s->n_held);
    s->n_held = 0;
}

size_t token_stream_push(const tokenizer *t, token_stream *s, int32_t id, bool special, char *out, size_t cap) {
    sink o = {out, cap, 0};
    for (piece p = piece_begin(t, id, special); p.n; s->strip = false) {
        uint8_t byte = piece_next(&p);
        if (!(s->strip && byte == ' ')) stream_byte(s, &o, byte);
    }
    return o.n;
}

size_t token_stream_end(token_stream *s, char *out, size_t cap) {
    sink o = {out, cap, 0};
    release(s, &o);
    return o.n;
}
