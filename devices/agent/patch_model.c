/* Probabilities of the binary decisions. Profile S looks at one adaptive slot; profile L mixes up to six of them in the
 * logistic domain (as in the PAQ family: M. Mahoney, "Adaptive weighing of context models", 2005). All in integers. */
#include "patch_internal.h"

enum { P_HALF = 1 << 15, P_MIN = 4, SLOT_MIN = 16, MET_MAX = 15, MET_AT_NEW_OP = 6 };

/* Of profile S: 32768 / (n + 1.5) for about n meetings; and how rarely a slot goes on to the next: one time in mask + 1. */
static const uint16_t RATE_S[8] = {21845, 13107, 8192, 4681, 2731, 1638, 964, 585};
static const uint8_t MASK_S[8] = {0, 0, 1, 3, 3, 7, 15, 255};

static uint32_t draw(mf_patch *p) {
    p->random = p->random * 1664525u + 1013904223u;
    return p->random >> 24;
}

static void small_learn(mf_patch *p, uint16_t *slot, int bit) {
    uint32_t met = *slot & 7u;
    int32_t chance = *slot >> 3;
    chance += (((bit ? 8191 : 0) - chance) * RATE_S[met]) / 32768;
    if (met < 7u && (draw(p) & MASK_S[met]) == 0u) met++;
    *slot = (uint16_t)((uint32_t)chance << 3 | met);
}

/* One decision with the chance `p1` of a 1, in 65536. */
static int arithmetic(mf_patch *p, uint32_t p1) {
    uint32_t bound = (uint32_t)(((uint64_t)p->range * p1) >> 16);
#ifdef MF_PATCH_ENCODER
    if (p->encoding) return mf_encode_bit(p, bound);
#endif
    if (p->code < bound) {
        p->range = bound;
        return 1;
    }
    p->code -= bound;
    p->range -= bound;
    return 0;
}

int mf_model_even_bit(mf_patch *p) { return arithmetic(p, P_HALF); }

#ifdef MF_PATCH_ONLY_S
void mf_model_begin(mf_patch *p) {
    mf_patch_s *small = (mf_patch_s *)(void *)p;
    uint32_t i;
    p->random = 1;
    for (i = 0; i < MF_PATCH_SLOTS_S; i++) small->slot[i] = P_HALF;
}
#else
/* 256 * log2(1 + i / 32) */
static const uint16_t LOG[33] = {0,   11,  22,  33,  44,  54,  63,  73,  82,  92,  100, 109, 118, 126, 134, 142, 150,
                                 157, 165, 172, 179, 186, 193, 200, 207, 213, 220, 226, 232, 238, 244, 250, 256};
/* 65536 / (1 + 2^(-i / 4)), at most 65532 */
static const uint16_t SQUASH[57] = {32768, 35600, 38390, 41099, 43691, 46138, 48418, 50517, 52429, 54152, 55691, 57055,
                                    58254, 59303, 60214, 61002, 61681, 62264, 62762, 63188, 63550, 63858, 64119, 64340,
                                    64528, 64686, 64820, 64933, 65028, 65108, 65176, 65233, 65281, 65321, 65355, 65384,
                                    65408, 65429, 65446, 65460, 65472, 65482, 65491, 65498, 65504, 65509, 65513, 65517,
                                    65520, 65523, 65525, 65527, 65528, 65529, 65530, 65531, 65532};
static const uint16_t RATE_L[16] = {21845, 13107, 9362, 7123, 5851, 4311, 3413, 2409, 1861, 1280, 975, 660, 499, 335, 252, 72};
static const uint8_t MASK_L[16] = {0, 0, 0, 0, 1, 1, 3, 3, 7, 7, 15, 15, 31, 31, 63, 255};

static int32_t log2_256(uint32_t value) { /* of 1..65535 */
    uint32_t whole = mf_bit_length(value), part = (whole >= 9u ? value >> (whole - 9u) : value << (9u - whole)) - 512u;
    uint32_t i = part >> 4;
    return (int32_t)(whole * 256u + LOG[i] + (((LOG[i + 1u] - LOG[i]) * (part & 15u)) >> 4));
}

static int32_t stretch(uint32_t p1) { return log2_256(p1) - log2_256(65536u - p1); }

static uint32_t squash(int32_t x) {
    uint32_t distance = mf_magnitude(x), i, p1;
    if (distance > 3583u) distance = 3583u;
    i = distance >> 6;
    p1 = SQUASH[i] + (((uint32_t)(SQUASH[i + 1u] - SQUASH[i]) * (distance & 63u)) >> 6);
    return x < 0 ? 65536u - p1 : p1;
}

static void large_learn(mf_patch *p, uint16_t *slots, uint8_t *mets, uint32_t i, int bit) {
    uint32_t shift = (i & 1u) * 4u, met = mets[i >> 1] >> shift & 15u;
    int32_t chance = slots[i];
    chance += (((bit ? 65535 : 0) - chance) * RATE_L[met]) / 32768;
    if (chance < SLOT_MIN) chance = SLOT_MIN;
    if (chance > 65536 - SLOT_MIN) chance = 65536 - SLOT_MIN;
    slots[i] = (uint16_t)chance;
    if (met < MET_MAX && (draw(p) & MASK_L[met]) == 0u) mets[i >> 1] = (uint8_t)(mets[i >> 1] + (1u << shift));
}

