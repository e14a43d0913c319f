/* What the decoder expects of weights, scales and biases, from the old image and from what it has decoded so far. */
#include "patch_internal.h"

static uint32_t clamp_to(uint32_t value, uint32_t most) { return value < most ? value : most; }

/* 0..15 for a magnitude: fine where small. */
static uint32_t level16(uint32_t magnitude) {
    static const uint16_t FROM[15] = {1, 2, 4, 6, 9, 13, 18, 25, 34, 48, 70, 110, 190, 350, 700};
    uint32_t i = 0;
    while (i < 15u && magnitude >= FROM[i]) i++;
    return i;
}

#ifndef MF_PATCH_ONLY_S
enum { RING_NIBBLES = 2 * MF_PATCH_RING, ROWS_ABOVE = 16 };

/* The residual `back` elements ago, -8..7; 0 where there was none or the ring has forgotten it. */
static int32_t recall(const mf_patch *p, uint32_t back) {
    const mf_patch_l *large = (const mf_patch_l *)(const void *)p;
    uint32_t place = (p->position - back) % RING_NIBBLES;
    if (back > p->position || back > RING_NIBBLES) return 0;
    return (int32_t)(large->work.ring[place >> 1] >> ((place & 1u) * 4u) & 15u) - 8;
}

static uint32_t recalled_size(const mf_patch *p, uint32_t back) { return mf_magnitude(recall(p, back)); }

static int32_t nearest(float value) { return value >= 0.0f ? (int32_t)(value + 0.5f) : -(int32_t)(0.5f - value); }

static int32_t within(int32_t value, int32_t bound) { return value > bound ? bound : value < -bound ? -bound : value; }

/* Recursive least squares with forgetting (S. Haykin, "Adaptive Filter Theory", ch. 9): each row of a fine-tuned tensor
 * is close to a combination of rows before it. Taps: the old weight, the left neighbour, up to 16 rows above, and the
 * same place under two other positions of a convolution's window. */
static void linear_begin_row(mf_patch_l *large) {
    uint32_t i, j, k = 0;
    for (i = 0; i < large->taps; i++) {
        if (i >= 2u && i < 2u + large->rows_above) large->coefficient[i] = 0.0f;
        for (j = 0; j <= i; j++) large->covariance[k++] = i == j ? 0.02f : 0.0f;
    }
}

static float linear_estimate(mf_patch *p) {
    mf_patch_l *large = mf_large(p);
    uint32_t columns = p->number[1], inner = p->number[2], k;
    float sum = 0.0f;
    if (p->column == 0u) linear_begin_row(large);
    large->tap[0] = (float)p->old_value * 0.03125f;
    large->tap[1] = p->column != 0u ? (float)recall(p, 1) : 0.0f;
    for (k = 1; k <= large->rows_above; k++) large->tap[1u + k] = k <= p->row ? (float)recall(p, k * columns) : 0.0f;
    if (inner != 0u) {
        large->tap[large->taps - 2u] = p->column >= inner ? (float)recall(p, inner) : 0.0f;
        large->tap[large->taps - 1u] = p->column / 3u >= inner ? (float)recall(p, 3u * inner) : 0.0f;
    }
    for (k = 0; k < large->taps; k++) sum += large->coefficient[k] * large->tap[k];
    return sum > 100.0f ? 100.0f : sum > -100.0f ? sum : -100.0f; /* also where it is not a number */
}

static void linear_learn(mf_patch_l *large, float error) {
    float gain[MF_PATCH_TAPS], power = 0.9995f, inverse, step, *entry = large->covariance;
    const float *tap = large->tap;
    uint32_t i, j;
    for (i = 0; i < large->taps; i++) { /* gain = covariance * tap */
        gain[i] = 0.0f;
        for (j = 0; j < i; j++, entry++) {
            gain[i] += *entry * tap[j];
            gain[j] += *entry * tap[i];
        }
        gain[i] += *entry++ * tap[i];
    }
    for (i = 0; i < large->taps; i++) power += tap[i] * gain[i];
    inverse = 1.0f / power;
    entry = large->covariance;
    for (i = 0; i < large->taps; i++) {
        step = gain[i] * inverse;
        large->coefficient[i] += step * error;
        for (j = 0; j <= i; j++, entry++) *entry = (*entry - step * gain[j]) * 1.0005f;
    }
}

static uint32_t old_class(uint32_t magnitude) {
    return magnitude == 0u ? 0u : magnitude < 4u ? 1u : magnitude < 10u ? 2u : magnitude < 20u ? 3u : magnitude < 40u ? 4u
         : magnitude < 80u ? 5u : magnitude < 127u ? 6u : 7u;
}

