/* Decodes the patch that is linked in on a bare Cortex-M core and says what came out, through semihosting. */
#include "internal.h"
#include "patch.h"

enum { TARGET_MAX = 400000, PAINTED = 8192, PAINT = 0xA5 };
extern const uint8_t base_begin[], base_end[], patch_begin[], patch_end[];
extern uint8_t stack_top[];
void reset(void);
#ifdef MF_PATCH_ONLY_S
static mf_patch_s state;
enum { PROFILES = 1 };
#else
static mf_patch_l state;
enum { PROFILES = 3 };
#endif
static uint8_t target[TARGET_MAX];

__attribute__((section(".vectors"), used)) static void *const VECTORS[2] = {stack_top, (void *)reset};

void *memcpy(void *to, const void *from, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) ((volatile uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    return to;
}

void *memset(void *to, int value, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) ((volatile uint8_t *)to)[i] = (uint8_t)value;
    return to;
}

void *memmove(void *to, const void *from, size_t count) { /* only ever towards lower addresses here */
    return memcpy(to, from, count);
}

int memcmp(const void *a, const void *b, size_t count) {
    size_t i;
    for (i = 0; i < count; i++)
        if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) return 1;
    return 0;
}

static void host(uint32_t call, const void *argument) {
    register uint32_t r0 __asm__("r0") = call;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void say(const char *name, uint64_t value, uint32_t digits) {
    static char line[64];
    uint32_t at = 0;
    while (*name != 0) line[at++] = *name++;
    while (digits-- != 0u) line[at++] = "0123456789abcdef"[value >> (4u * digits) & 15u];
    line[at++] = '\n';
    line[at] = 0;
    host(4, line);
}

static int read_base(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    (void)context;
    memcpy(out, base_begin + offset, count);
    return 0;
}

static int read_back(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    (void)context;
    memcpy(out, target + offset, count);
    return 0;
}

static volatile uint32_t *const SYSTICK = (volatile uint32_t *)0xE000E010u;

__attribute__((noinline)) static void say_digest(uint32_t size) {
    uint8_t digest[32];
    uint32_t i;
    mf_sha256 hash;
    mf_sha256_begin(&hash);
    mf_sha256_add(&hash, target, size);
    mf_sha256_end(&hash, digest);
    for (i = 0; i < 32u; i++) say("digest ", digest[i], 2);
}

__attribute__((noinline)) static const uint8_t *deepest_painted(void) {
    const uint8_t *deepest = stack_top - PAINTED;
    while (*deepest == PAINT && deepest < stack_top) deepest++;
    return deepest;
}

static void decode(void) {
    mf_patch_base base = {NULL, read_base, read_back, (uint32_t)(base_end - base_begin)};
    const uint8_t *input = patch_begin;
    size_t left = (size_t)(patch_end - patch_begin);
    uint32_t written = 0, before = SYSTICK[2], now;
    uint64_t ticks = 0;
    mf_patch_status status;
    const uint8_t *here;
    mf_patch_begin(&state.core, PROFILES);
    do {
        status = mf_patch_run(&state.core, &base, &input, &left, 1);
        now = SYSTICK[2];
        ticks += (before - now) & 0xFFFFFFu;
        before = now;
        if (status != MF_PATCH_OUTPUT && status != MF_PATCH_DONE) break;
        memcpy(target + written, state.core.out, state.core.out_ready);
        written += state.core.out_ready;
    } while (status != MF_PATCH_DONE && written <= TARGET_MAX - MF_PATCH_OUT);
    __asm__ volatile("mov %0, sp" : "=r"(here));
    say("stack ", (uint32_t)(here - deepest_painted()), 8); /* of the decoder, not of this function */
    say("ticks ", ticks, 16);
    say("status ", (uint32_t)status, 2);
    say("size ", written, 8);
    say_digest(written);
}

void reset(void) {
    volatile uint8_t *at;
    *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20; /* the floating-point unit, where there is one */
    __asm__ volatile("dsb\n isb");
    for (at = stack_top - PAINTED; at < (uint8_t *)__builtin_frame_address(0) - 64; at++) *at = PAINT;
    SYSTICK[1] = 0xFFFFFFu;
    SYSTICK[2] = 0;
    SYSTICK[0] = 5; /* counts the core's clock, no interrupt */
    decode();
    host(0x18, (const void *)0x20026); /* ended as it should */
    for (;;) {}
}
