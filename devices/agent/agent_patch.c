/* A patch on its way into the standby slot: the decoder reads the active slot and what it has written so far. */
#include "internal.h"
#include "patch.h"

typedef struct { const mf_agent *agent; int active; } source;

static int read_active(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    const source *from = (const source *)context;
    return from->agent->port->read(from->agent->port->context, from->active, offset, out, count);
}

static int read_standby(void *context, uint32_t offset, uint8_t *out, uint32_t count) {
    const source *from = (const source *)context;
    return from->agent->port->read(from->agent->port->context, 1 - from->active, offset, out, count);
}

mf_cause mf_agent_patch_begin(mf_agent *agent, void *decoder) {
    uint32_t codec = agent->manifest.codec;
    if (agent->record.state != (uint8_t)MF_RECEIVING || codec < MF_CODEC_PATCH_S || codec > MF_CODEC_PATCH_L) return MF_NOT_ALLOWED;
    mf_patch_begin((mf_patch *)decoder, codec == MF_CODEC_PATCH_S ? 1u : 3u);
    return MF_NONE;
}

mf_cause mf_agent_patch_write(mf_agent *agent, void *decoder, const uint8_t *data, size_t count, int last) {
    source from = {agent, agent->record.active};
    mf_patch_base base = {&from, read_active, read_standby, agent->record.image[agent->record.active].size};
    mf_patch *patch = (mf_patch *)decoder;
    mf_patch_status status;
    mf_cause cause = MF_NONE;
    if (agent->record.state != (uint8_t)MF_RECEIVING) return MF_NOT_ALLOWED;
    do {
        status = mf_patch_run(patch, &base, &data, &count, last);
        if (status == MF_PATCH_OUTPUT || status == MF_PATCH_DONE)
            cause = mf_agent_stage_write(agent, agent->written, patch->out, patch->out_ready);
    } while (status == MF_PATCH_OUTPUT && cause == MF_NONE);
    if (status == MF_PATCH_BAD || status == MF_PATCH_READ_FAILED) {
        cause = status == MF_PATCH_BAD ? MF_PATCH_INVALID : MF_FLASH_FAILURE;
        return mf_agent_stage_abort(agent, cause) == MF_NONE ? cause : MF_FLASH_FAILURE;
    }
    return cause;
}
