/* The patch as a sequence of ops, each a sequence of symbols, each a sequence of binary decisions. Every decision leaves
 * the whole state in memory, so decoding can stop before any of them for want of input. */
#include "patch_internal.h"

enum { RANGE_MIN = 1 << 24, COUNT_MAX = 1 << 24, VERSION = 1, SHIFT_OF_ZERO = 24, HAS_COUNT = 1, HAS_WIDTH = 2, HAS_INNER = 4, HAS_OFFSET = 8,
       IS_WORDS = 16, IS_COPY = 32, BY_COLUMNS = 64, IS_BYTES = 128 };

/* Which numbers each kind of op has, and what its elements are. */
static const uint8_t TRAITS[MF_OPS] = {
    HAS_COUNT | HAS_OFFSET | IS_COPY | IS_BYTES, HAS_COUNT | HAS_OFFSET | IS_BYTES, HAS_COUNT | IS_BYTES,
    HAS_COUNT | HAS_OFFSET | IS_WORDS,
    HAS_COUNT | HAS_OFFSET | IS_WORDS, HAS_COUNT | HAS_WIDTH | HAS_INNER | HAS_OFFSET,
    HAS_COUNT | HAS_WIDTH | HAS_INNER | HAS_OFFSET, HAS_COUNT | HAS_WIDTH | HAS_OFFSET | BY_COLUMNS, HAS_COUNT | HAS_WIDTH,
    HAS_COUNT | HAS_OFFSET | IS_WORDS, HAS_COUNT | HAS_OFFSET | IS_WORDS, HAS_COUNT | HAS_OFFSET | IS_WORDS | IS_COPY,
    HAS_COUNT | HAS_WIDTH | HAS_OFFSET | IS_COPY, HAS_COUNT | HAS_WIDTH | HAS_OFFSET | IS_COPY | BY_COLUMNS, HAS_COUNT | HAS_OFFSET | IS_COPY | IS_BYTES};

static uint32_t has(const mf_patch *p, uint32_t trait) { return TRAITS[p->kind] & trait; }

size_t mf_patch_state_bytes(const mf_patch *p) {
#ifndef MF_PATCH_ONLY_S
    if (p->profiles & 2u) return sizeof(mf_patch_l);
#endif
    (void)p;
    return sizeof(mf_patch_s);
}

void mf_patch_begin(mf_patch *p, unsigned profiles) {
    memset(p, 0, sizeof *p);
    p->profiles = (uint8_t)profiles;
}