static void large_expect(mf_patch *p, uint32_t mean) {
    mf_patch_l *large = mf_large(p);
    uint32_t columns = p->kind == MF_OP_BYTES ? 0u : p->number[1], inner = p->number[2], above;
    int32_t shift = within(p->row_xy * p->old_value / ((p->row_xx + 1000) / 6), 20), whole, part;
    mf_set_contexts(p, 6);
    if (columns != 0u)
        above = level16(recalled_size(p, columns) * 8u + (p->row > 1u ? recalled_size(p, 2u * columns) * 4u : 0u) +
                        (p->row > 2u ? recalled_size(p, 3u * columns) * 2u : 0u) +
                        (p->row > 3u ? recalled_size(p, 4u * columns) * 2u : 0u));
    else above = (p->produced & 3u) + (mean > 3u ? 4u : 0u) + (mean > 7u ? 4u : 0u) + (mean > 11u ? 4u : 0u);
    p->context[1] = (uint16_t)(MF_L_ABOVE + above * 8u);
    p->context[2] = (uint16_t)(MF_L_OLD + (old_class(mf_magnitude(p->old_value)) * 3u + (mean < 4u ? 0u : mean < 9u ? 1u : 2u)) * 8u);
    p->context[3] = (uint16_t)(MF_L_SHIFT + (uint32_t)(shift + 20) * 4u);
    p->context[4] = MF_NO_CONTEXT;
    if (inner != 0u)
        p->context[4] = (uint16_t)(MF_L_INNER + 8u * level16((p->column >= inner ? recalled_size(p, inner) * 4u : 0u) +
                                                  (p->column / 2u >= inner ? recalled_size(p, 2u * inner) * 2u : 0u) +
                                                  (p->column / 3u >= inner ? recalled_size(p, 3u * inner) * 2u : 0u)));
    p->context[5] = MF_NO_CONTEXT;
    if (p->kind == MF_OP_LINEAR) {
        large->estimate = linear_estimate(p);
        p->prediction = within(p->old_value + nearest(large->estimate), 127);
        whole = p->prediction - p->old_value;
        part = within(nearest((large->estimate - (float)whole) * 8.0f), 4) + 4;
        p->context[5] = (uint16_t)(MF_L_LINEAR + ((whole == 0 ? 0u : mf_magnitude(whole) < 3u ? 1u : 2u) * 9u + (uint32_t)part) * 4u);
        p->set = 8; /* where there is an estimate the others weigh less */
    }
}

static void large_learn_weight(mf_patch *p, int32_t change) {
    mf_patch_l *large = mf_large(p);
    uint32_t place = p->position % RING_NIBBLES, shift = (place & 1u) * 4u;
    int32_t kept = p->kind == MF_OP_FRESH ? change / 16 : within(change, 7);
    if (p->kind != MF_OP_BYTES) { /* which leaves the working memory to the literals between */
        large->work.ring[place >> 1] = (uint8_t)((large->work.ring[place >> 1] & (0xF0u >> shift)) | (uint32_t)(kept + 8) << shift);
        p->position++;
    }
    if (p->kind == MF_OP_LINEAR) linear_learn(large, (float)change - large->estimate);
    if (p->kind != MF_OP_FRESH && mf_magnitude(change) < 24u) {
        p->row_xy += change * p->old_value;
        p->row_xx += p->old_value * p->old_value;
        if (p->row_xx > 400000) {
            p->row_xx /= 2;
            p->row_xy /= 2;
        }
    }
}

static void large_begin_op(mf_patch *p) {
    mf_patch_l *large = mf_large(p);
    uint32_t rows = p->number[1] == 0u ? 0u : RING_NIBBLES / p->number[1];
    memset(large->coefficient, 0, sizeof large->coefficient);
    large->rows_above = (uint8_t)clamp_to(rows, ROWS_ABOVE);
    large->taps = (uint8_t)(2u + large->rows_above + (p->number[2] != 0u ? 2u : 0u));
}
#endif

void mf_weights_begin(mf_patch *p) {
    p->column = p->row = p->position = 0;
    p->mean = p->row_xy = p->row_xx = 0;
    p->sum_xy = p->sum_xx = 1 << 8;
    p->magnitude_class = 0;
#ifndef MF_PATCH_ONLY_S
    if (mf_is_large(p) && p->number[1] != 0u) large_begin_op(p);
#endif
}

