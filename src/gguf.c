#include "gguf.h"

enum {
    HEADER_MOST = 256 << 20, /* bytes: a vocabulary of millions fits, a hostile count does not get far */
    NAME_MOST = 256,         /* bytes of a tensor name or key */
    KEY_LEAST = 13,          /* fewest bytes of a key: length, kind, one-byte value */
    TENSOR_LEAST = 32        /* fewest bytes of a tensor entry */
};

/* A cursor over the header. `more` tells a header that is cut off from one that is wrong. */
typedef struct {
    const uint8_t *bytes;
    uint64_t size, at;
    bool more;
    bp_err *e;
} reader;

static bool need(reader *r, uint64_t n, const char *what) {
    if (n <= r->size - r->at) return true;
    r->more = true;
    return bp_fail(r->e, BP_ERR_FORMAT, r->at, "file ends inside its header (%s)", what);
}

static uint32_t get_u32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static uint64_t get_u64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static bool read_u32(reader *r, uint32_t *v, const char *what) {
    if (!need(r, 4, what)) return false;
    *v = get_u32(r->bytes + r->at);
    r->at += 4;
    return true;
}

static bool read_u64(reader *r, uint64_t *v, const char *what) {
    if (!need(r, 8, what)) return false;
    *v = get_u64(r->bytes + r->at);
    r->at += 8;
    return true;
}

static bool read_text(reader *r, gguf_text *t, uint64_t most, const char *what) {
    uint64_t n;
    if (!read_u64(r, &n, what)) return false;
    if (n > most)
        return bp_fail(r->e, BP_ERR_FORMAT, r->at - 8, "%s of %llu bytes is too long", what, (unsigned long long)n);
    if (!need(r, n, what)) return false;
    *t = (gguf_text){(const char *)r->bytes + r->at, (size_t)n};
    r->at += n;
    return true;
}

static size_t kind_bytes(uint32_t kind) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return kind < sizeof bytes ? bytes[kind] : 0;
}

static bool skip_items(reader *r, gguf_key *key) {
    size_t item = kind_bytes(key->item);
    if (item) {
        if (key->count > HEADER_MOST / item)
            return bp_fail(r->e, BP_ERR_FORMAT, r->at, "array '%.*s' of %llu items is too long", (int)key->name.size,
                           key->name.text, (unsigned long long)key->count);
        if (!need(r, key->count * item, "array")) return false;
        r->at += key->count * item;
        return true;
    }
    if (key->item != GGUF_STRING)
        return bp_fail(r->e, BP_ERR_FORMAT, r->at, "array '%.*s' has items of unknown kind %u", (int)key->name.size,
                       key->name.text, (unsigned)key->item);
    for (uint64_t i = 0; i < key->count; i++) {
        gguf_text t;
        if (!read_text(r, &t, HEADER_MOST, "string of an array")) return false;
    }
    return true;
}

static bool read_key(reader *r, gguf_key *key) {
    uint32_t kind;
    if (!read_text(r, &key->name, NAME_MOST, "key") || !read_u32(r, &kind, "kind of a key")) return false;
    key->kind = key->item = (gguf_kind)kind;
    key->count = 1;
    if (kind == GGUF_ARRAY) {
        uint32_t item;
        if (!read_u32(r, &item, "array") || !read_u64(r, &key->count, "array")) return false;
        key->item = (gguf_kind)item;
        key->data = r->bytes + r->at;
        return skip_items(r, key);
    }
    key->data = r->bytes + r->at;
    gguf_text text;
    if (kind == GGUF_STRING) return read_text(r, &text, HEADER_MOST, "string");
    if (!kind_bytes(kind))
        return bp_fail(r->e, BP_ERR_FORMAT, r->at, "key '%.*s' has unknown kind %u", (int)key->name.size,
                       key->name.text, (unsigned)kind);
    if (!need(r, kind_bytes(kind), "value")) return false;
    r->at += kind_bytes(kind);
    return true;
}

/* bytes = product of dims in blocks of the type, every step checked */
static bool tensor_bytes(reader *r, gguf_tensor *t) {
    int n = (int)t->name.size;
    uint32_t elements, bytes;
    if (!quant_block(t->type, &elements, &bytes))
        return bp_fail(r->e, BP_ERR_UNSUPPORTED, r->at, "tensor '%.*s' has type %u, which this build does not read", n,
                       t->name.text, (unsigned)t->type);
    if (t->dims[0] % elements)
        return bp_fail(r->e, BP_ERR_FORMAT, r->at, "tensor '%.*s': row of %llu is not a multiple of the block of %s", n,
                       t->name.text, (unsigned long long)t->dims[0], quant_name(t->type));
    uint64_t total = t->dims[0] / elements * bytes;
    bool fits = t->dims[0] / elements <= (uint64_t)INT64_MAX / bytes;
    for (uint32_t i = 1; i < 4; i++) {
        if (t->dims[i] && total > (uint64_t)INT64_MAX / t->dims[i]) fits = false;
        total *= t->dims[i];
    }
    if (!fits || total == 0)
        return bp_fail(r->e, BP_ERR_FORMAT, r->at, "tensor '%.*s' has an impossible shape", n, t->name.text);
    t->bytes = total;
    return true;
}

