/* The patch codec for the host: the encoder, which drives the decoder's own model, and the decoder over images in memory. */
#ifndef MODELFLEET_PATCH_HOST_H
#define MODELFLEET_PATCH_HOST_H
#include <stddef.h>
#include <stdint.h>

/* One op of a patch; kinds are numbered in patch_internal.h. count: bytes of a copy, byte or literal op; words of a word op;
 * rows (by columns: columns) of a tensor. width: columns (by columns: rows) of a tensor. */
typedef struct { uint32_t kind, count, width, inner, offset; } mf_patch_op;

/* The patch in out, its size; 0 where the ops do not make the target or it does not fit in `capacity` bytes.
 * `bits`: what each op took, op_count numbers. prefixes: 2 bytes of the base's digest, 4 of the target's. */
size_t mf_patch_encode(int profile, const uint8_t prefixes[6], const uint8_t *base, uint32_t base_size, const uint8_t *target,
                       uint32_t target_size, const mf_patch_op *ops, size_t op_count, uint8_t *out, size_t capacity, uint32_t *bits);

/* Bytes of a decoder's state, profile S or L. */
size_t mf_host_state_bytes(int profile);
void mf_host_begin(void *state, unsigned profiles);
enum { MF_HOST_MORE, MF_HOST_OUTPUT, MF_HOST_DONE }; /* of mf_patch_status; all others refuse */
/* As mf_patch_run over images in memory: *used bytes of the input, *ready bytes into out (at most 32). `written`: the target
 * up to here. */
int mf_host_run(void *state, const uint8_t *base, uint32_t base_size, const uint8_t *written, const uint8_t *input, size_t count,
                int last, size_t *used, uint8_t *out, uint32_t *ready);
/* An op as it was decoded: what it took of the patch, and the target's size after it. */
typedef struct { mf_patch_op op; uint32_t bits, produced; } mf_patch_part;

/* All at once: the target's size, or -1. `target` takes `limit` bytes. `parts` (or NULL) takes the first `part_limit` ops,
 * *part_count counts all. */
int64_t mf_host_decode(void *state, unsigned profiles, const uint8_t *base, uint32_t base_size, const uint8_t *patch, size_t count,
                       uint8_t *target, uint32_t limit, mf_patch_part *parts, size_t part_limit, size_t *part_count);
/* Profile, base size, target size; 0 where the header has been read. prefixes: 2 and 4 bytes. */
int mf_host_header(const void *state, uint32_t fields[3], uint8_t prefixes[6]);
void mf_host_seal(void *state);
int mf_host_restored(void *state);
#endif
