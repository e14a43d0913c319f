/* The update state machine. Every change of state is written to the journal before what it announces happens, and the
 * active slot is never written to: at any power cut one of the slots is whole and the journal knows which. */
#include "internal.h"

static int standby(const mf_agent *agent) { return 1 - (int)agent->record.active; }

static mf_cause store(mf_agent *agent) {
    mf_record last;
    if (mf_journal_store(agent->port, &agent->record) == 0) return MF_NONE;
    /* Back to what is written: going on from a state that a reset would forget could tear the last good record next. */
    if (mf_journal_load(agent->port, &last) == 0) agent->record = last;
    return MF_FLASH_FAILURE;
}

static mf_cause enter(mf_agent *agent, mf_state state, mf_cause cause) {
    agent->record.state = (uint8_t)state;
    agent->record.cause = (uint8_t)cause;
    return store(agent);
}

static mf_cause fail(mf_agent *agent, mf_cause cause) {
    return enter(agent, MF_FAILED, cause) == MF_NONE ? cause : MF_FLASH_FAILURE;
}

static int slot_digest(const mf_agent *agent, int slot, uint32_t size, uint8_t digest[32]) {
    uint8_t piece[64];
    uint32_t at = 0;
    mf_sha256 hash;
    if (size == 0u || size > agent->config->slot_size) return -1;
    mf_sha256_begin(&hash);
    while (at < size) {
        uint32_t count = size - at < sizeof piece ? size - at : (uint32_t)sizeof piece;
        if (agent->port->read(agent->port->context, slot, at, piece, count) != 0) return -1;
        mf_sha256_add(&hash, piece, count);
        at += count;
    }
    mf_sha256_end(&hash, digest);
    return 0;
}

static int slot_intact(const mf_agent *agent, int slot) {
    const mf_image *image = &agent->record.image[slot];
    uint8_t digest[32];
    return slot_digest(agent, slot, image->size, digest) == 0 && memcmp(digest, image->digest, 32) == 0;
}

static mf_cause attach(mf_agent *agent, const mf_port *port, const mf_config *config) {
    memset(agent, 0, sizeof *agent);
    agent->port = port;
    agent->config = config;
    return config->slot_size % MF_WRITE_UNIT == 0u && config->key_count <= MF_KEYS_MAX ? MF_NONE : MF_NOT_ALLOWED;
}

mf_cause mf_agent_provision(mf_agent *agent, const mf_port *port, const mf_config *config, uint32_t size) {
    mf_cause cause = attach(agent, port, config);
    if (cause != MF_NONE) return cause;
    if (slot_digest(agent, 0, size, agent->record.image[0].digest) != 0) return MF_FLASH_FAILURE;
    agent->record.image[0].size = size;
    return store(agent);
}

mf_cause mf_agent_boot(mf_agent *agent, const mf_port *port, const mf_config *config, mf_cause reset_cause) {
    mf_cause cause = attach(agent, port, config);
    mf_record *record = &agent->record;
    if (cause != MF_NONE) return cause;
    if (mf_journal_load(port, record) != 0) {
        memset(record, 0, sizeof *record);
        record->state = (uint8_t)MF_FALLBACK;
        record->cause = (uint8_t)MF_FLASH_FAILURE;
        return MF_FLASH_FAILURE;
    }
    if (record->state == (uint8_t)MF_TRIAL) cause = enter(agent, MF_REVERTED, reset_cause);
    else if (record->state == (uint8_t)MF_RECEIVING) cause = enter(agent, MF_IDLE, reset_cause);
    if (cause != MF_NONE) return cause;
    if (!slot_intact(agent, record->active)) {
        if (!slot_intact(agent, standby(agent))) return enter(agent, MF_FALLBACK, MF_BAD_DIGEST);
        record->active = (uint8_t)standby(agent);
        record->can_revert = 0;
        return enter(agent, MF_REVERTED, MF_BAD_DIGEST);
    }
    if (record->state == (uint8_t)MF_STAGED && !slot_intact(agent, standby(agent))) {
        record->image[standby(agent)].size = 0;
        return enter(agent, MF_FAILED, MF_BAD_DIGEST);
    }
    /* intact again: an earlier read of the slot failed */
    return record->state == (uint8_t)MF_FALLBACK ? enter(agent, MF_IDLE, MF_NONE) : MF_NONE;
}