static bool read_tensor(reader *r, gguf_tensor *t) {
    if (!read_text(r, &t->name, NAME_MOST, "tensor name") || !read_u32(r, &t->n_dims, "tensor")) return false;
    if (t->n_dims < 1 || t->n_dims > 4)
        return bp_fail(r->e, BP_ERR_FORMAT, r->at - 4, "tensor '%.*s' has %u dimensions", (int)t->name.size,
                       t->name.text, (unsigned)t->n_dims);
    for (uint32_t i = 0; i < 4; i++) {
        t->dims[i] = 1;
        if (i < t->n_dims && !read_u64(r, &t->dims[i], "tensor")) return false;
    }
    return read_u32(r, &t->type, "tensor") && read_u64(r, &t->offset, "tensor") && tensor_bytes(r, t);
}

/* What one pass over the header finds; keys and tensors are stored where arrays are given. */
typedef struct {
    uint64_t n_keys, n_tensors, alignment, data_offset, full_size;
} layout;

static bool read_start(reader *r, layout *l) {
    uint32_t version;
    if (!need(r, 4, "magic")) return false;
    if (memcmp(r->bytes, "GGUF", 4) != 0)
        return bp_fail(r->e, BP_ERR_FORMAT, 0, "not a GGUF file: it does not begin with 'GGUF'");
    r->at = 4;
    if (!read_u32(r, &version, "version")) return false;
    if (version != 3)
        return bp_fail(r->e, BP_ERR_UNSUPPORTED, 4, "GGUF version %u; this build reads version 3", (unsigned)version);
    if (!read_u64(r, &l->n_tensors, "counts") || !read_u64(r, &l->n_keys, "counts")) return false;
    if (l->n_keys > HEADER_MOST / KEY_LEAST || l->n_tensors > HEADER_MOST / TENSOR_LEAST)
        return bp_fail(r->e, BP_ERR_FORMAT, 8, "header claims %llu tensors and %llu keys",
                       (unsigned long long)l->n_tensors, (unsigned long long)l->n_keys);
    return true;
}

static bool read_keys(reader *r, layout *l, gguf_key *keys) {
    l->alignment = 32;
    for (uint64_t i = 0; i < l->n_keys; i++) {
        uint64_t start = r->at;
        gguf_key key;
        if (!read_key(r, &key)) return false;
        if (r->at > HEADER_MOST) return bp_fail(r->e, BP_ERR_FORMAT, start, "header above 256 MiB");
        if (gguf_text_is(key.name, "general.alignment")) {
            l->alignment = key.kind == GGUF_U32 ? get_u32(key.data) : 0;
            if (l->alignment < 8 || l->alignment > 65536 || (l->alignment & (l->alignment - 1)))
                return bp_fail(r->e, BP_ERR_FORMAT, start,
                               "general.alignment is not a power of two between 8 and 65536");
        }
        if (keys) keys[i] = key;
    }
    return true;
}

static bool read_tensors(reader *r, layout *l, gguf_tensor *tensors) {
    uint64_t end = 0;
    for (uint64_t i = 0; i < l->n_tensors; i++) {
        uint64_t start = r->at;
        gguf_tensor t;
        if (!read_tensor(r, &t)) return false;
        if (r->at > HEADER_MOST) return bp_fail(r->e, BP_ERR_FORMAT, start, "header above 256 MiB");
        uint64_t most = (uint64_t)INT64_MAX - 2 * (uint64_t)HEADER_MOST; /* offset + bytes + header cannot wrap */
        if (t.offset % l->alignment || t.bytes > most || t.offset > most - t.bytes)
            return bp_fail(r->e, BP_ERR_FORMAT, start, "tensor '%.*s' has a bad offset", (int)t.name.size, t.name.text);
        /* data that several tensors share would be widened once for each */
        if (t.offset < end)
            return bp_fail(r->e, BP_ERR_FORMAT, start, "tensor '%.*s' overlaps the one before it", (int)t.name.size,
                           t.name.text);
        end = t.offset + t.bytes;
        if (tensors) tensors[i] = t;
    }
    l->data_offset = (r->at + l->alignment - 1) / l->alignment * l->alignment;
    l->full_size = l->data_offset + end;
    return true;
}

