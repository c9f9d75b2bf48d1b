/* spawn.c - see spawn.h. */
#include "spawn.h"

#include "atomic.h"
#include "os.h"

#include <errno.h>

static uint64_t counts[DROMON_SPAWN_PTHREAD + 1]; /* by enum dromon_spawn */

bool spawn_is_refused(int result) {
  return result == -ENOSYS || result == -EPERM;
}

void spawn_count(enum dromon_spawn spawn) {
  fetch_add_relaxed(&counts[spawn], 1); /* a count, and orders nothing */
}

uint64_t dromon_spawn_count(int32_t spawn) {
  if (spawn < 0 || spawn > DROMON_SPAWN_PTHREAD)
    return 0;
  return load_relaxed(&counts[spawn]);
}

int dromon_clone3_probe(void) {
  int result = os_clone3(NULL, 0);
  return result == -EINVAL ? 0 : result; /* it is there, and found the struct too small */
}
