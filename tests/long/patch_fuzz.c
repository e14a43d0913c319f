/* Decodes mutated patches over mutated bases under the sanitizers: fuzz SEEDS ROUNDS RANDOM. With -DLIBFUZZER and
 * -fsanitize=fuzzer, libFuzzer brings the bytes and is led by what they reach: size of the patch (u16, little-endian), patch, base.
 * SEEDS: for each seed base, target and patch, each as a length (u32, little-endian) and the bytes. Every buffer has its
 * exact size on the heap, so an access outside of an image ends the program. Exit 1: a wrong image was accepted. */
#include "internal.h"
#include "patch.h"
#include <stdio.h>
#include <stdlib.h>

enum { LIMIT = 2048, SEEDS_MAX = 64 };

typedef struct { uint8_t *bytes; uint32_t size; } blob;
typedef struct { const uint8_t *base, *target; uint32_t base_size, written; } images;

static uint64_t state;

static uint32_t draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % below;
}

static int read_base(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    const images *both = context;
    if (offset > both->base_size || count > both->base_size - offset) abort();
    memcpy(out, both->base + offset, count);
    return 0;
}

static int read_back(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    const images *both = context;
    if (offset > both->written || count > both->written - offset) abort();
    memcpy(out, both->target + offset, count);
    return 0;
}

static blob copy_of(blob from, uint32_t room) {
    blob to = {malloc(from.size + room + 1u), from.size};
    memcpy(to.bytes, from.bytes, from.size);
    return to;
}

#ifndef LIBFUZZER
static void mutate(blob *patch) {
    uint32_t times = 1u + draw(4), at, count, i;
    while (times-- != 0u && patch->size > 16u) {
        at = draw(8) == 0u ? draw(12) : draw(patch->size);
        count = 1u + draw(8);
        switch (draw(6)) {
        case 0: patch->bytes[at] ^= (uint8_t)(1u << draw(8)); break;
        case 1: patch->bytes[at] = (uint8_t)draw(256); break;
        case 2: patch->size = at + 1u; break;
        case 3:
            for (i = at; i < patch->size && i < at + count; i++) patch->bytes[i] = (uint8_t)draw(256);
            break;
        case 4:
            if (count > patch->size - at) count = patch->size - at;
            memmove(patch->bytes + at, patch->bytes + at + count, patch->size - at - count);
            patch->size -= count;
            break;
        default: /* room for 32 bytes more was made */
            memmove(patch->bytes + at + count, patch->bytes + at, patch->size - at);
            for (i = 0; i < count; i++) patch->bytes[at + i] = (uint8_t)draw(256);
            patch->size += count;
        }
    }
}

#endif

/* Whether the node would take what came out. */
static int accepted(blob base, blob patch, uint8_t *out, uint32_t *size) {
    images both = {base.bytes, out, base.size, 0};
    mf_patch_base from = {&both, read_base, read_back, base.size};
    unsigned large = draw(4) != 0u;
    mf_patch *p = malloc(large ? sizeof(mf_patch_l) : sizeof(mf_patch_s));
    const uint8_t *input = patch.bytes;
    size_t left = patch.size, piece, given;
    mf_patch_status status = MF_PATCH_MORE;
    uint8_t digest[32];
    mf_sha256 hash;
    int good = 0;
    mf_patch_begin(p, large ? 3u : 1u);
    while (status == MF_PATCH_MORE || status == MF_PATCH_OUTPUT) {
        piece = given = draw(3) != 0u && left > 9u ? 1u + draw(9) : left;
        status = mf_patch_run(p, &from, &input, &piece, given == left);
        left -= given - piece;
        if (p->header_done && p->produced > p->target_size) abort();
        if (status != MF_PATCH_OUTPUT && status != MF_PATCH_DONE) continue;
        if (both.written + p->out_ready > LIMIT) break;
        memcpy(out + both.written, p->out, p->out_ready);
        both.written += p->out_ready;
    }
    if (status == MF_PATCH_DONE) {
        mf_sha256_begin(&hash);
        mf_sha256_add(&hash, out, both.written);
        mf_sha256_end(&hash, digest);
        good = memcmp(digest, p->target_prefix, 4) == 0;
    }
    *size = both.written;
    free(p);
    return good;
}

#ifdef LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count) {
    uint32_t size, i;
    blob base, patch, whole;
    uint8_t *out;
    if (count < 4u) return 0;
    size = (uint32_t)data[0] | (uint32_t)data[1] << 8;
    if (size > count - 2u) size = (uint32_t)(count - 2u);
    whole.bytes = (uint8_t *)data + 2;
    whole.size = size;
    patch = copy_of(whole, 0);
    whole.bytes += size;
    whole.size = (uint32_t)(count - 2u) - size;
    base = copy_of(whole, 0);
    out = malloc(LIMIT);
    /* The same bytes take the same way: how the input is cut and which decoder reads it hangs on them. */
    for (state = 1, i = 0; i < count; i++) state = state * 31u + data[i] + 1u;
    (void)accepted(base, patch, out, &size);
    free(out);
    free(base.bytes);
    free(patch.bytes);
    return 0;
}
#else
static blob read_blob(FILE *file) {
    uint8_t head[4];
    blob read = {NULL, 0};
    if (fread(head, 1, 4, file) != 4u) return read;
    read.size = (uint32_t)head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
    read.bytes = malloc(read.size + 1u);
    if (fread(read.bytes, 1, read.size, file) != read.size) exit(2);
    return read;
}

int main(int count, char **arguments) {
    blob base[SEEDS_MAX], target[SEEDS_MAX], patch[SEEDS_MAX];
    uint32_t seeds = 0, rounds, round, size, taken = 0;
    FILE *file = count == 4 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL) return 2;
    while (seeds < SEEDS_MAX && (base[seeds] = read_blob(file)).bytes != NULL) {
        target[seeds] = read_blob(file);
        patch[seeds++] = read_blob(file);
    }
    rounds = (uint32_t)strtoul(arguments[2], NULL, 10);
    state = strtoull(arguments[3], NULL, 10) * 2u + 1u;
    for (round = 0; round < rounds; round++) {
        uint32_t seed = round % seeds;
        blob changed = copy_of(patch[seed], 32), from = copy_of(base[seed], 0);
        uint8_t *out = malloc(LIMIT);
        if (draw(8) == 0u) from.bytes[draw(from.size)] ^= (uint8_t)(1u + draw(255));
        if (draw(16) != 0u) mutate(&changed);
        if (accepted(from, changed, out, &size)) {
            taken++;
            if (size != target[seed].size || memcmp(out, target[seed].bytes, size) != 0) {
                printf("round %u: a wrong image was accepted\n", (unsigned)round);
                return 1;
            }
        }
        free(out);
        free(from.bytes);
        free(changed.bytes);
    }
    while (seeds-- != 0u) {
        free(base[seeds].bytes);
        free(target[seeds].bytes);
        free(patch[seeds].bytes);
    }
    fclose(file);
    printf("%u rounds, %u images accepted, all of them right\n", (unsigned)rounds, (unsigned)taken);
    return taken != 0u ? 0 : 3; /* with none the harness tests nothing */
}
#endif