static bool read_header(reader *r, layout *l, gguf_key *keys, gguf_tensor *tensors) {
    if (!read_start(r, l) || !read_keys(r, l, keys) || !read_tensors(r, l, tensors)) return false;
    for (uint64_t i = 0; tensors && i < l->n_tensors; i++) tensors[i].offset += l->data_offset;
    return true;
}

gguf_status gguf_probe(const void *bytes, uint64_t size, uint64_t *full_size, uint64_t *data_offset, bp_err *e) {
    reader r = {bytes, size, 0, false, e};
    layout l;
    if (!read_header(&r, &l, NULL, NULL)) {
        if (!r.more || size > HEADER_MOST) return GGUF_BAD;
        /* a wrong magic shows before four bytes are there */
        if (size && memcmp(bytes, "GGUF", size < 4 ? (size_t)size : 4) != 0) {
            bp_fail(e, BP_ERR_FORMAT, 0, "not a GGUF file: it does not begin with 'GGUF'");
            return GGUF_BAD;
        }
        return GGUF_MORE;
    }
    *full_size = l.full_size;
    *data_offset = l.data_offset;
    return GGUF_READY;
}

static bool texts_equal(gguf_text a, gguf_text b) { return a.size == b.size && memcmp(a.text, b.text, a.size) == 0; }

bool gguf_text_is(gguf_text t, const char *s) { return texts_equal(t, (gguf_text){s, strlen(s)}); }

bool gguf_text_begins(gguf_text t, const char *prefix) {
    return t.size >= strlen(prefix) && memcmp(t.text, prefix, strlen(prefix)) == 0;
}

/* Names of keys or tensors: name i is at first + i * stride. */
typedef struct {
    const void *first;
    size_t stride;
} names;

static gguf_text name_at(names n, uint32_t i) {
    const void *name = (const uint8_t *)n.first + i * n.stride;
    return *(const gguf_text *)name; /* NOLINT(clang-analyzer-core.NullDereference): the arena gave memory for i + 1 */
}

static names names_of_keys(const gguf *g) { return (names){&g->keys->name, sizeof *g->keys}; }

static names names_of_tensors(const gguf *g) { return (names){&g->tensors->name, sizeof *g->tensors}; }

/* Below, equal, above: shorter names come first. */
static int compare(gguf_text a, gguf_text b) {
    return a.size != b.size ? (a.size < b.size ? -1 : 1) : memcmp(a.text, b.text, a.size);
}

static void sift(names all, uint32_t *order, uint32_t root, uint32_t n) {
    uint32_t moved = order[root];
    for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && compare(name_at(all, order[child]), name_at(all, order[child + 1])) < 0) child++;
        if (compare(name_at(all, moved), name_at(all, order[child])) >= 0) break;
        order[root] = order[child];
    }
    order[root] = moved;
}

/* order [n] <- 0..n-1 in the order of names. Heapsort: no input is slow. */
static void sort_names(names all, uint32_t *order, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint32_t i = n / 2; i--;) sift(all, order, i, n);
    for (uint32_t end = n; end > 1;) {
        uint32_t last = order[0];
        order[0] = order[--end];
        order[end] = last;
        sift(all, order, 0, end);
    }
}

static bool index_names(names all, uint32_t *order, uint32_t n, const char *what, bp_err *e) {
    sort_names(all, order, n);
    for (uint32_t i = 1; i < n; i++) {
        gguf_text name = name_at(all, order[i]);
        if (texts_equal(name_at(all, order[i - 1]), name))
            return bp_fail(e, BP_ERR_FORMAT, 0, "two %s are named '%.*s'", what, (int)name.size, name.text);
    }
    return true;
}