static mf_cause judge(const mf_agent *agent, const mf_manifest *manifest) {
    const mf_record *record = &agent->record;
    uint8_t digest[32];
    if (memcmp(manifest->class_hash, agent->config->class_hash, 4) != 0) return MF_WRONG_CLASS;
    if (manifest->sequence <= record->highest_sequence) return MF_LOWER_SEQUENCE;
    if (manifest->codec != 0u && (manifest->codec > 31u || (agent->config->codec_mask >> manifest->codec & 1u) == 0u))
        return MF_UNKNOWN_CODEC;
    /* the bytes in the slot, not the record: a patch on a base that has rotted gives rubbish */
    if (manifest->base_prefix_size != 0u &&
        (slot_digest(agent, record->active, record->image[record->active].size, digest) != 0 ||
         memcmp(digest, manifest->base_prefix, 8) != 0))
        return MF_WRONG_BASE;
    return manifest->target_size <= agent->config->slot_size ? MF_NONE : MF_NO_MEMORY;
}

mf_cause mf_agent_begin(mf_agent *agent, const uint8_t *signed_bytes, size_t count) {
    mf_record *record = &agent->record;
    mf_manifest manifest;
    mf_cause cause;
    mf_image *image = &record->image[standby(agent)];
    memset(&manifest, 0, sizeof manifest);
    if (record->state == (uint8_t)MF_TRIAL) return MF_BUSY;
    cause = mf_manifest_read(agent->config, signed_bytes, count, &manifest);
    if (cause == MF_NONE) cause = judge(agent, &manifest);
    if (cause != MF_NONE) {
        if (record->state != (uint8_t)MF_RECEIVING && record->state != (uint8_t)MF_STAGED) {
            agent->rejected_cause = (uint8_t)cause;
            agent->rejected_sequence = (uint8_t)manifest.sequence;
        }
        return cause;
    }
    agent->rejected_cause = (uint8_t)MF_NONE;
    agent->manifest = manifest;
    agent->written = 0;
    image->size = 0;
    record->can_revert = 0;
    record->tries = 0;
    record->sequence = manifest.sequence;
    cause = enter(agent, MF_RECEIVING, MF_NONE);
    if (cause == MF_NONE && agent->port->erase(agent->port->context, standby(agent)) != 0)
        return fail(agent, MF_FLASH_FAILURE);
    return cause;
}

mf_cause mf_agent_stage_abort(mf_agent *agent, mf_cause cause) {
    if (agent->record.state != (uint8_t)MF_RECEIVING || cause == MF_NONE) return MF_NOT_ALLOWED;
    return enter(agent, MF_FAILED, cause);
}

mf_cause mf_agent_stage_write(mf_agent *agent, uint32_t offset, const uint8_t *data, uint32_t count) {
    if (agent->record.state != (uint8_t)MF_RECEIVING || offset != agent->written) return MF_NOT_ALLOWED;
    if (count > agent->manifest.target_size - agent->written) return fail(agent, MF_PATCH_INVALID);
    while (count > 0u) {
        uint32_t used = agent->written % MF_WRITE_UNIT, room = MF_WRITE_UNIT - used;
        uint32_t now = count < room ? count : room;
        memcpy(agent->unit + used, data, now);
        agent->written += now;
        data += now;
        count -= now;
        if (now == room && agent->port->program(agent->port->context, standby(agent), agent->written - MF_WRITE_UNIT,
                                                agent->unit, MF_WRITE_UNIT) != 0)
            return fail(agent, MF_FLASH_FAILURE);
    }
    return MF_NONE;
}

