/* The node side of Modelfleet: verifies signed manifests, fills the standby slot, tries the new image, confirms or
 * reverts. Portable C99, no allocation, no global state. Byte layouts: docs/wire-contract.md.
 * Functions that can refuse return an mf_cause; MF_NONE is success, everything else leaves the active slot as it is. */
#ifndef MODELFLEET_AGENT_H
#define MODELFLEET_AGENT_H
#include <stddef.h>
#include <stdint.h>

enum { MF_CODEC_PATCH_S = 2, MF_CODEC_PATCH_L = 3 };
enum { MF_HEALTH_MAX = 232, MF_HEALTH_PART = 36, MF_CLASSES_MAX = 32 };
enum { MF_SIGNED_MAX = 192, MF_KEYS_MAX = 2, MF_STATE_REPORT = 11, MF_COMMAND = 17, MF_WRITE_UNIT = 32, MF_RECORD = 164 };

typedef enum {
    MF_IDLE, MF_RECEIVING, MF_STAGED, MF_TRIAL, MF_CONFIRMED, MF_REVERTED, MF_FAILED, MF_REJECTED, MF_FALLBACK
} mf_state;

typedef enum {
    MF_NONE, MF_WRONG_CLASS, MF_WRONG_BASE, MF_LOWER_SEQUENCE, MF_BAD_SIGNATURE, MF_BAD_DIGEST, MF_SELF_TEST_FAILED,
    MF_FLASH_FAILURE, MF_NO_MEMORY, MF_WATCHDOG, MF_NO_SERVER_CONTACT, MF_COMMANDED, MF_PATCH_INVALID, MF_BAD_FORMAT,
    MF_UNKNOWN_KEY, MF_UNKNOWN_CODEC, MF_BUSY, MF_NOT_ALLOWED, MF_NO_PREVIOUS, MF_REBOOTED
} mf_cause;

/* What the port gives. Callbacks return 0 on success. Slots are 0 and 1. `program` gets whole MF_WRITE_UNITs of an erased
 * slot, each once and in rising order. The journal has two places (0, 1) of MF_RECORD bytes, each replaced as a whole;
 * a power cut may tear the one being written, never the other. */
typedef struct {
    void *context;
    int (*read)(void *context, int slot, uint32_t offset, uint8_t *out, uint32_t count);
    int (*erase)(void *context, int slot);
    int (*program)(void *context, int slot, uint32_t offset, const uint8_t *data, uint32_t count);
    int (*record_read)(void *context, int place, uint8_t *out);
    int (*record_write)(void *context, int place, const uint8_t *data);
} mf_port;

typedef struct {
    uint8_t class_hash[4];
    uint8_t keys[MF_KEYS_MAX][32]; /* Ed25519 public keys, key_count of them */
    uint32_t key_count;
    uint32_t slot_size;  /* bytes, a multiple of MF_WRITE_UNIT */
    uint32_t codec_mask; /* bit n: the firmware decodes codec n; bit 0 is always understood */
} mf_config;

typedef struct {
    uint8_t model_id[4], base_prefix[8], target_digest[32], class_hash[4], self_test_digest[8], revert_hash[16];
    uint32_t base_prefix_size, target_size, sequence, codec;
    uint32_t guard_count; /* 0: none; else 1 threshold and guard_count - 1 bounds, per mille */
    int32_t guard[6];
} mf_manifest;

typedef struct {
    uint32_t size; /* 0: empty */
    uint32_t sequence;
    uint8_t digest[32], revert_hash[16];
} mf_image;

typedef struct {
    uint32_t writes, highest_sequence, sequence;
    uint8_t state, cause, active, tries, can_revert;
    uint8_t self_test_digest[8];
    mf_image image[2];
} mf_record;

/* What the application counted since the image was activated. 0 in p99_latency_us, battery_mv and arena_used_bytes: not
 * measured; arena_used_bytes is what the runtime says after its first inference. */
