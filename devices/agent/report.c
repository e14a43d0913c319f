/* The packed state report; layout in docs/wire-contract.md. */
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
