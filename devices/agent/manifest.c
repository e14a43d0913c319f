/* Manifest: strict COSE_Sign1 (RFC 9052, 4.2), Ed25519 (RFC 8032, 5.1.7), deterministic CBOR (RFC 8949, 4.2.1). The
 * payload is parsed only after its signature holds, so that an attacker without a key reaches the envelope alone. */
#include "internal.h"
#include "third_party/monocypher/monocypher.h"

typedef struct { const uint8_t *at; size_t left; int failed; } reader;

static const uint8_t *take(reader *in, size_t count) {
    const uint8_t *piece = in->at;
    if (in->failed || count > in->left) {
        in->failed = 1;
        return NULL;
    }
    in->at += count;
    in->left -= count;
    return piece;
}

/* Head of an item in its shortest form; lengths and values above 32 bits are refused. */
static uint32_t head(reader *in, unsigned *major) {
    const uint8_t *first = take(in, 1), *more;
    uint32_t value, width, i;
    *major = 8;
    if (first == NULL) return 0;
    value = *first & 31u;
    if (value >= 24u) {
        if (value > 26u) {
            in->failed = 1;
            return 0;
        }
        width = 1u << (value - 24u);
        more = take(in, width);
        if (more == NULL) return 0;
        value = 0;
        for (i = 0; i < width; i++) value = value << 8 | more[i];
        if (value < (width == 1u ? 24u : width == 2u ? 0x100u : 0x10000u)) in->failed = 1;
    }
    *major = *first >> 5;
    return value;
}

static uint32_t number(reader *in, uint32_t low, uint32_t high) {
    unsigned major;
    uint32_t value = head(in, &major);
    if (major != 0u || value < low || value > high) in->failed = 1;
    return value;
}

static int32_t per_mille(reader *in, int32_t low) {
    unsigned major;
    uint32_t value = head(in, &major);
    int32_t result;
    if (major > 1u || value > 1000u) {
        in->failed = 1;
        return 0;
    }
    result = major == 0u ? (int32_t)value : -1 - (int32_t)value;
    if (result < low) in->failed = 1;
    return result;
}

static uint32_t array(reader *in, uint32_t low, uint32_t high) {
    unsigned major;
    uint32_t count = head(in, &major);
    if (major != 4u || count < low || count > high) in->failed = 1;
    return count;
}

static const uint8_t *bytes(reader *in, uint32_t *count) {
    unsigned major;
    *count = head(in, &major);
    if (major != 2u) in->failed = 1;
    return take(in, *count);
}

static void fixed(reader *in, uint8_t *out, uint32_t wanted) {
    uint32_t count;
    const uint8_t *data = bytes(in, &count);
    if (data == NULL || count != wanted) in->failed = 1;
    else memcpy(out, data, wanted);
}

static int read_payload(const uint8_t *payload, size_t count, mf_manifest *out) {
    reader in;
    const uint8_t *base;
    uint32_t i;
    in.at = payload;
    in.left = count;
    in.failed = 0;
    memset(out, 0, sizeof *out);
    array(&in, 11, 11);
    number(&in, 1, 1);
    fixed(&in, out->model_id, 4);
    base = bytes(&in, &out->base_prefix_size);
    if (base != NULL && out->base_prefix_size == 8u) memcpy(out->base_prefix, base, 8);
    else if (out->base_prefix_size != 0u) in.failed = 1;
    fixed(&in, out->target_digest, 32);
    out->target_size = number(&in, 1, 0xFFFFFFFFu);
    out->sequence = number(&in, 1, 0xFFFFFFFFu);
    fixed(&in, out->class_hash, 4);
    out->codec = number(&in, 0, 255);
    fixed(&in, out->self_test_digest, 8);
    fixed(&in, out->revert_hash, 16);
    if (in.left > 0u && *in.at == 0xF6u) {
        take(&in, 1);
    } else {
        out->guard_count = array(&in, 1, 6);
        for (i = 0; i < out->guard_count && !in.failed; i++) out->guard[i] = per_mille(&in, i == 0u ? 0 : -1000);
    }
    if (in.left != 0u || (out->codec == 0u) != (out->base_prefix_size == 0u)) in.failed = 1;
    return in.failed ? -1 : 0;
}

static int signature_holds(const uint8_t *signature, const uint8_t *key, const uint8_t *payload, uint32_t count) {
    static const uint8_t PREFIX[] = {0x84, 0x6a, 'S', 'i', 'g', 'n', 'a', 't', 'u', 'r', 'e', '1', 0x43, 0xa1, 0x01, 0x27, 0x40};
    uint8_t payload_head[2], digest[64], reduced[32];
    size_t head_size = count < 24u ? 1u : 2u; /* at most 192 bytes in all: the payload length fits one byte */
    mf_sha512 hash;
    payload_head[0] = (uint8_t)(count < 24u ? 0x40u | count : 0x58u);
    payload_head[1] = (uint8_t)count;
    mf_sha512_begin(&hash);
    mf_sha512_add(&hash, signature, 32);
    mf_sha512_add(&hash, key, 32);
    mf_sha512_add(&hash, PREFIX, sizeof PREFIX);
    mf_sha512_add(&hash, payload_head, head_size);
    mf_sha512_add(&hash, payload, count);
    mf_sha512_end(&hash, digest);
    crypto_eddsa_reduce(reduced, digest);
    /* refuses S >= L as well, so a signature cannot be changed into another valid one */
    return crypto_eddsa_check_equation(signature, key, reduced) == 0;
}

mf_cause mf_manifest_read(const mf_config *config, const uint8_t *signed_bytes, size_t count, mf_manifest *out) {
    static const uint8_t HEADERS[] = {0x84, 0x43, 0xa1, 0x01, 0x27, 0xa1, 0x04, 0x44};
    reader in;
    const uint8_t *headers, *key_id, *payload, *signature;
    uint32_t payload_size, signature_size, i;
    in.at = signed_bytes;
    in.left = count;
    in.failed = count > MF_SIGNED_MAX;
    headers = take(&in, sizeof HEADERS);
    key_id = take(&in, 4);
    payload = bytes(&in, &payload_size);
    signature = bytes(&in, &signature_size);
    if (in.failed || in.left != 0u || signature_size != 64u || memcmp(headers, HEADERS, sizeof HEADERS) != 0)
        return MF_BAD_FORMAT;
    for (i = 0; i < config->key_count && i < MF_KEYS_MAX; i++) {
        uint8_t digest[32];
        mf_sha256 hash;
        mf_sha256_begin(&hash);
        mf_sha256_add(&hash, config->keys[i], 32);
        mf_sha256_end(&hash, digest);
        if (memcmp(digest, key_id, 4) != 0) continue;
        if (!signature_holds(signature, config->keys[i], payload, payload_size)) return MF_BAD_SIGNATURE;
        return read_payload(payload, payload_size, out) == 0 ? MF_NONE : MF_BAD_FORMAT;
    }
    return MF_UNKNOWN_KEY;
}
