/* Decoder of weight patches, codec 2 (profile S) and 3 (profile L): docs/patch-format.md describes every bit.
 * No allocation, no pointers kept: a state is plain memory. Copy it away after any call, copy it back after a reset, and
 * go on with the input and the output where they were. Profile S is integer only; profile L takes IEEE 754 single
 * precision, rounded to nearest, each operation by itself (no fused multiply-add, -ffp-contract=off). */
#ifndef MODELFLEET_PATCH_H
#define MODELFLEET_PATCH_H
#include <stddef.h>
#include <stdint.h>

enum {
    MF_PATCH_PROFILE_S = 0, MF_PATCH_PROFILE_L = 1,
    MF_PATCH_OUT = 32,           /* output comes in units of this many bytes, the last one shorter */
    MF_PATCH_SLOTS_S = 320, MF_PATCH_SLOTS_L = 1264, MF_PATCH_INPUTS = 6, MF_PATCH_SETS = 23,
    MF_PATCH_RING = 2048, MF_PATCH_TAPS = 20, MF_PATCH_RATIOS = MF_PATCH_RING / 4, MF_PATCH_LITERALS = 1024
};

typedef enum {
    MF_PATCH_MORE,        /* all input is used: call again with more */
    MF_PATCH_OUTPUT,      /* out_count bytes of the target are in out: take them, then call again */
    MF_PATCH_DONE,        /* as OUTPUT, and these are the last; out_count may be 0 */
    MF_PATCH_BAD,         /* not a patch, or not one for this base or this decoder */
    MF_PATCH_READ_FAILED,
    MF_PATCH_OP_ENDED     /* on a host that traces only */
} mf_patch_status;

/* The images. Both functions return 0 on success. `read` is never asked for bytes of the base past `size`; `read_back`
 * never for bytes of the target that were not handed out in whole units before, and only by ops of kind EARLIER. */
typedef struct {
    void *context;
    int (*read)(void *context, uint32_t offset, uint8_t *out, uint32_t count);
    int (*read_back)(void *context, uint32_t offset, uint8_t *out, uint32_t count);
    uint32_t size;
} mf_patch_base;

/* What both profiles keep. Public: out, out_ready, produced; once header_done: profile, sizes and prefixes. What is used
 * most comes first: short offsets make short code. */
typedef struct {
    uint8_t stage, phase, kind, field, shape, bits, top, unary, negative, contexts, set, magnitude_class; /* symbol */
    uint8_t profile, out_count, out_ready, header_done, header_at, filled, encoding, tracing, last_kind, negative_offset, shift, profiles;
    uint16_t tail_slots;
    uint32_t range, code, gathered, produced, target_size, base_size;
    uint32_t left, at, column, row, position, recent; /* of the running op; recent: the last 4 bytes put out */
    int32_t prediction, old_value, scaled, mean, row_xy, row_xx;
    uint32_t number[4]; /* of the op: count, width, inner, base offset */
    uint16_t context[MF_PATCH_INPUTS];
    uint32_t random, expected, distance, last_rows, last_columns[2];
    uint64_t sum_xy, sum_xx;
    uint8_t next_kind[16], base_prefix[2], target_prefix[4];
    uint8_t out[MF_PATCH_OUT + 4];
    uint32_t check; /* of a sealed state */
} mf_patch;

/* Profile S: a slot is 13 bits of probability and 3 bits of how often it was met. */
typedef struct { mf_patch core; uint16_t slot[MF_PATCH_SLOTS_S]; } mf_patch_s;

typedef struct {
    mf_patch core;
    uint16_t slot[MF_PATCH_SLOTS_L];
    uint8_t met[MF_PATCH_SLOTS_L / 2]; /* a nibble each */
    int32_t weight[MF_PATCH_SETS][MF_PATCH_INPUTS];
    uint16_t trained[MF_PATCH_SETS];
    uint16_t ratio_count;
    uint8_t work_use, taps, rows_above;
    float estimate, tap[MF_PATCH_TAPS], coefficient[MF_PATCH_TAPS];
    float covariance[MF_PATCH_TAPS * (MF_PATCH_TAPS + 1) / 2]; /* lower triangle by rows */
    union {                              /* one use at a time; changing it empties it */
        uint8_t ring[MF_PATCH_RING];     /* residuals of the running tensor, a nibble each */
        uint32_t ratio[MF_PATCH_RATIOS]; /* old scale / new scale of the last float op, Q28 */
        struct { uint16_t slot[MF_PATCH_LITERALS]; uint8_t met[MF_PATCH_LITERALS / 2]; } literal;
    } work;
} mf_patch_l;

/* `state` is an mf_patch_s (profiles 1) or an mf_patch_l (profiles 3: takes both). */
void mf_patch_begin(mf_patch *state, unsigned profiles);
/* Decode on. `*input` and `*count` move past what was used; `last`: nothing follows. */
mf_patch_status mf_patch_run(mf_patch *state, const mf_patch_base *base, const uint8_t **input, size_t *count, int last);
/* Before saving a state, and after restoring it: 0 where it is whole. */
void mf_patch_seal(mf_patch *state);
int mf_patch_restored(mf_patch *state);
size_t mf_patch_state_bytes(const mf_patch *state);
#endif
