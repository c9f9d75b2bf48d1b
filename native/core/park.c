/* park.c - the park node (dromon.h): who waits, and who ends the wait, on fibers and on OS threads.
 *
 * Of those who end a wait one wins the compare-and-swap, and only that one resumes the waiter. It has read
 * before which fiber that is, and does not touch the node any more: the node may be gone with the frame that
 * it was in as soon as the fiber runs.
 */
#include "atomic.h"
#include "fiber.h"
#include "os.h"
#include "pool.h"

#include <errno.h>

void dromon_park_init(dromon_park *park) {
  *park = (dromon_park){.state = DROMON_PARK_EMPTY};
}

/* Acquire, in both, pairs with end_wait: what was done before the wait was ended is visible. */

static bool is_ended(const dromon_park *park) {
  return load_acquire(&park->state) > DROMON_PARK_PARKED;
}

static int outcome(const dromon_park *park) {
  return load_acquire(&park->state) == DROMON_PARK_SET ? 0 : -ECANCELED;
}

bool park_commit(dromon_park *park, struct fiber *fiber) {
  uint32_t state = DROMON_PARK_EMPTY;
  park->fiber = fiber;
  /* acq_rel, pairs with end_wait: who finds it PARKED sees the fiber; who finds it ended, what came before. */
  return cas_acq_rel(&park->state, &state, DROMON_PARK_PARKED);
}

static int end_wait(dromon_park *park, uint32_t end) {
  struct fiber *fiber = NULL;
  uint32_t state =
      load_acquire(&park->state); /* acquire, as on failure below: pairs with park_commit */
  do {
    if (state > DROMON_PARK_PARKED)
      return 0;
    fiber = state == DROMON_PARK_PARKED ? park->fiber : NULL;
  } while (!cas_weak_acq_rel(&park->state, &state, end)); /* pairs with outcome */
  if (fiber != NULL)
    fiber_call(fiber);
  else if (state == DROMON_PARK_PARKED)
    os_futex_wake(&park->state, 1);
  return 1;
}

int dromon_park_set(dromon_park *park) {
  return end_wait(park, DROMON_PARK_SET);
}

int dromon_park_cancel(dromon_park *park) {
  return end_wait(park, DROMON_PARK_CANCELLED);
}

int dromon_park_is_over(const dromon_park *park) {
  uint32_t state = load_acquire(&park->state); /* pairs with park_commit: the fiber is there */
  if (state != DROMON_PARK_PARKED || park->fiber == NULL)
    return state == DROMON_PARK_SET || state == DROMON_PARK_CANCELLED;
  return park->fiber->timer.deadline_ns <= os_now_ns();
}

/* Waits as an OS thread. */
static int block(dromon_park *park, uint64_t deadline_ns) {
  int result = 0;
  uint32_t state = DROMON_PARK_EMPTY;
  /* It may be PARKED already, by an earlier wait that a signal has ended. Its fiber is NULL from the
   * beginning. acq_rel, as in park_commit. */
  cas_acq_rel(&park->state, &state, DROMON_PARK_PARKED);
  /* Acquire, pairs with end_wait. */
  while (load_acquire(&park->state) == DROMON_PARK_PARKED && result != -EINTR) {
    result = os_futex_wait_until(&park->state, DROMON_PARK_PARKED, deadline_ns);
    if (result == -ETIMEDOUT && dromon_park_cancel(park))
      return -ETIMEDOUT;
  }
  return load_acquire(&park->state) == DROMON_PARK_PARKED ? -EINTR : outcome(park);
}

int dromon_park_wait(dromon_park *park, int64_t timeout_ns) {
  if (is_ended(park))
    return outcome(park);
  uint64_t deadline_ns = os_deadline_after(timeout_ns);
  struct worker *worker = worker_current();
  if (worker != NULL) {
    int result = fiber_park(worker, park, deadline_ns);
    if (result != -ENOTSUP)
      return result < 0 ? result : outcome(park);
  }
  int result;
  do {
    result = block(park, deadline_ns);
  } while (result == -EINTR &&
           worker != NULL); /* by a signal of libc's own, to which nobody answers */
  return result;
}
