#include "io/spm.h"

/* Protobuf wire types */
enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

/* A message: bytes [at, end) of the file */
typedef struct {
    const uint8_t *bytes;
    size_t at, end;
    const char *name;
    bp_err *e;
} message;

typedef struct {
    uint32_t number, wire;
    uint64_t value; /* varint, or the bits of a fixed one */
    message part;   /* WIRE_BYTES */
} field;

static bool broken(const message *m) {
    return bp_fail(m->e, BP_ERR_FORMAT, m->at, "%s: not a SentencePiece model", m->name);
}

static bool read_varint(message *m, uint64_t *value) {
    *value = 0;
    for (unsigned shift = 0; shift < 64 && m->at < m->end; shift += 7) {
        uint8_t byte = m->bytes[m->at++];
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return true;
    }
    return broken(m);
}

static bool read_fixed(message *m, size_t n, uint64_t *value) {
    *value = 0;
    if (n > m->end - m->at) return broken(m);
    for (size_t i = 0; i < n; i++) *value |= (uint64_t)m->bytes[m->at++] << 8 * i;
    return true;
}

/* The next field of m (m->at < m->end) */
static bool read_field(message *m, field *f) {
    uint64_t tag;
    if (!read_varint(m, &tag)) return false;
    f->number = (uint32_t)bp_min((size_t)(tag >> 3), UINT32_MAX);
    f->wire = tag & 7;
    if (f->wire == WIRE_VARINT) return read_varint(m, &f->value);
    if (f->wire == WIRE_64 || f->wire == WIRE_32) return read_fixed(m, f->wire == WIRE_64 ? 8 : 4, &f->value);
    if (f->wire != WIRE_BYTES || !read_varint(m, &f->value)) return broken(m);
    if (f->value > m->end - m->at) return broken(m);
    f->part = (message){m->bytes, m->at, m->at + (size_t)f->value, m->name, m->e};
    m->at = f->part.end;
    return true;
}

/* message SentencePiece { string piece = 1; float score = 2; Type type = 3; } whose types are those of GGUF */
static bool read_piece(vocab *v, message m) {
    gguf_text text = {"", 0};
    float score = 0;
    uint64_t type = VOCAB_NORMAL;
    for (field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.number == 1 && f.wire == WIRE_BYTES)
            text = (gguf_text){(const char *)f.part.bytes + f.part.at, f.part.end - f.part.at};
        if (f.number == 2 && f.wire == WIRE_32) {
            uint32_t bits = (uint32_t)f.value;
            memcpy(&score, &bits, sizeof score);
        }
        if (f.number == 3 && f.wire == WIRE_VARINT) type = f.value;
    }
    if (type < VOCAB_NORMAL || type > VOCAB_BYTE || v->n == VOCAB_MOST) return broken(&m);
    vocab_set(v, v->n, text, (int32_t)type, score);
    return true;
}

/* message TrainerSpec: what matters is the kind of model and the ids */
static bool read_trainer(vocab *v, message m, bool *bpe) {
    for (field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.wire != WIRE_VARINT) continue;
        int64_t id = f.value <= INT32_MAX ? (int64_t)f.value : -1;
        if (f.number == 3) *bpe = f.value == 2;
        if (f.number == 40) v->unknown = id;
        if (f.number == 41) v->bos = id;
        if (f.number == 42) v->eos = id;
        if (f.number == 43) v->padding = id;
        if (f.number == 24 && f.value)
            return bp_fail(m.e, BP_ERR_UNSUPPORTED, m.at, "%s: spaces as suffixes (treat_whitespace_as_suffix)",
                           m.name);
    }
    return true;
}

/* message NormalizerSpec: only the identity with an optional space in front is supported */
static bool read_normalizer(vocab *v, message m, bool *squeezes) {
    for (field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.number == 2 && f.wire == WIRE_BYTES && f.part.at < f.part.end)
            return bp_fail(m.e, BP_ERR_UNSUPPORTED, f.part.at, "%s: text normalization (precompiled_charsmap)", m.name);
        if (f.wire != WIRE_VARINT) continue;
        if (f.number == 3) v->prefix = f.value ? "each" : NULL;
        if (f.number == 4) *squeezes = f.value != 0;
        if (f.number == 5 && !f.value)
            return bp_fail(m.e, BP_ERR_UNSUPPORTED, m.at, "%s: escape_whitespaces is off", m.name);
    }
    return true;
}

static bool check_ids(const vocab *v, const message *m) {
    const int64_t ids[] = {v->unknown, v->bos, v->eos, v->padding};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] >= (int64_t)v->n)
            return bp_fail(m->e, BP_ERR_FORMAT, 0, "%s: a special id is %d of %zu pieces", m->name, (int)ids[i], v->n);
    return true;
}

bool spm_read(vocab *v, const uint8_t *bytes, size_t size, const char *name, bp_err *e) {
    message m = {bytes, 0, size, name, e};
    bool bpe = false, squeezes = true;
    v->spm = true;
    v->prefix = "each";
    v->unknown = 0;
    v->bos = 1;
    v->eos = 2;
    for (field f; m.at < m.end;) {
        if (!read_field(&m, &f)) return false;
        if (f.wire != WIRE_BYTES) continue;
        if (f.number == 1 && !read_piece(v, f.part)) return false;
        if (f.number == 2 && !read_trainer(v, f.part, &bpe)) return false;
        if (f.number == 3 && !read_normalizer(v, f.part, &squeezes)) return false;
    }
    if (v->n == 0) return broken(&m);
    if (!bpe) return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "%s: the SentencePiece model is not of type BPE", name);
    if (squeezes)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "%s: runs of spaces are squeezed (remove_extra_whitespaces)", name);
    v->add_bos = v->bos >= 0;
    return check_ids(v, &m);
}
