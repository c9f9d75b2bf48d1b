/* injection.c - see injection.h, and injection.md, whose event names the comments here use. */
#include "injection.h"

#include "os.h"

#include <errno.h>

/* dromon_task.waiting. Changed under the mutex, but for the step from WAITS to SLEEPS. */
enum {
  OUTSIDE, /* of the waiting room */
  WAITS,
  SLEEPS, /* it waits, and its submitter sleeps on this word until it does no longer */
};

int injection_init(struct injection *injection, uint64_t capacity) {
  int result = ring_init(&injection->ring, capacity);
  if (result < 0)
    return result;
  injection->waiting_count = 0;
  injection->first = injection->last = NULL;
  pthread_mutex_init(&injection->mutex, NULL); /* cannot fail on Linux with default attributes */
  return 0;
}

void injection_destroy(struct injection *injection) {
  pthread_mutex_destroy(&injection->mutex);
  ring_destroy(&injection->ring);
}

/* ---- The waiting room, all under the mutex -------------------------------------------------- */

/* The counter goes up relaxed: a pusher's Notify, which follows its unlock, orders it for whoever is
 * about to sleep. */
static void append(struct injection *injection, dromon_task *task) {
  store_relaxed(&task->waiting, WAITS);
  task->next = NULL;
  task->previous = injection->last;
  if (injection->last == NULL)
    injection->first = task;
  else
    injection->last->next = task;
  injection->last = task;
  store_relaxed(&injection->waiting_count, injection->waiting_count + 1);
}

/* Closes the gap that a task has left; its own fields may no longer be looked at. The counter goes
 * down by release, pairing with the acquire in injection_pop and injection_count: who sees a task gone
 * from the list sees it in the ring. */
static void close_gap(struct injection *injection, dromon_task *previous, dromon_task *next) {
  if (previous == NULL)
    injection->first = next;
  else
    previous->next = next;
  if (next == NULL)
    injection->last = previous;
  else
    next->previous = previous;
  store_release(&injection->waiting_count, injection->waiting_count - 1);
}

/* Lets the submitter of a task go on, if it sleeps. Only the address is used: the task may be gone. */
static void wake_submitter(dromon_task *task, uint32_t waiting) {
  if (waiting == SLEEPS)
    os_futex_wake(&task->waiting, 1);
}

static dromon_task *take_first(struct injection *injection) {
  dromon_task *task = injection->first;
  if (task != NULL) {
    close_gap(injection, NULL, task->next);
    wake_submitter(task, exchange_acq_rel(&task->waiting, OUTSIDE));
  }
  return task;
}

/* Moves the first task into the ring: false if that is full. */
static bool move_first(struct injection *injection) {
  dromon_task *task = injection->first;
  dromon_task *next = task->next;
  /* Move. First: once in the ring the task is its taker's. acq_rel, pairs with Sleep. */
  uint32_t waiting = exchange_acq_rel(&task->waiting, OUTSIDE);
  if (!ring_push(&injection->ring, task)) {
    /* Stay. A submitter that saw it OUTSIDE meanwhile has gone on a little early, which harms nobody. */
    store_relaxed(&task->waiting, waiting);
    return false;
  }
  close_gap(injection, NULL, next);
  wake_submitter(task, waiting);
  return true;
}

/* ---- Pushing -------------------------------------------------------------------------------- */

bool injection_push_nowait(struct injection *injection, dromon_task *task) {
  /* Relaxed: a stale answer costs the order of two tasks that were pushed at the same time. */
  return load_relaxed(&injection->waiting_count) == 0 && ring_push(&injection->ring, task);
}

bool injection_push(struct injection *injection, dromon_task *task) {
  if (injection_push_nowait(injection, task))
    return true;
  pthread_mutex_lock(&injection->mutex);
  bool pushed = injection->first == NULL && ring_push(&injection->ring, task);
  if (!pushed)
    append(injection, task);
  pthread_mutex_unlock(&injection->mutex);
  return pushed;
}

bool injection_remove(struct injection *injection, dromon_task *task) {
  pthread_mutex_lock(&injection->mutex);
  bool waits = load_relaxed(&task->waiting) != OUTSIDE; /* relaxed: under the mutex */
  if (waits) {
    close_gap(injection, task->previous, task->next);
    /* Its submitter may sleep while another thread takes the task out. acq_rel as in move_first. */
    wake_submitter(task, exchange_acq_rel(&task->waiting, OUTSIDE));
  }
  pthread_mutex_unlock(&injection->mutex);
  return waits;
}

int injection_await_room(struct injection *injection, dromon_task *task, int64_t timeout_ns) {
  uint64_t deadline = os_deadline_after(timeout_ns);
  uint32_t waiting = WAITS;
  int result = 0;
  /* Sleep. acq_rel, pairs with Move: either it sees that this thread sleeps, or we that it moved. */
  if (!cas_acq_rel(&task->waiting, &waiting, SLEEPS))
    return 0;
  /* OUTSIDE once is enough, and is not asked for again: it may be the moment before a Stay. */
  while (load_acquire(&task->waiting) == SLEEPS) {
    result = os_futex_wait_until(&task->waiting, SLEEPS, deadline);
    if (result == -ETIMEDOUT || result == -EINTR)
      return injection_remove(injection, task) ? result : 0;
  }
  return 0;
}

/* ---- Popping -------------------------------------------------------------------------------- */

/* Takes the oldest task, and moves as many of those that wait as fit, but not so many that others wait
 * long for the mutex. */
static dromon_task *pop_and_move(struct injection *injection) {
  enum { MOVE_AT_MOST = 64 };
  pthread_mutex_lock(&injection->mutex);
  dromon_task *oldest = ring_pop(&injection->ring);
  if (oldest == NULL)
    oldest = take_first(injection);
  for (int moved = 0; moved < MOVE_AT_MOST && injection->first != NULL; moved++) {
    if (!move_first(injection))
      break;
  }
  pthread_mutex_unlock(&injection->mutex);
  return oldest;
}

dromon_task *injection_pop(struct injection *injection) {
  if (load_acquire(&injection->waiting_count) > 0) /* pairs with the release in close_gap */
    return pop_and_move(injection);
  return ring_pop(&injection->ring);
}

uint64_t injection_count(const struct injection *injection) {
  /* The waiting room first: tasks move from there into the ring, and none must be missed on the way.
   * Acquire, pairs with the release in close_gap. */
  uint64_t waiting = load_acquire(&injection->waiting_count);
  return waiting + ring_count(&injection->ring);
}