static void empty_slots(uint16_t *slots, uint8_t *mets, uint32_t count) {
    uint32_t i;
    for (i = 0; i < count; i++) slots[i] = P_HALF;
    memset(mets, 0, count / 2u);
}

void mf_model_begin(mf_patch *p) {
    uint32_t i, set;
    p->random = 1;
    if (!mf_is_large(p)) {
        mf_patch_s *small = (mf_patch_s *)(void *)p;
        for (i = 0; i < MF_PATCH_SLOTS_S; i++) small->slot[i] = P_HALF;
        return;
    }
    memset((uint8_t *)(void *)p + sizeof *p, 0, sizeof(mf_patch_l) - sizeof *p);
    empty_slots(mf_large(p)->slot, mf_large(p)->met, MF_PATCH_SLOTS_L);
    for (set = 0; set < MF_PATCH_SETS; set++)
        for (i = 0; i < MF_PATCH_INPUTS; i++)
            mf_large(p)->weight[set][i] = set < MF_SET_WORDS ? 16384 : set < MF_SET_LITERAL ? 49152 : 32768;
}

void mf_model_op(mf_patch *p, uint32_t work_use) {
    mf_patch_l *large = mf_large(p);
    uint32_t i, shift;
    if (!mf_is_large(p)) return;
    /* Layers differ: what was learned in the last one is kept, but gives way quickly. */
    if (work_use == MF_WORK_RING)
        for (i = 0; i < MF_L_WORDS; i++) {
            shift = (i & 1u) * 4u;
            if ((large->met[i >> 1] >> shift & 15u) > MET_AT_NEW_OP)
                large->met[i >> 1] = (uint8_t)((large->met[i >> 1] & (0xF0u >> shift)) | (unsigned)MET_AT_NEW_OP << shift);
        }
    if (p->kind != MF_OP_INTEGERS_SCALED) large->ratio_count = 0; /* they belong to the op right before */
    if (work_use == MF_WORK_NONE || work_use == large->work_use) return;
    large->work_use = (uint8_t)work_use;
    if (work_use == MF_WORK_LITERAL) empty_slots(large->work.literal.slot, large->work.literal.met, MF_PATCH_LITERALS);
}

/* The contexts of the running symbol give slots; an absent one gives none. */
static int mixed_bit(mf_patch *p, uint32_t node) {
    mf_patch_l *large = mf_large(p);
    int literal = p->shape == MF_TREE, bit;
    uint16_t *slots = literal ? large->work.literal.slot : large->slot;
    uint8_t *mets = literal ? large->work.literal.met : large->met;
    uint32_t set = literal ? MF_SET_LITERAL + (node >> 4 != 0u) + ((p->produced & 3u) == 3u ? 2u : 0u) : p->unary == 0u ? MF_SET_WORDS + (node < 2u ? node : 2u) : p->set + node;
    uint32_t index[MF_PATCH_INPUTS], i, p1, speed;
    int32_t input[MF_PATCH_INPUTS], error;
    int64_t sum = 0;
    for (i = 0; i < p->contexts; i++) {
        index[i] = MF_NO_CONTEXT;
        /* Two contexts of the weights tell of zero, sign and the first two steps only. */
        if (p->context[i] == MF_NO_CONTEXT || (node >= 4u && p->unary != 0u && (i == 3u || i == 5u))) continue;
        index[i] = !literal ? p->context[i] + node : i == 0u ? node : 256u * i + (((p->context[i] * 769u + node * 31u) * 0x9E3779B1u) >> 24);
        input[i] = stretch(slots[index[i]]);
        sum += (int64_t)large->weight[set][i] * input[i];
    }
    sum >>= 16;
    p1 = squash(sum > 4096 ? 4096 : sum < -4096 ? -4096 : (int32_t)sum);
    if (p1 < P_MIN) p1 = P_MIN;
    bit = arithmetic(p, p1);
    error = (bit ? 65536 : 0) - (int32_t)p1;
    speed = (literal ? 14u : 4u) + 960u / (16u + large->trained[set]);
    if (large->trained[set] < 0xFFFFu) large->trained[set]++;
    for (i = 0; i < p->contexts; i++) {
        if (index[i] == MF_NO_CONTEXT) continue;
        large->weight[set][i] += (int32_t)(((int64_t)input[i] * error * (int32_t)speed + (1 << 17)) >> 18);
        large_learn(p, slots, mets, index[i], bit);
    }
    return bit;
}
#endif

int mf_model_bit(mf_patch *p, uint32_t node) {
    uint32_t slot = p->context[0] + node;
    int bit;
#ifndef MF_PATCH_ONLY_S
    if (mf_is_large(p)) {
        if (p->contexts > 1u) return mixed_bit(p, node);
        bit = arithmetic(p, mf_large(p)->slot[slot]);
        large_learn(p, mf_large(p)->slot, mf_large(p)->met, slot, bit);
        return bit;
    }
#endif
    bit = arithmetic(p, (((mf_patch_s *)(void *)p)->slot[slot] & 0xFFF8u) + 4u);
    small_learn(p, &((mf_patch_s *)(void *)p)->slot[slot], bit);
    return bit;
}
