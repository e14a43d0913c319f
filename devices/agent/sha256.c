/* SHA-256, FIPS 180-4. Streaming, one block of 64 bytes buffered. */
#include "internal.h"

static const uint32_t ROUND[64] = {
    0x428a2f98u, 0x71374491u, 0xb5c0fbcfu, 0xe9b5dba5u,
    0x3956c25bu, 0x59f111f1u, 0x923f82a4u, 0xab1c5ed5u,
    0xd807aa98u, 0x12835b01u, 0x243185beu, 0x550c7dc3u,
    0x72be5d74u, 0x80deb1feu, 0x9bdc06a7u, 0xc19bf174u,
    0xe49b69c1u, 0xefbe4786u, 0x0fc19dc6u, 0x240ca1ccu,
    0x2de92c6fu, 0x4a7484aau, 0x5cb0a9dcu, 0x76f988dau,
    0x983e5152u, 0xa831c66du, 0xb00327c8u, 0xbf597fc7u,
    0xc6e00bf3u, 0xd5a79147u, 0x06ca6351u, 0x14292967u,
    0x27b70a85u, 0x2e1b2138u, 0x4d2c6dfcu, 0x53380d13u,
    0x650a7354u, 0x766a0abbu, 0x81c2c92eu, 0x92722c85u,
    0xa2bfe8a1u, 0xa81a664bu, 0xc24b8b70u, 0xc76c51a3u,
    0xd192e819u, 0xd6990624u, 0xf40e3585u, 0x106aa070u,
    0x19a4c116u, 0x1e376c08u, 0x2748774cu, 0x34b0bcb5u,
    0x391c0cb3u, 0x4ed8aa4au, 0x5b9cca4fu, 0x682e6ff3u,
    0x748f82eeu, 0x78a5636fu, 0x84c87814u, 0x8cc70208u,
    0x90befffau, 0xa4506cebu, 0xbef9a3f7u, 0xc67178f2u,
};

static uint32_t rotate(uint32_t value, unsigned by) { return (value >> by) | (value << (32u - by)); }

static void compress(mf_sha256 *hash) {
    uint32_t w[16], v[8];
    unsigned i, k;
    memcpy(v, hash->state, sizeof v);
    for (i = 0; i < 64u; i++) {
        uint32_t x = 0;
        if (i < 16u) {
            for (k = 0; k < 4u; k++) x = (x << 8) | hash->block[4u * i + k];
            w[i] = x;
        } else {
            uint32_t y = w[(i - 15u) & 15u], z = w[(i - 2u) & 15u];
            w[i & 15u] += (rotate(y, 7) ^ rotate(y, 18) ^ (y >> 3)) + w[(i - 7u) & 15u] +
                          (rotate(z, 17) ^ rotate(z, 19) ^ (z >> 10));
            x = w[i & 15u];
        }
        {
            uint32_t t = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) +
                         ((v[4] & v[5]) ^ (~v[4] & v[6])) + ROUND[i] + x;
            uint32_t u = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) +
                         ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            for (k = 7; k > 0; k--) v[k] = v[k - 1u];
            v[4] += t;
            v[0] = t + u;
        }
    }
    for (k = 0; k < 8u; k++) hash->state[k] += v[k];
}

void mf_sha256_begin(mf_sha256 *hash) {
    static const uint32_t INITIAL[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
        0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
    memcpy(hash->state, INITIAL, sizeof hash->state);
    hash->length = 0;
}

void mf_sha256_add(mf_sha256 *hash, const uint8_t *data, size_t count) {
    while (count > 0) {
        size_t used = (size_t)(hash->length % 64u), room = 64u - used;
        size_t now = count < room ? count : room;
        memcpy(hash->block + used, data, now);
        hash->length += now;
        data += now;
        count -= now;
        if (now == room) compress(hash);
    }
}

void mf_sha256_end(mf_sha256 *hash, uint8_t digest[32]) {
    uint64_t bits = hash->length * 8u;
    size_t used = (size_t)(hash->length % 64u);
    unsigned i;
    hash->block[used++] = 0x80;
    if (used > 56u) {
        memset(hash->block + used, 0, 64u - used);
        compress(hash);
        used = 0;
    }
    memset(hash->block + used, 0, 64u - used);
    for (i = 0; i < 8u; i++) hash->block[63u - i] = (uint8_t)(bits >> (8u * i));
    compress(hash);
    for (i = 0; i < 32u; i++)
        digest[i] = (uint8_t)(hash->state[i / 4u] >> (24u - 8u * (i % 4u)));
}
