/* The record that survives resets: little-endian fields, then CRC-32 (IEEE 802.3). */
#include "internal.h"

enum { MAGIC = 0x4d46, BODY = 160 };

static uint32_t crc32(const uint8_t *data, size_t count) {
    uint32_t crc = 0xFFFFFFFFu;
    while (count-- > 0) {
        unsigned bit;
        crc ^= *data++;
        for (bit = 0; bit < 8u; bit++) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

static uint8_t *put32(uint8_t *at, uint32_t value) {
    unsigned i;
    for (i = 0; i < 4u; i++) *at++ = (uint8_t)(value >> (8u * i));
    return at;
}

static uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static int read_place(const mf_port *port, int place, mf_record *out) {
    uint8_t raw[MF_RECORD];
    unsigned i;
    if (port->record_read(port->context, place, raw) != 0 || get32(raw) != MAGIC || get32(raw + BODY) != crc32(raw, BODY))
        return -1;
    out->writes = get32(raw + 4);
    out->highest_sequence = get32(raw + 8);
    out->sequence = get32(raw + 12);
    out->state = raw[16];
    out->cause = raw[17];
    out->active = raw[18];
    out->tries = raw[19];
    out->can_revert = raw[20];
    memcpy(out->self_test_digest, raw + 24, 8);
    for (i = 0; i < 2u; i++) {
        const uint8_t *at = raw + 32 + 56u * i;
        out->image[i].size = get32(at);
        out->image[i].sequence = get32(at + 4);
        memcpy(out->image[i].digest, at + 8, 32);
        memcpy(out->image[i].revert_hash, at + 40, 16);
    }
    return out->active <= 1u && out->state <= (uint8_t)MF_FALLBACK ? 0 : -1;
}

int mf_journal_load(const mf_port *port, mf_record *out) {
    mf_record first, second;
    int has_first = read_place(port, 0, &first) == 0, has_second = read_place(port, 1, &second) == 0;
    if (!has_first && !has_second) return -1;
    *out = has_first && (!has_second || first.writes > second.writes) ? first : second;
    return 0;
}

int mf_journal_store(const mf_port *port, mf_record *record) {
    uint8_t raw[MF_RECORD];
    unsigned i;
    memset(raw, 0, sizeof raw);
    record->writes++;
    put32(raw, MAGIC);
    put32(raw + 4, record->writes);
    put32(raw + 8, record->highest_sequence);
    put32(raw + 12, record->sequence);
    raw[16] = record->state;
    raw[17] = record->cause;
    raw[18] = record->active;
    raw[19] = record->tries;
    raw[20] = record->can_revert;
    memcpy(raw + 24, record->self_test_digest, 8);
    for (i = 0; i < 2u; i++) {
        uint8_t *at = raw + 32 + 56u * i;
        put32(at, record->image[i].size);
        put32(at + 4, record->image[i].sequence);
        memcpy(at + 8, record->image[i].digest, 32);
        memcpy(at + 40, record->image[i].revert_hash, 16);
    }
    put32(raw + BODY, crc32(raw, BODY));
    return port->record_write(port->context, (int)(record->writes & 1u), raw);
}
