/* Shared by the files of the patch decoder and the encoder that drives them; not part of its interface. */
#ifndef MODELFLEET_PATCH_INTERNAL_H
#define MODELFLEET_PATCH_INTERNAL_H
#include "patch.h"
#include <string.h>

/* Kinds of op, as sent. */
enum {
    MF_OP_COPY, MF_OP_BYTES, MF_OP_LITERAL, MF_OP_INTEGERS, MF_OP_FLOATS, MF_OP_ROWS, MF_OP_LINEAR, MF_OP_COLUMNS, MF_OP_FRESH,
    MF_OP_INTEGERS_RATIO, MF_OP_INTEGERS_SCALED, MF_OP_SAME_WORDS, MF_OP_SAME_ROWS, MF_OP_SAME_COLUMNS,
    MF_OP_EARLIER, MF_OPS
};
/* Shapes of symbol: a tree of binary decisions; a signed number; an unsigned number. And how far one has been read. */
enum { MF_TREE, MF_SIGNED, MF_UNSIGNED };
enum { MF_PHASE_NONE, MF_PHASE_TREE, MF_PHASE_ZERO, MF_PHASE_SIGN, MF_PHASE_UNARY, MF_PHASE_LENGTH, MF_PHASE_BITS };
/* What is read: whether the kind of op is the one that followed last time; the kind; its numbers; the elements. */
enum { MF_STAGE_REPEATED, MF_STAGE_KIND, MF_STAGE_SAME, MF_STAGE_SIGN, MF_STAGE_SHIFT, MF_STAGE_ODD, MF_STAGE_ELEMENT };
enum { MF_FIELD_COUNT, MF_FIELD_WIDTH, MF_FIELD_INNER, MF_FIELD_OFFSET, MF_FIELDS };
enum { MF_WORK_NONE, MF_WORK_RING, MF_WORK_RATIO, MF_WORK_LITERAL };

/* First slots of each use. Profile S has the first context of each and shares its slots with the literals. */
enum {
    MF_L_MEAN = 0, MF_L_ABOVE = 128, MF_L_OLD = 256, MF_L_SHIFT = 448, MF_L_INNER = 612, MF_L_LINEAR = 740, MF_L_TAIL = 848,
    MF_L_WORDS = 912, MF_L_WORD_CLASS = 1008, MF_L_OPS = 1200,
    MF_S_MEAN = 0, MF_S_TAIL = 128, MF_S_WORDS = 144, MF_S_OPS = 256,
    MF_OPS_REPEATED = 16, MF_OPS_SAME = 17, MF_OPS_SHIFT = 24, MF_OPS_ODD = 32, /* behind the first slot of the ops */
    MF_SET_WORDS = 16, MF_SET_LITERAL = 19,
    MF_NO_CONTEXT = 0xFFFF
};

#ifdef MF_PATCH_ONLY_S
static inline int mf_is_large(const mf_patch *p) { (void)p; return 0; }
static inline void mf_set_contexts(mf_patch *p, uint32_t count) { (void)p; (void)count; } /* always the first alone */
#else
static inline int mf_is_large(const mf_patch *p) { return p->profile == MF_PATCH_PROFILE_L; }
static inline void mf_set_contexts(mf_patch *p, uint32_t count) { p->contexts = (uint8_t)count; }
#endif
static inline mf_patch_l *mf_large(mf_patch *p) { return (mf_patch_l *)(void *)p; }
static inline uint32_t mf_magnitude(int32_t value) { return value < 0 ? 0u - (uint32_t)value : (uint32_t)value; }
static inline uint32_t mf_bit_length(uint32_t value) { /* bits under the leading one, of 1.. */
#ifdef __GNUC__
    return 31u - (uint32_t)__builtin_clz(value);
#else
    uint32_t bits = 0;
    while (value >>= 1) bits++;
    return bits;
#endif
}

/* patch_model.c: probabilities. The encoder replaces the arithmetic decoder underneath. */
void mf_model_begin(mf_patch *p);
int mf_model_bit(mf_patch *p, uint32_t node);
int mf_model_even_bit(mf_patch *p);
void mf_model_op(mf_patch *p, uint32_t work_use);
/* patch_weights.c: what is expected of the next element, and what it turned out to be. */
void mf_weights_begin(mf_patch *p);
void mf_weight_expect(mf_patch *p);
void mf_weight_learn(mf_patch *p, int32_t residual, int32_t change);
void mf_word_expect(mf_patch *p);
void mf_word_learn(mf_patch *p, int32_t difference, int32_t value);
/* patch.c, for the encoder: what is predicted where a number of an op is left out. */
uint32_t mf_predicted_number(const mf_patch *p);
#ifdef MF_PATCH_ENCODER
/* patch_encode.c */
void mf_encode_symbol(mf_patch *p); /* the running symbol begins */
void mf_encode_choose(mf_patch *p); /* its next decision is due */
int mf_encode_bit(mf_patch *p, uint32_t bound);
#endif
#endif