void mf_weight_expect(mf_patch *p) {
    uint32_t mean = level16((uint32_t)p->mean >> 4);
    p->shape = MF_SIGNED;
    p->unary = 6;
    mf_set_contexts(p, 1);
    p->prediction = p->old_value;
    p->context[0] = (uint16_t)(MF_S_MEAN + mean * 8u);
    p->tail_slots = MF_S_TAIL;
#ifndef MF_PATCH_ONLY_S
    if (!mf_is_large(p)) return;
    p->set = 0;
    p->tail_slots = (uint16_t)(MF_L_TAIL + (mean >> 2) * 16u);
    if (p->column == 0u && (p->kind == MF_OP_ROWS || p->kind == MF_OP_LINEAR)) p->row_xy = p->row_xx = 0;
    large_expect(p, mean);
#endif
}

void mf_weight_learn(mf_patch *p, int32_t residual, int32_t change) {
    uint32_t size = clamp_to(mf_magnitude(residual), 60u);
#ifndef MF_PATCH_ONLY_S
    if (mf_is_large(p)) large_learn_weight(p, change);
#endif
    (void)change;
    p->mean += ((int32_t)(size << 8) - p->mean) >> 3;
    if (++p->column == p->number[1]) {
        p->column = 0;
        p->row++;
    }
}

/* a / b in Q28, for both below 2^60; 1 where that is not between 0 and 8. */
static uint32_t quotient(uint64_t a, uint64_t b) {
    uint32_t q = 0, i;
    b <<= 2;
    if (a >= b << 1) return 1u << 28;
    for (i = 0; i < 31u; i++) {
        q <<= 1;
        if (a >= b) {
            a -= b;
            q |= 1u;
        }
        a <<= 1;
    }
    return q;
}

static int32_t times(int32_t value, uint32_t q28) {
    return (int32_t)(uint32_t)(((int64_t)value * (int64_t)q28 + (1 << 27)) >> 28);
}

/* Biases of one layer move by a common factor where the scale of its input does, and those of one channel by that of the
 * channel's scale. The factors left over are learned as the least-squares line through the origin. */
void mf_word_expect(mf_patch *p) {
    int32_t base = p->old_value;
    p->shape = MF_SIGNED;
    p->unary = 0;
    mf_set_contexts(p, 1);
    p->context[0] = (uint16_t)(MF_S_WORDS + (p->kind == MF_OP_FLOATS ? 48u : 0u));
    p->prediction = p->old_value;
#ifndef MF_PATCH_ONLY_S
    if (mf_is_large(p)) {
        mf_patch_l *large = mf_large(p);
        mf_set_contexts(p, 2);
        p->context[0] = (uint16_t)(p->context[0] - MF_S_WORDS + MF_L_WORDS);
        p->context[1] = (uint16_t)(MF_L_WORD_CLASS + p->magnitude_class * 48u);
        if (p->kind == MF_OP_INTEGERS_SCALED && p->position < large->ratio_count)
            base = times(base, large->work.ratio[p->position]);
    }
#endif
    if (p->kind != MF_OP_INTEGERS_RATIO && p->kind != MF_OP_INTEGERS_SCALED) return;
    p->scaled = base;
    p->prediction = times(base, quotient(p->sum_xy, p->sum_xx)); /* a negative sum is too large a one */
}

#ifndef MF_PATCH_ONLY_S
/* old / new of two positive normal floats within a factor of 4 of each other, else 1. */
static uint32_t float_ratio(uint32_t before, uint32_t after) {
    int32_t up = (int32_t)(before >> 23) - (int32_t)(after >> 23);
    uint32_t q;
    if (before >> 23 == 0u || after >> 23 == 0u || before >> 23 >= 255u || after >> 23 >= 255u || up > 1 || up < -1) return 1u << 28;
    q = quotient((before & 0x7FFFFFu) | 0x800000u, (after & 0x7FFFFFu) | 0x800000u);
    return up > 0 ? q << 1 : up < 0 ? q >> 1 : q;
}
#endif

void mf_word_learn(mf_patch *p, int32_t difference, int32_t value) {
    uint32_t length = difference == 0 ? 0u : mf_bit_length(mf_magnitude(difference));
    p->magnitude_class = (uint8_t)(length == 0u ? 0u : length < 5u ? 1u : length < 13u ? 2u : 3u);
#ifndef MF_PATCH_ONLY_S
    if (p->kind == MF_OP_FLOATS && mf_is_large(p) && p->position < MF_PATCH_RATIOS) {
        mf_large(p)->work.ratio[p->position] = float_ratio((uint32_t)p->old_value, (uint32_t)value);
        mf_large(p)->ratio_count = (uint16_t)(p->position + 1u);
    }
#endif
    p->position++;
    if (mf_magnitude(p->scaled) >> 22 != 0u || mf_magnitude(value) >> 22 != 0u) return;
    p->sum_xy += (uint64_t)((int64_t)p->scaled * value);
    p->sum_xx += (uint64_t)((int64_t)p->scaled * p->scaled);
}
