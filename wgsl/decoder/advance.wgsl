// The end of a step: one invocation makes the chosen id the next of the sequence, and its position
// the first.
//
// Grid: one workgroup of one invocation.
//
// Defines: main.

@group(0) @binding(0) var<storage, read_write> t_ids: array<u32>;  // of the whole sequence
@group(0) @binding(1) var<storage, read> t_choice: array<u32>;  // bits of the logit, id
@group(0) @binding(7) var<storage, read_write> t_state: array<u32>;  // position of the first row, rows

@compute @workgroup_size(1)
fn main(@builtin(local_invocation_index) lane: u32) {
    let next = t_state[0] + t_state[1];
    t_ids[next] = t_choice[1];
    t_state[0] = next;
    t_state[1] = 1u;
}