static uint32_t checksum(mf_patch *p) { /* CRC-32 of the state with the checksum at 0 */
    const uint8_t *bytes = (const uint8_t *)(const void *)p;
    size_t i, count = mf_patch_state_bytes(p);
    uint32_t crc = 0xFFFFFFFFu, bit;
    p->check = 0;
    for (i = 0; i < count; i++) {
        crc ^= bytes[i];
        for (bit = 0; bit < 8u; bit++) crc = crc >> 1 ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return crc;
}

void mf_patch_seal(mf_patch *p) { p->check = checksum(p); }

int mf_patch_restored(mf_patch *p) {
    uint32_t check = p->check;
    mf_patch_seal(p);
    return p->check == check ? 0 : -1;
}

/* Header: version and profile; 2 bytes of the base's digest; 4 of the target's; base size; target size - base size, zigzag;
 * both in groups of 7 bits, lowest first. Then 4 bytes that fill the arithmetic decoder. */
static int header_byte(mf_patch *p, uint8_t byte) {
    uint32_t at = p->header_at++;
    if (at == 0u) {
        p->profile = byte & 1u;
        if (byte >> 1 != VERSION || (p->profiles >> p->profile & 1u) == 0u) return -1;
    } else if (at < 3u) p->base_prefix[at - 1u] = byte;
    else if (at < 7u) p->target_prefix[at - 3u] = byte;
    else { /* bits and phase are free until the first symbol */
        if (p->bits > 28u) return -1;
        p->gathered |= (uint32_t)(byte & 127u) << p->bits;
        p->bits = (uint8_t)(p->bits + 7u);
        if (byte >> 7 != 0u) return 0;
        if (p->phase == 0u) p->base_size = p->gathered;
        else {
            p->target_size = p->base_size + (p->gathered >> 1 ^ (0u - (p->gathered & 1u)));
            p->header_done = 1;
            p->range = 0xFFFFFFFFu;
        }
        p->gathered = p->bits = 0;
        p->phase++;
    }
    return 0;
}

static void emit(mf_patch *p, uint32_t byte) {
    p->out[p->out_count++] = (uint8_t)byte;
    p->recent = p->recent << 8 | (byte & 255u);
    p->produced++;
}

static uint32_t op_slots(const mf_patch *p) { return mf_is_large(p) ? MF_L_OPS : MF_S_OPS; }

static void begin_symbol(mf_patch *p, uint32_t shape, uint32_t bits) {
    p->shape = (uint8_t)shape;
    p->bits = (uint8_t)bits;
    p->negative = 0;
    p->gathered = shape == MF_TREE;
    p->phase = shape == MF_TREE ? MF_PHASE_TREE : shape == MF_SIGNED ? MF_PHASE_ZERO : MF_PHASE_LENGTH;
}

static void begin_op_symbol(mf_patch *p) {
    uint32_t slots = op_slots(p);
    mf_set_contexts(p, 1);
    p->unary = 0;
    switch (p->stage) {
    case MF_STAGE_REPEATED: slots += MF_OPS_REPEATED - 1u; break; /* a tree's first node is 1 */
    case MF_STAGE_KIND: break;
    case MF_STAGE_SAME: slots += MF_OPS_SAME - 1u + (has(p, IS_BYTES) && p->field == MF_FIELD_COUNT ? MF_FIELDS : p->field); break;
    case MF_STAGE_SIGN: slots = MF_NO_CONTEXT; break;
    case MF_STAGE_SHIFT: slots += MF_OPS_SHIFT; break;
    default: slots += MF_OPS_ODD + (p->field == MF_FIELD_OFFSET ? 16u : 0u);
    }
    p->context[0] = (uint16_t)slots;
    if (p->stage >= MF_STAGE_SHIFT) begin_symbol(p, MF_UNSIGNED, 0);
    else begin_symbol(p, MF_TREE, p->stage == MF_STAGE_KIND ? 4u : 1u);
}

uint32_t mf_predicted_number(const mf_patch *p) {
    uint32_t width = p->number[MF_FIELD_WIDTH];
    switch (p->field) {
    case MF_FIELD_COUNT: return has(p, IS_BYTES) ? p->target_size - p->produced : p->last_rows;
    case MF_FIELD_WIDTH: return p->last_columns[has(p, BY_COLUMNS) != 0u];
    case MF_FIELD_INNER: return mf_is_large(p) && width >= 27u && width % 9u == 0u ? width / 9u : 0u;
    default: return p->kind == MF_OP_EARLIER ? p->produced - p->distance : p->expected;
    }
}

/* The numbers are known: hold them to the images. */
static int begin_op(mf_patch *p) {
    uint32_t count = p->number[MF_FIELD_COUNT], width = has(p, HAS_WIDTH) ? p->number[MF_FIELD_WIDTH] : 1u;
    uint32_t offset = p->number[MF_FIELD_OFFSET], size = has(p, IS_WORDS) ? 4u : 1u;
    uint64_t bytes = (uint64_t)count * width * size;
    if (count == 0u || width == 0u || count > COUNT_MAX || width > COUNT_MAX || bytes > p->target_size - p->produced) return -1;
    if (has(p, HAS_OFFSET)) {
        uint32_t readable = p->base_size;
        if (p->kind == MF_OP_EARLIER) { /* no byte that may not be in flash yet */
            readable = p->produced - p->out_count;
            p->distance = p->produced - offset;
        } else p->expected = offset + (uint32_t)bytes;
        if (offset > readable || bytes > readable - offset) return -1;
        p->at = offset;
    }
    if (!has(p, IS_BYTES)) p->last_rows = count;
    if (has(p, HAS_WIDTH)) p->last_columns[has(p, BY_COLUMNS) != 0u] = width;
    if (has(p, BY_COLUMNS)) p->number[MF_FIELD_WIDTH] = count;
    if (!has(p, HAS_WIDTH)) p->number[MF_FIELD_WIDTH] = 0;
#ifndef MF_PATCH_ONLY_S
    if (!has(p, HAS_INNER)) p->number[MF_FIELD_INNER] = 0;
#endif
    p->left = has(p, IS_COPY) ? (uint32_t)bytes : count * width;
    p->stage = MF_STAGE_ELEMENT;
#ifndef MF_PATCH_ONLY_S
    mf_model_op(p, has(p, IS_COPY) || p->kind == MF_OP_BYTES || p->kind == MF_OP_INTEGERS || p->kind >= MF_OP_INTEGERS_RATIO ? MF_WORK_NONE
                   : p->kind == MF_OP_LITERAL ? MF_WORK_LITERAL : p->kind == MF_OP_FLOATS ? MF_WORK_RATIO : MF_WORK_RING);
#endif
    mf_weights_begin(p);
    return 0;
}

static int next_field(mf_patch *p) {
    while (p->field < MF_FIELDS && !has(p, 1u << p->field)) p->field++;
    if (p->field == MF_FIELDS) return begin_op(p);
    p->stage = MF_STAGE_SAME;
    return 0;
}

static int op_symbol(mf_patch *p, uint32_t value) {
    switch (p->stage) {
    case MF_STAGE_REPEATED:
        p->kind = p->next_kind[p->last_kind];
        if (value == 0u) {
            p->stage = MF_STAGE_KIND;
            return 0;
        }
        break;
    case MF_STAGE_KIND:
        p->kind = (uint8_t)value;
        if (value >= MF_OPS) return -1;
        break;
    case MF_STAGE_SAME:
        p->number[p->field] = mf_predicted_number(p);
        p->negative_offset = 0;
        if (value != 0u) {
            p->field++;
            return next_field(p);
        }
        p->stage = p->field == MF_FIELD_OFFSET ? MF_STAGE_SIGN : MF_STAGE_SHIFT;
        return 0;
    case MF_STAGE_SIGN:
        p->negative_offset = (uint8_t)value;
        p->stage = MF_STAGE_SHIFT;
        return 0;
    case MF_STAGE_SHIFT:
        if (value > SHIFT_OF_ZERO) return -1;
        p->shift = (uint8_t)value;
        p->stage = MF_STAGE_ODD;
        return 0;
    default:
        if (value >> 24 != 0u) return -1;
        value = p->shift == SHIFT_OF_ZERO ? 0u : (2u * value + 1u) << p->shift;
        if (p->field != MF_FIELD_OFFSET) p->number[p->field] = value;
        else p->number[p->field] += p->negative_offset ? 0u - value : value;
        p->field++;
        return next_field(p);
    }
    /* the kind is known */
    if (!mf_is_large(p) && (p->kind == MF_OP_LINEAR || p->kind == MF_OP_INTEGERS_SCALED)) return -1;
    p->next_kind[p->last_kind] = p->kind;
    p->last_kind = p->kind;
    p->field = 0;
    return next_field(p);
}

static int read_old(mf_patch *p, const mf_patch_base *base, uint8_t *out, uint32_t count) {
    uint32_t at = p->at;
    p->at += count;
    return (p->kind == MF_OP_EARLIER ? base->read_back : base->read)(base->context, at, out, count);
}

static int begin_element(mf_patch *p, const mf_patch_base *base) {
    uint8_t old[4] = {0, 0, 0, 0};
    if (p->kind == MF_OP_LITERAL) {
        mf_set_contexts(p, 1);
        p->context[0] = 0;
#ifndef MF_PATCH_ONLY_S
        if (mf_is_large(p)) {
            mf_set_contexts(p, 4);
            p->context[1] = (uint16_t)(p->recent & 255u);
            p->context[2] = (uint16_t)(p->recent >> 24 | (p->produced & 3u) << 8); /* the same place in the last word */
            p->context[3] = (uint16_t)((p->produced & 3u) == 3u ? 1024u + (p->recent >> 24) : p->produced & 3u); /* exponents */
            p->unary = 0;
        }
#endif
        begin_symbol(p, MF_TREE, 8);
        return 0;
    }
    if (p->kind != MF_OP_FRESH && read_old(p, base, old, has(p, IS_WORDS) ? 4u : 1u) != 0) return -1;
    if (has(p, IS_WORDS)) {
        p->old_value = (int32_t)((uint32_t)old[0] | (uint32_t)old[1] << 8 | (uint32_t)old[2] << 16 | (uint32_t)old[3] << 24);
        mf_word_expect(p);
    } else {
        p->old_value = (int8_t)old[0];
        mf_weight_expect(p);
    }
    begin_symbol(p, MF_SIGNED, 0);
    return 0;
}

static void element(mf_patch *p, int32_t value) {
    uint32_t word, i;
    int32_t weight;
    if (p->kind == MF_OP_LITERAL) emit(p, (uint32_t)value);
    else if (has(p, IS_WORDS)) {
        word = (uint32_t)p->prediction + (uint32_t)value;
        for (i = 0; i < 4u; i++) emit(p, word >> (8u * i));
        mf_word_learn(p, value, (int32_t)word);
    } else {
        weight = (int8_t)(p->prediction + value);
        emit(p, (uint32_t)weight);
        mf_weight_learn(p, value, (int8_t)(weight - p->old_value));
    }
    p->left--;
}

/* One binary decision; 1 where it ends the symbol. */
static int decide(mf_patch *p, int32_t *value) {
    int bit;
    uint32_t node;
#ifdef MF_PATCH_ENCODER
    if (p->encoding) mf_encode_choose(p);
#endif
    switch (p->phase) {
    case MF_PHASE_TREE:
        bit = p->context[0] == MF_NO_CONTEXT ? mf_model_even_bit(p) : mf_model_bit(p, p->gathered);
        p->gathered = p->gathered << 1 | (uint32_t)bit;
        if (--p->bits != 0u) return 0;
        *value = (int32_t)(p->gathered & (p->stage == MF_STAGE_KIND ? 15u : p->stage == MF_STAGE_ELEMENT ? 255u : 1u));
        return 1;
    case MF_PHASE_ZERO:
        *value = 0;
        if (!mf_model_bit(p, 0)) return 1;
        p->phase = MF_PHASE_SIGN;
        return 0;
    case MF_PHASE_SIGN:
        p->negative = (uint8_t)mf_model_bit(p, 1);
        p->phase = p->unary != 0u ? MF_PHASE_UNARY : MF_PHASE_LENGTH;
        return 0;
    case MF_PHASE_UNARY: /* bits counts how far */
        bit = mf_model_bit(p, 2u + p->bits);
        if (bit) {
            if (++p->bits < p->unary) return 0;
            p->bits = 0;
            p->phase = MF_PHASE_LENGTH;
            p->context[0] = p->tail_slots;
            mf_set_contexts(p, 1);
            return 0;
        }
        p->gathered = p->bits + 1u;
        break;
    case MF_PHASE_LENGTH: /* bits counts the bits under the leading one */
        node = p->stage == MF_STAGE_SHIFT ? 7u : 15u;
        if (p->shape != MF_UNSIGNED) node = p->unary == 0u ? p->bits + 2u : p->bits;
        else if (node > p->bits) node = p->bits;
        bit = p->bits < (p->unary != 0u ? 7u : 31u) && mf_model_bit(p, node);
        if (bit) {
            p->bits++;
            return 0;
        }
        p->gathered = 1;
        p->top = p->bits;
        p->phase = MF_PHASE_BITS;
        if (p->bits != 0u) return 0;
        break;
    default:
        mf_set_contexts(p, 1);
        if (p->bits != p->top || p->shape == MF_UNSIGNED) bit = mf_model_even_bit(p);
        else bit = mf_model_bit(p, p->unary != 0u ? 8u + p->top : 34u + p->top % 14u);
        p->gathered = p->gathered << 1 | (uint32_t)bit;
        if (--p->bits != 0u) return 0;
    }
    if (p->shape == MF_UNSIGNED) p->gathered--;
    else if (p->phase == MF_PHASE_BITS) p->gathered += p->unary;
    *value = (int32_t)(p->negative ? 0u - p->gathered : p->gathered);
    return 1;
}

/* Bytes of the base as they are, up to a unit of output. */
static int copy(mf_patch *p, const mf_patch_base *base) {
    uint32_t count = MF_PATCH_OUT - p->out_count;
    if (count > p->left) count = p->left;
    if (read_old(p, base, p->out + p->out_count, count) != 0) return -1;
    p->out_count = (uint8_t)(p->out_count + count);
    p->produced += count;
    p->left -= count;
    return 0;
}

mf_patch_status mf_patch_run(mf_patch *p, const mf_patch_base *base, const uint8_t **input, size_t *count, int last) {
    int32_t value;
    if (p->out_ready != 0u) {
        p->out_count = (uint8_t)(p->out_count - p->out_ready);
        memmove(p->out, p->out + p->out_ready, p->out_count);
        p->out_ready = 0;
    }
    while (!p->header_done) {
        if (*count == 0u) return last ? MF_PATCH_BAD : MF_PATCH_MORE;
        if (header_byte(p, *(*input)++) != 0) return MF_PATCH_BAD;
        (*count)--;
        if (!p->header_done) continue;
        if (p->base_size != base->size || p->target_size == 0u) return MF_PATCH_BAD;
        p->phase = MF_PHASE_NONE;
        p->stage = MF_STAGE_REPEATED;
        mf_model_begin(p);
    }
    for (;;) {
        if (p->out_count >= MF_PATCH_OUT) {
            p->out_ready = MF_PATCH_OUT;
            return MF_PATCH_OUTPUT;
        }
        /* Before every decision, so that want of input leaves nothing half done. Past the end there are zeros. */
        while (!p->encoding && (p->range < RANGE_MIN || p->filled < 4u)) {
            if (*count == 0u && !last) return MF_PATCH_MORE;
            p->code = p->code << 8 | (*count != 0u ? *(*input)++ : 0u);
            if (*count != 0u) (*count)--;
            if (p->filled < 4u) p->filled++;
            else p->range <<= 8;
        }
        if (p->phase == MF_PHASE_NONE) {
            if (p->stage == MF_STAGE_ELEMENT) {
                if (p->left == 0u) {
                    if (p->produced == p->target_size) break;
                    p->stage = MF_STAGE_REPEATED;
#ifdef MF_PATCH_ENCODER
                    if (p->tracing) return MF_PATCH_OP_ENDED;
#endif
                } else if (has(p, IS_COPY)) {
                    if (copy(p, base) != 0) return MF_PATCH_READ_FAILED;
                    continue;
                } else if (begin_element(p, base) != 0) return MF_PATCH_READ_FAILED;
            }
            if (p->stage != MF_STAGE_ELEMENT) begin_op_symbol(p);
#ifdef MF_PATCH_ENCODER
            if (p->encoding) mf_encode_symbol(p);
#endif
        }
        if (!decide(p, &value)) continue;
        p->phase = MF_PHASE_NONE;
        if (p->stage == MF_STAGE_ELEMENT) element(p, value);
        else if (op_symbol(p, (uint32_t)value) != 0) return MF_PATCH_BAD;
    }
    if (*count != 0u) return MF_PATCH_BAD; /* something follows */
    p->out_ready = p->out_count;
    return MF_PATCH_DONE;
}