mf_cause mf_agent_stage_finish(mf_agent *agent) {
    mf_record *record = &agent->record;
    const mf_manifest *manifest = &agent->manifest;
    mf_image *image = &record->image[standby(agent)];
    uint32_t used = agent->written % MF_WRITE_UNIT;
    uint8_t digest[32];
    if (record->state != (uint8_t)MF_RECEIVING) return MF_NOT_ALLOWED;
    if (agent->written != manifest->target_size) return fail(agent, MF_PATCH_INVALID);
    if (used != 0u) {
        memset(agent->unit + used, 0xFF, MF_WRITE_UNIT - used);
        if (agent->port->program(agent->port->context, standby(agent), agent->written - used, agent->unit, MF_WRITE_UNIT) != 0)
            return fail(agent, MF_FLASH_FAILURE);
    }
    if (slot_digest(agent, standby(agent), manifest->target_size, digest) != 0) return fail(agent, MF_FLASH_FAILURE);
    if (memcmp(digest, manifest->target_digest, 32) != 0) return fail(agent, MF_BAD_DIGEST);
    image->size = manifest->target_size;
    image->sequence = manifest->sequence;
    memcpy(image->digest, digest, 32);
    memcpy(image->revert_hash, manifest->revert_hash, 16);
    memcpy(record->self_test_digest, manifest->self_test_digest, 8);
    /* only now: a transfer that was cut off may be offered again under the same sequence */
    record->highest_sequence = manifest->sequence;
    return enter(agent, MF_STAGED, MF_NONE);
}

mf_cause mf_agent_trial_begin(mf_agent *agent) {
    if (agent->record.state != (uint8_t)MF_STAGED) return MF_NOT_ALLOWED;
    agent->self_test_passed = 0;
    agent->record.tries++; /* counted before the new image runs: one that hangs must not be tried for ever */
    return enter(agent, MF_TRIAL, MF_NONE);
}

mf_cause mf_agent_trial_abort(mf_agent *agent, mf_cause cause) {
    if (agent->record.state != (uint8_t)MF_TRIAL || cause == MF_NONE) return MF_NOT_ALLOWED;
    return enter(agent, MF_REVERTED, cause);
}

mf_cause mf_agent_self_test_result(mf_agent *agent, const uint8_t digest[8]) {
    if (agent->record.state != (uint8_t)MF_TRIAL) return MF_NOT_ALLOWED;
    if (memcmp(digest, agent->record.self_test_digest, 8) != 0)
        return enter(agent, MF_REVERTED, MF_SELF_TEST_FAILED) == MF_NONE ? MF_SELF_TEST_FAILED : MF_FLASH_FAILURE;
    agent->self_test_passed = 1;
    return MF_NONE;
}

mf_cause mf_agent_confirm(mf_agent *agent) {
    mf_record *record = &agent->record;
    int previous = record->active;
    if (record->state != (uint8_t)MF_TRIAL || !agent->self_test_passed) return MF_NOT_ALLOWED;
    record->active = (uint8_t)standby(agent);
    record->can_revert = (uint8_t)(record->image[previous].size != 0u);
    record->tries = 0;
    return enter(agent, MF_CONFIRMED, MF_NONE);
}

mf_cause mf_agent_command(mf_agent *agent, const uint8_t *command, size_t count) {
    mf_record *record = &agent->record;
    int running = mf_agent_running_slot(agent), trial = record->state == (uint8_t)MF_TRIAL;
    uint8_t digest[32];
    mf_sha256 hash;
    if (count != MF_COMMAND || command[0] != 0x01u) return MF_BAD_FORMAT;
    if (running < 0) return MF_NO_PREVIOUS;
    mf_sha256_begin(&hash);
    mf_sha256_add(&hash, command + 1, MF_COMMAND - 1);
    mf_sha256_end(&hash, digest);
    if (memcmp(digest, record->image[running].revert_hash, 16) != 0) return MF_NOT_ALLOWED;
    if ((!trial && !record->can_revert) || !slot_intact(agent, 1 - running)) return MF_NO_PREVIOUS;
    agent->rejected_cause = (uint8_t)MF_NONE;
    record->active = (uint8_t)(1 - running);
    record->sequence = record->image[running].sequence; /* what is undone; highest_sequence stays */
    record->can_revert = 0;
    return enter(agent, MF_REVERTED, MF_COMMANDED);
}

int mf_agent_running_slot(const mf_agent *agent) {
    const mf_record *record = &agent->record;
    if (record->state == (uint8_t)MF_TRIAL && agent->self_test_passed) return standby(agent);
    return record->image[record->active].size == 0u || record->state == (uint8_t)MF_FALLBACK ? -1 : record->active;
}