typedef struct {
    uint8_t active_prefix[4];
    uint32_t inferences, class_count, class_counts[MF_CLASSES_MAX];
    uint32_t low_confidence, out_of_bounds, fallbacks, shadow_disagreements, deadline_misses, p99_latency_us, resets;
    int32_t sample_rate_error_ppm;
    uint16_t battery_mv;
    uint32_t arena_used_bytes;
} mf_health;

typedef struct {
    const mf_port *port;
    const mf_config *config;
    mf_record record;
    mf_manifest manifest;  /* of the update being received */
    uint32_t written;      /* decoded bytes taken so far */
    uint8_t unit[MF_WRITE_UNIT];
    uint8_t rejected_cause, rejected_sequence; /* in RAM only: a flood of bad manifests must not wear the flash */
    uint8_t self_test_passed;
} mf_agent;

/* manifest.c: read a COSE_Sign1 whose signature holds under one of the keys. */
mf_cause mf_manifest_read(const mf_config *config, const uint8_t *signed_bytes, size_t count, mf_manifest *out);

/* agent.c */
/* Factory: slot 0 already holds an image of `size` bytes. */
mf_cause mf_agent_provision(mf_agent *agent, const mf_port *port, const mf_config *config, uint32_t size);
/* After every reset, before anything else. reset_cause: MF_WATCHDOG or MF_REBOOTED. An unconfirmed trial is reverted. */
mf_cause mf_agent_boot(mf_agent *agent, const mf_port *port, const mf_config *config, mf_cause reset_cause);
mf_cause mf_agent_begin(mf_agent *agent, const uint8_t *signed_bytes, size_t count);
/* Decoded target bytes, in order and without gaps. */
mf_cause mf_agent_stage_write(mf_agent *agent, uint32_t offset, const uint8_t *data, uint32_t count);
mf_cause mf_agent_stage_finish(mf_agent *agent);
/* The firmware could not decode the payload (MF_PATCH_INVALID, MF_NO_MEMORY) or gave up. */
mf_cause mf_agent_stage_abort(mf_agent *agent, mf_cause cause);
mf_cause mf_agent_trial_begin(mf_agent *agent);
mf_cause mf_agent_self_test_result(mf_agent *agent, const uint8_t digest[8]);
/* The trial ends badly: MF_WATCHDOG or MF_NO_SERVER_CONTACT. */
mf_cause mf_agent_trial_abort(mf_agent *agent, mf_cause cause);
/* Only after the server has answered the new image. */
mf_cause mf_agent_confirm(mf_agent *agent);
mf_cause mf_agent_command(mf_agent *agent, const uint8_t *command, size_t count);
/* The slot that decides now, or -1 where the heuristic must. */
int mf_agent_running_slot(const mf_agent *agent);

/* agent_patch.c, where codec_mask has bit 2 or 3: instead of stage_write, the patch in pieces of any size; then stage_finish.
 * `decoder` is an mf_patch_s for codec 2, an mf_patch_l for either (patch.h), the caller's. */
mf_cause mf_agent_patch_begin(mf_agent *agent, void *decoder);
mf_cause mf_agent_patch_write(mf_agent *agent, void *decoder, const uint8_t *data, size_t count, int last);

/* report.c */
void mf_agent_state_report(const mf_agent *agent, uint8_t out[MF_STATE_REPORT]);
/* The report in CBOR; how many bytes. Classes beyond MF_CLASSES_MAX are left out. */
size_t mf_health_encode(const mf_health *health, uint8_t out[MF_HEALTH_MAX]);
/* Part `index` of an encoded report, of at most part_bytes (4..MF_HEALTH_PART); how many bytes. 0: there is no such part,
 * or so small parts would be more than 16. */
size_t mf_health_part(const uint8_t *report, size_t count, uint8_t report_id, size_t part_bytes, size_t index,
                      uint8_t out[MF_HEALTH_PART]);
#endif