/* Index of a name, n where there is none. */
static uint32_t find_name(names all, const uint32_t *order, uint32_t n, const char *name) {
    gguf_text wanted = {name, strlen(name)};
    uint32_t low = 0, high = n;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int side = compare(name_at(all, order[middle]), wanted);
        if (side == 0) return order[middle];
        if (side < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return n;
}

bool gguf_open(gguf *g, arena *a, const void *bytes, uint64_t size, bp_err *e) {
    reader r = {bytes, size, 0, false, e};
    layout l;
    /* Measuring needs the whole pass: only then are as many entries there as the counts say. */
    if (a->base ? !read_start(&r, &l) : !read_header(&r, &l, NULL, NULL)) return false;
    *g = (gguf){
        .bytes = bytes, .size = size, .room = size, .n_keys = (uint32_t)l.n_keys, .n_tensors = (uint32_t)l.n_tensors};
    g->keys = ARENA_NEW(a, gguf_key, g->n_keys);
    g->tensors = ARENA_NEW(a, gguf_tensor, g->n_tensors);
    g->key_order = ARENA_NEW(a, uint32_t, g->n_keys);
    g->tensor_order = ARENA_NEW(a, uint32_t, g->n_tensors);
    if (a->overflow) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tensor table");
    if (a->base) {
        r.at = 0;
        if (!read_header(&r, &l, g->keys, g->tensors)) return false;
    }
    g->full_size = l.full_size; /* NOLINT(clang-analyzer-core.uninitialized.Assign): every way here reads the header */
    g->data_offset = l.data_offset;
    g->alignment = l.alignment;
    return !a->base || (index_names(names_of_keys(g), g->key_order, g->n_keys, "keys", e) &&
                        index_names(names_of_tensors(g), g->tensor_order, g->n_tensors, "tensors", e));
}

const gguf_key *gguf_find(const gguf *g, const char *name) {
    uint32_t i = find_name(names_of_keys(g), g->key_order, g->n_keys, name);
    return i < g->n_keys ? &g->keys[i] : NULL;
}

const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name) {
    uint32_t i = find_name(names_of_tensors(g), g->tensor_order, g->n_tensors, name);
    return i < g->n_tensors ? &g->tensors[i] : NULL;
}

static const void *place_within(const gguf *g, const gguf_tensor *t, uint64_t size) {
    return t->offset <= size && t->bytes <= size - t->offset ? g->bytes + t->offset : NULL;
}

const void *gguf_data(const gguf *g, const gguf_tensor *t) { return place_within(g, t, g->size); }

const void *gguf_place(const gguf *g, const gguf_tensor *t) { return place_within(g, t, g->room); }

uint64_t gguf_item_u64(const gguf_key *key, uint64_t i) {
    uint64_t v = 0;
    size_t n = kind_bytes(key->item);
    memcpy(&v, key->data + i * n, n); /* little endian: narrow values fill the low bytes */
    switch (key->item) {
    case GGUF_I8:
        return (uint64_t)(int64_t)(int8_t)v;
    case GGUF_I16:
        return (uint64_t)(int64_t)(int16_t)v;
    case GGUF_I32:
        return (uint64_t)(int64_t)(int32_t)v;
    default:
        return v;
    }
}

double gguf_item_f64(const gguf_key *key, uint64_t i) {
    float single;
    double both;
    switch (key->item) {
    case GGUF_F32:
        memcpy(&single, key->data + 4 * i, 4);
        return (double)single;
    case GGUF_F64:
        memcpy(&both, key->data + 8 * i, 8);
        return both;
    case GGUF_U64:
        return (double)gguf_item_u64(key, i);
    default:
        return (double)(int64_t)gguf_item_u64(key, i);
    }
}

static bool is_integer(gguf_kind kind) { return kind <= GGUF_I32 || kind == GGUF_U64 || kind == GGUF_I64; }

static bool is_signed(gguf_kind kind) {
    return kind == GGUF_I8 || kind == GGUF_I16 || kind == GGUF_I32 || kind == GGUF_I64;
}

bool gguf_u64(const gguf *g, const char *name, uint64_t *out) {
    const gguf_key *key = gguf_find(g, name);
    if (!key || !(is_integer(key->kind) || key->kind == GGUF_BOOL)) return false;
    uint64_t v = gguf_item_u64(key, 0);
    if (is_signed(key->kind) && v >> 63) return false;
    *out = v;
    return true;
}

bool gguf_f64(const gguf *g, const char *name, double *out) {
    const gguf_key *key = gguf_find(g, name);
    if (!key || !(is_integer(key->kind) || key->kind == GGUF_F32 || key->kind == GGUF_F64)) return false;
    *out = gguf_item_f64(key, 0);
    return true;
}

bool gguf_bool(const gguf *g, const char *name, bool *out) {
    const gguf_key *key = gguf_find(g, name);
    if (!key || key->kind != GGUF_BOOL) return false;
    *out = *key->data != 0;
    return true;
}

gguf_text gguf_item_string(const uint8_t **cursor) {
    gguf_text t = {(const char *)*cursor + 8, (size_t)get_u64(*cursor)};
    *cursor += 8 + t.size;
    return t;
}

bool gguf_string(const gguf *g, const char *name, gguf_text *out) {
    const gguf_key *key = gguf_find(g, name);
    if (!key || key->kind != GGUF_STRING) return false;
    const uint8_t *cursor = key->data;
    *out = gguf_item_string(&cursor);
    return true;
}
