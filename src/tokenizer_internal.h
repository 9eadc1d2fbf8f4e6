/* tokenizer_internal.h - what the files of the tokenizer share: its tables, UTF-8, and the steps of encoding
 *     text -> sections between added tokens -> normalized -> pre-tokens -> symbols -> merged symbols = ids */
#ifndef BP_TOKENIZER_INTERNAL_H
#define BP_TOKENIZER_INTERNAL_H

#include "tokenizer.h"
#include "unicode.h"

/* tokenizer.ggml.token_type */
enum { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

typedef enum { PRE_GPT2, PRE_DIGITS, PRE_QWEN2, PRE_LLAMA3 } pre_kind;

/* SentencePiece: where a space is put before a section of text */
typedef enum {
    PREFIX_NONE,
    PREFIX_EACH,   /* before each section */
    PREFIX_ALWAYS, /* before each section that does not begin with a space */
    PREFIX_FIRST   /* before the first section, if it does not begin with a space */
} prefix_kind;

/* Two tokens and the one that they make. */
typedef struct {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank; /* the lowest goes first */
    int32_t id;
} merge;

/* Where in a table sorted by a hash of 32 bits the entries begin whose first `bits` are the same: start [2^bits + 1] */
typedef struct {
    uint32_t *start;
    unsigned bits;
} directory;

/* Tokens that are matched in the text before anything else, sorted by their bytes. */
typedef struct {
    uint32_t *ids;
    uint32_t n;
    bool first[256]; /* does one of them begin with this byte? */
} added_set;

enum { END_MOST = 16, SPACE_BYTES = 3 };
#define SPACE_MARK "\xe2\x96\x81" /* U+2581, a space in SentencePiece vocabularies */

struct tokenizer {
    const char *base; /* the bytes of the GGUF file */
    uint32_t size;    /* vocabulary */
    uint32_t *text;   /* [size] where the text of a token begins; the u64 before it is its length */
    uint8_t *type;    /* [size] */
    uint64_t *texts;  /* [n_texts] table of texts, see tokenizer_table.c */
    uint32_t n_texts;
    directory text_places;
    merge *merges; /* table of merges; NULL: merge by score */
    directory merge_places;
    const gguf_key *scores;
    added_set added;       /* matched in the text as it comes */
    added_set normalized;  /* SentencePiece: matched after spaces were put and replaced */
    int32_t byte_id[256];  /* byte-level: token of a byte; SentencePiece: token <0xXX>. -1: none */
    int32_t ascii_id[128]; /* SentencePiece: token of a character, the space's in its place */
    int32_t bos, eos, unknown;
    int32_t ends[END_MOST];
    uint32_t n_ends;
    size_t longest; /* bytes of the longest token text, also of those that no text is searched for (MATCH_MOST) */
    bool spm;       /* SentencePiece family, else byte-level */
    bool nfc;       /* normalize to form C first */
    bool add_bos;
    bool whole_first;   /* a pre-token that is a token is not taken apart (ignore_merges) */
    bool byte_fallback; /* SentencePiece: all 256 byte tokens are there */
    bool cuts;          /* SentencePiece: no merge joins a space to what stands before it */
    pre_kind pre;
    prefix_kind prefix;
    unicode unicode;
};

/* Length of the text of a token */
static inline size_t token_bytes(const tokenizer *t, uint32_t id) {
    uint64_t n;
    memcpy(&n, t->base + t->text[id] - 8, 8);
    return (size_t)n;
}

static inline const char *token_text(const tokenizer *t, uint32_t id) { return t->base + t->text[id]; }

/* The character at *at, which moves behind it. text is UTF-8. */
static inline uint32_t utf8_next(const char *text, size_t *at) {
    const uint8_t *s = (const uint8_t *)text + *at;
    if (s[0] < 0x80) return *at += 1, s[0];
    if (s[0] < 0xe0) return *at += 2, (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
    if (s[0] < 0xf0) return *at += 3, (s[0] & 0xfu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
    *at += 4;
    return (s[0] & 7u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

/* out [4] <- UTF-8 of a character; returns its bytes */
static inline size_t utf8_put(char *out, uint32_t code) {
    if (code < 0x80) return out[0] = (char)code, 1;
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; --i; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(code | (0xf00u >> n & 0xf0));
    return n;
}

/* May `byte` be number `at` (1..) of a character that begins with held[0]? Rules out overlong forms, surrogates and
 * characters above U+10FFFF. */
static inline bool utf8_continues(const uint8_t *held, size_t at, uint8_t byte) {
    if (at == 1 && held[0] == 0xe0) return byte >= 0xa0 && byte <= 0xbf;
    if (at == 1 && held[0] == 0xed) return byte >= 0x80 && byte <= 0x9f;
    if (at == 1 && held[0] == 0xf0) return byte >= 0x90 && byte <= 0xbf;
    if (at == 1 && held[0] == 0xf4) return byte >= 0x80 && byte <= 0x8f;
    return byte >= 0x80 && byte <= 0xbf;
}

/* Bytes of the character that begins with this one; 0: none does */
static inline size_t utf8_length(uint8_t byte) {
    return byte < 0x80 ? 1 : byte < 0xc2 ? 0 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : byte < 0xf5 ? 4 : 0;
}

/* Offset of the first byte that is not UTF-8; n: all is well */
size_t utf8_check(const char *text, size_t n);

/* GPT-2's printable stand-in for a byte, and back (-1: no stand-in) */
uint32_t byte_to_char(uint8_t byte);
int32_t char_to_byte(uint32_t code);

/* Bytes of the longest added token, and by score of the longest piece, that is looked for in texts: longer ones would make the
 * time of encoding grow with text times token. Those of real models have at most some hundreds. */
enum { MATCH_MOST = 1024 };

/* The longest token of the set that text [n] begins with, its bytes in *length; -1: none. Control tokens only on
 * demand. */
int32_t added_match(const tokenizer *t, const added_set *set, const char *text, size_t n, bool control, size_t *length);

/* ---- tokenizer_table.c ---- */

/* Bits of the directory of n entries, one or two for each place; it has 2^bits + 1 */
unsigned table_bits(uint64_t n);

/* Puts a token into the table of texts, which is then sorted, once. */
void table_add_text(tokenizer *t, uint32_t id);
void table_sort_texts(tokenizer *t);

/* The first token whose text is a [na] followed by b [nb]; -1: none */
int32_t tokenizer_find(const tokenizer *t, const char *a, size_t na, const char *b, size_t nb);

/* Makes the table of merges out of t->merges [n] in any order. */
void table_sort_merges(tokenizer *t, uint32_t n);

/* The merge of two tokens, of several that of the lowest rank; NULL: there is none */
const merge *table_find_merge(const tokenizer *t, uint64_t pair);

void table_sort_added(const tokenizer *t, added_set *set);

/* ---- tokenizer_nfc.c ---- */

/* Is text [n] surely in normalization form C? */
bool nfc_is_stable(const unicode *u, const char *text, size_t n);

/* out [3 n] <- form C of text [n]; returns its bytes. work [4 n] */
size_t nfc_normalize(const unicode *u, char *out, const char *text, size_t n, uint32_t *work);

/* ---- tokenizer_pre.c ---- */

typedef struct {
    const unicode *unicode;
    pre_kind kind;
    const char *text;
    size_t at, end; /* what is left */
    size_t limit;   /* PRE_DIGITS: end of the run without digits around `at` */
} pre_cursor;

pre_cursor pre_begin(const unicode *u, pre_kind kind, const char *text, size_t n);

/* Moves c->at < c->end behind the next pre-token. */
void pre_next(pre_cursor *c);

/* ---- tokenizer_bpe.c ---- */

/* The symbols of one pre-token, a doubly linked list over positions. */
typedef struct {
    int32_t *id;           /* [room] */
    uint32_t *next, *prev; /* [room]; the end is UINT32_MAX */
    uint64_t *heap;        /* [2 room] rank << 32 | position of a left part */
    size_t room, n, n_heap;
} bpe_word;

enum { BPE_ITEM = 28 }; /* bytes of scratch per symbol */

/* Merges the symbols id[0..n) of w. What is left is the list from position 0 on. */
void bpe_merge(const tokenizer *t, bpe_word *w);

#endif
