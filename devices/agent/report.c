/* The packed state report and the health report; layouts in docs/wire-contract.md. */
#include "internal.h"

void mf_agent_state_report(const mf_agent *agent, uint8_t out[MF_STATE_REPORT]) {
    const mf_record *record = &agent->record;
    int running = mf_agent_running_slot(agent), rejected = agent->rejected_cause != (uint8_t)MF_NONE;
    int active = running < 0 ? record->active : running;
    memset(out, 0, MF_STATE_REPORT);
    out[0] = (uint8_t)(0x10u | (rejected ? (unsigned)MF_REJECTED : record->state));
    out[1] = rejected ? agent->rejected_cause : record->cause;
    if (running >= 0) memcpy(out + 2, record->image[active].digest, 4);
    if (record->image[1 - active].size != 0u) memcpy(out + 6, record->image[1 - active].digest, 4);
    out[10] = rejected ? agent->rejected_sequence : (uint8_t)record->sequence;
}

/* One head of CBOR in its shortest form (RFC 8949, 4.2.1). */
static uint8_t *head(uint8_t *at, unsigned major, uint32_t value) {
    unsigned width = value < 24u ? 0u : value < 256u ? 1u : value < 65536u ? 2u : 4u;
    *at++ = (uint8_t)(major << 5 | (width == 0u ? value : width == 1u ? 24u : width == 2u ? 25u : 26u));
    while (width-- > 0u) *at++ = (uint8_t)(value >> (8u * width));
    return at;
}

size_t mf_health_encode(const mf_health *health, uint8_t out[MF_HEALTH_MAX]) {
    const uint32_t counters[] = {health->low_confidence, health->out_of_bounds, health->fallbacks,
                                 health->shadow_disagreements, health->deadline_misses, health->p99_latency_us,
                                 health->resets};
    uint32_t classes = health->class_count < MF_CLASSES_MAX ? health->class_count : MF_CLASSES_MAX;
    int32_t rate = health->sample_rate_error_ppm;
    int arena = health->arena_used_bytes != 0u; /* the second layout only where it says more */
    uint8_t *at = head(out, 4u, arena ? 15u : 14u);
    at = head(head(at, 0u, arena ? 2u : 1u), 2u, 4u);
    memcpy(at, health->active_prefix, 4);
    at = head(head(at + 4, 0u, health->inferences), 4u, classes);
    for (uint32_t i = 0; i < classes; i++) at = head(at, 0u, health->class_counts[i]);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++) at = head(at, 0u, counters[i]);
    at = rate < 0 ? head(at, 1u, (uint32_t)(-(rate + 1))) : head(at, 0u, (uint32_t)rate);
    at = head(at, 0u, health->battery_mv);
    if (arena) at = head(at, 0u, health->arena_used_bytes);
    *at++ = 0xf6u; /* nil */
    return (size_t)(at - out);
}

size_t mf_health_part(const uint8_t *report, size_t count, uint8_t report_id, size_t part_bytes, size_t index,
                      uint8_t out[MF_HEALTH_PART]) {
    size_t room, parts, size;
    if (part_bytes < 4u || part_bytes > MF_HEALTH_PART) return 0;
    room = part_bytes - 3u;
    parts = (count + room - 1u) / room;
    if (parts > 16u || index >= parts) return 0;
    size = index + 1u < parts ? room : count - index * room;
    out[0] = (uint8_t)(0x20u | index);
    out[1] = report_id;
    out[2] = (uint8_t)parts;
    memcpy(out + 3, report + index * room, size);
    return size + 3u;
}
