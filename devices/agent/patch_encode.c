/* The encoder, for the host: it runs the decoder with its arithmetic decoder replaced, so both have one model. */
#include "patch_host.h"
#include "patch_internal.h"

typedef struct {
    mf_patch_l state; /* first: the decoder's functions see only this */
    const mf_patch_op *op, *end;
    const uint8_t *target;
    uint8_t *out;
    size_t filled, capacity;
    uint64_t low;
    uint32_t *bits;
    int32_t value;
    int wanted, failed;
} encoder;

static encoder *of(mf_patch *p) { return (encoder *)(void *)p; }

static uint32_t odd_part(uint32_t value) {
    while (value != 0u && (value & 1u) == 0u) value >>= 1;
    return value >> 1;
}

static uint32_t shift_part(uint32_t value) {
    uint32_t shift = 0;
    if (value == 0u) return 24;
    while ((value & 1u) == 0u) {
        value >>= 1;
        shift++;
    }
    return shift;
}

static uint32_t number_of(const mf_patch_op *op, uint32_t field) {
    return field == MF_FIELD_COUNT ? op->count : field == MF_FIELD_WIDTH ? op->width : field == MF_FIELD_INNER ? op->inner : op->offset;
}

static uint32_t spent(const encoder *e) { return (uint32_t)(8u * e->filled) + 32u - mf_bit_length(e->state.core.range); }

void mf_encode_symbol(mf_patch *p) {
    encoder *e = of(p);
    const mf_patch_op *op = e->op - 1;
    uint32_t number, predicted, word;
    if (p->stage == MF_STAGE_REPEATED) {
        op = e->op;
        if (op == e->end) {
            e->failed = 1;
            op--;
        } else {
            e->op++;
            *e->bits++ = spent(e);
        }
    }
    number = number_of(op, p->field);
    predicted = p->stage >= MF_STAGE_SAME && p->stage < MF_STAGE_ELEMENT ? mf_predicted_number(p) : 0u;
    if (p->stage > MF_STAGE_SAME && p->field == MF_FIELD_OFFSET) number = number < predicted ? predicted - number : number - predicted;
    switch (p->stage) {
    case MF_STAGE_REPEATED: e->value = p->next_kind[p->last_kind] == op->kind; return;
    case MF_STAGE_KIND: e->value = (int32_t)op->kind; return;
    case MF_STAGE_SAME: e->value = number == predicted; return;
    case MF_STAGE_SIGN: e->value = op->offset < predicted; return;
    case MF_STAGE_SHIFT: e->value = (int32_t)shift_part(number); return;
    case MF_STAGE_ODD: e->value = (int32_t)odd_part(number); return;
    default: break;
    }
    if (p->kind == MF_OP_LITERAL) e->value = e->target[p->produced];
    else if (p->shape == MF_SIGNED && p->unary != 0u) e->value = (int8_t)(e->target[p->produced] - p->prediction);
    else {
        memcpy(&word, e->target + p->produced, 4);
        e->value = (int32_t)(word - (uint32_t)p->prediction);
    }
}

void mf_encode_choose(mf_patch *p) {
    encoder *e = of(p);
    uint32_t size = mf_magnitude(e->value);
    uint32_t rest = p->shape == MF_UNSIGNED ? size + 1u : p->unary != 0u ? size - p->unary : size;
    switch (p->phase) {
    case MF_PHASE_TREE: e->wanted = (int)((uint32_t)e->value >> (p->bits - 1u) & 1u); break;
    case MF_PHASE_ZERO: e->wanted = e->value != 0; break;
    case MF_PHASE_SIGN: e->wanted = e->value < 0; break;
    case MF_PHASE_UNARY: e->wanted = size - 1u > p->bits; break;
    case MF_PHASE_LENGTH: e->wanted = mf_bit_length(rest) > p->bits; break;
    default: e->wanted = (int)(rest >> (p->bits - 1u) & 1u);
    }
}

static void put(encoder *e) {
    size_t at = e->filled;
    if (e->low >> 32 != 0u) /* carry */
        while (at != 0u && ++e->out[--at] == 0u) {}
    if (e->filled == e->capacity) e->failed = 1;
    else e->out[e->filled++] = (uint8_t)(e->low >> 24);
    e->low = e->low << 8 & 0xFFFFFFFFu;
}

int mf_encode_bit(mf_patch *p, uint32_t bound) {
    encoder *e = of(p);
    if (e->wanted) p->range = bound;
    else {
        e->low += bound;
        p->range -= bound;
    }
    while (p->range >> 24 == 0u) {
        put(e);
        p->range <<= 8;
    }
    return e->wanted;
}

static size_t put_number(uint8_t *out, uint32_t number) {
    size_t at = 0;
    while (number >> 7 != 0u) {
        out[at++] = (uint8_t)(number | 128u);
        number >>= 7;
    }
    out[at++] = (uint8_t)number;
    return at;
}

typedef struct { const uint8_t *base, *written; } images;

static int read_base(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    memcpy(out, ((const images *)context)->base + offset, count);
    return 0;
}

static int read_written(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    memcpy(out, ((const images *)context)->written + offset, count);
    return 0;
}

