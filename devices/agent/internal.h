/* Shared by the files of the agent; not part of its interface. */
#ifndef MODELFLEET_INTERNAL_H
#define MODELFLEET_INTERNAL_H
#include "modelfleet_agent.h"
#include <string.h>

typedef struct { uint32_t state[8]; uint64_t length; uint8_t block[64]; } mf_sha256;
typedef struct { uint64_t state[8]; uint64_t length; uint8_t block[128]; } mf_sha512;
void mf_sha256_begin(mf_sha256 *hash);
void mf_sha256_add(mf_sha256 *hash, const uint8_t *data, size_t count);
void mf_sha256_end(mf_sha256 *hash, uint8_t digest[32]);
void mf_sha512_begin(mf_sha512 *hash);
void mf_sha512_add(mf_sha512 *hash, const uint8_t *data, size_t count);
void mf_sha512_end(mf_sha512 *hash, uint8_t digest[64]);

/* journal.c: the newest whole record of the two places; write goes over the older one. */
int mf_journal_load(const mf_port *port, mf_record *out);
int mf_journal_store(const mf_port *port, mf_record *record);
#endif
