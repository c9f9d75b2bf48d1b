/* placement.c - see placement.h. */
#include "placement.h"

#include "os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int placement_copy(const dromon_placement *placement, uint32_t workers, dromon_placement *copy) {
  uint64_t *cpus = NULL;
  if (placement->cpus != NULL) {
    if (placement->cpu_words == 0)
      return -EINVAL;
    size_t bytes = (size_t)workers * placement->cpu_words * sizeof *cpus;
    cpus = malloc(bytes);
    if (cpus == NULL)
      return -ENOMEM;
    memcpy(cpus, placement->cpus, bytes);
  }
  *copy = *placement;
  copy->cpus = cpus;
  return 0;
}

void placement_free(dromon_placement *copy) {
  free((void *)copy->cpus);
}

int placement_apply(const dromon_placement *placement, uint32_t worker) {
  int result = 0;
  if (placement->cpus != NULL) {
    const uint64_t *cpus = placement->cpus + (size_t)worker * placement->cpu_words;
    result = os_set_affinity(cpus, placement->cpu_words * sizeof *cpus);
  }
  if (result == 0 && placement->policy >= 0)
    result = os_set_scheduler(placement->policy);
  if (result == 0 && placement->nice != 0)
    result = os_add_nice(placement->nice);
  return result;
}

static void note_cpus(struct own_state *state) {
  int bytes = os_get_affinity(state->cpus, sizeof state->cpus);
  state->cpu_bytes = bytes < 0 ? 0 : (size_t)bytes;
}

void own_state_note(struct own_state *state) {
  note_cpus(state);
  state->signal_mask = os_get_blocked_signals();
  os_get_name(state->name);
  memcpy(state->shown, state->name, sizeof state->shown);
  state->shown_is_known = true;
}

/* Each compares first: reading is cheaper than writing, and a change is rare. */

static void restore_mask(const struct own_state *state) {
  if (os_get_blocked_signals() != state->signal_mask)
    os_set_blocked_signals(state->signal_mask);
}

static void restore_cpus(struct own_state *state) {
  struct own_state now;
  note_cpus(&now);
  if (now.cpu_bytes == state->cpu_bytes && memcmp(now.cpus, state->cpus, now.cpu_bytes) != 0) {
    os_set_affinity(state->cpus, state->cpu_bytes);
    note_cpus(state);
  }
}

/* At least: the system call itself, and reading the clock around the task. */
enum {
  MASK_CHANGE_NS = 60,
  CPUS_CHANGE_NS = 150,
  NAME_CHANGE_NS = 1000,
};

void own_state_restore(struct own_state *state, uint64_t task_ns) {
  if (task_ns >= MASK_CHANGE_NS)
    restore_mask(state);
  if (task_ns >= CPUS_CHANGE_NS)
    restore_cpus(state);
  if (task_ns >= NAME_CHANGE_NS)
    state->shown_is_known = false;
}

void own_name_set(struct own_state *state, const char *name) {
  if (name == NULL)
    name = state->name;
  if (state->shown_is_known && strncmp(name, state->shown, sizeof state->shown - 1) == 0)
    return;
  snprintf(state->shown, sizeof state->shown, "%s", name);
  state->shown_is_known = true;
  os_set_name(state->shown);
}