size_t mf_patch_encode(int profile, const uint8_t prefixes[6], const uint8_t *base, uint32_t base_size, const uint8_t *target,
                       uint32_t target_size, const mf_patch_op *ops, size_t op_count, uint8_t *out, size_t capacity, uint32_t *bits) {
    static const uint8_t NOTHING = 0;
    images both = {base, target};
    mf_patch_base from = {&both, read_base, read_written, base_size};
    const uint8_t *input = &NOTHING;
    uint32_t grown = target_size - base_size, i;
    size_t none = 0;
    encoder e;
    mf_patch *p = &e.state.core;
    mf_patch_status status;
    if (capacity < 32u || op_count == 0u || target_size == 0u) return 0;
    memset(&e, 0, sizeof e);
    e.op = ops;
    e.end = ops + op_count;
    e.target = target;
    e.bits = bits;
    out[0] = (uint8_t)(1u << 1 | (unsigned)profile);
    memcpy(out + 1, prefixes, 6);
    e.out = out + 7 + put_number(out + 7, base_size);
    e.out += put_number(e.out, grown << 1 ^ (0u - (grown >> 31)));
    e.capacity = capacity - (size_t)(e.out - out);
    p->encoding = p->header_done = 1;
    p->profile = (uint8_t)profile;
    p->profiles = 3;
    p->base_size = base_size;
    p->target_size = target_size;
    p->range = 0xFFFFFFFFu;
    mf_model_begin(p);
    do status = mf_patch_run(p, &from, &input, &none, 1);
    while (status == MF_PATCH_OUTPUT && !e.failed);
    if (status != MF_PATCH_DONE || e.failed || e.op != e.end) return 0;
    for (i = 0; i < op_count; i++) bits[i] = (i + 1u < op_count ? bits[i + 1u] : spent(&e)) - bits[i];
    /* The value in the last range with the most zeros at its end: the decoder supplies zeros. */
    e.low = (e.low + 0xFFFFFFu) & ~(uint64_t)0xFFFFFFu;
    put(&e);
    if (e.failed) return 0;
    while (e.filled != 0u && e.out[e.filled - 1u] == 0u) e.filled--;
    return (size_t)(e.out - out) + e.filled;
}

size_t mf_host_state_bytes(int profile) { return profile == MF_PATCH_PROFILE_S ? sizeof(mf_patch_s) : sizeof(mf_patch_l); }

void mf_host_begin(void *state, unsigned profiles) { mf_patch_begin((mf_patch *)state, profiles); }

int mf_host_run(void *state, const uint8_t *base, uint32_t base_size, const uint8_t *written, const uint8_t *input, size_t count,
                int last, size_t *used, uint8_t *out, uint32_t *ready) {
    images both = {base, written};
    mf_patch_base from = {&both, read_base, read_written, base_size};
    mf_patch *p = (mf_patch *)state;
    size_t left = count;
    mf_patch_status status = mf_patch_run(p, &from, &input, &left, last);
    *used = count - left;
    *ready = status == MF_PATCH_OUTPUT || status == MF_PATCH_DONE ? p->out_ready : 0u;
    memcpy(out, p->out, *ready);
    return (int)status;
}

int64_t mf_host_decode(void *state, unsigned profiles, const uint8_t *base, uint32_t base_size, const uint8_t *patch, size_t count,
                       uint8_t *target, uint32_t limit, mf_patch_part *parts, size_t part_limit, size_t *part_count) {
    mf_patch *p = (mf_patch *)state;
    uint32_t at = 0, ready, bits, before = 0;
    size_t used, size = count, seen = 0;
    uint8_t out[MF_PATCH_OUT];
    int status;
    mf_host_begin(state, profiles);
    p->tracing = parts != NULL;
    do {
        status = mf_host_run(state, base, base_size, target, patch, count, 1, &used, out, &ready);
        if ((status != MF_PATCH_OUTPUT && status != MF_PATCH_DONE && status != MF_PATCH_OP_ENDED) || ready > limit - at) return -1;
        memcpy(target + at, out, ready);
        at += ready;
        patch += used;
        count -= used;
        if (parts == NULL || status == MF_PATCH_OUTPUT) continue;
        bits = (uint32_t)(8u * (size - count)) - mf_bit_length(p->range);
        if (seen < part_limit) {
            mf_patch_part part = {{p->kind, p->number[0], p->number[1], p->number[2], p->number[3]}, bits - before, p->produced};
            parts[seen] = part;
        }
        seen++;
        before = bits;
    } while (status != MF_PATCH_DONE);
    if (part_count != NULL) *part_count = seen;
    return at;
}

int mf_host_header(const void *state, uint32_t fields[3], uint8_t prefixes[6]) {
    const mf_patch *p = (const mf_patch *)state;
    fields[0] = p->profile;
    fields[1] = p->base_size;
    fields[2] = p->target_size;
    memcpy(prefixes, p->base_prefix, 2);
    memcpy(prefixes + 2, p->target_prefix, 4);
    return p->header_done ? 0 : -1;
}

void mf_host_seal(void *state) { mf_patch_seal((mf_patch *)state); }

int mf_host_restored(void *state) { return mf_patch_restored((mf_patch *)state); }
