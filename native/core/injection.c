/* injection.c - see injection.h. */
#include "injection.h"

int injection_init(struct injection *injection, uint64_t capacity) {
  int result = ring_init(&injection->ring, capacity);
  if (result < 0)
    return result;
  injection->overflow_count = 0;
  injection->overflow_head = injection->overflow_tail = NULL;
  pthread_mutex_init(&injection->mutex, NULL); /* cannot fail on Linux with default attributes */
  return 0;
}

void injection_destroy(struct injection *injection) {
  pthread_mutex_destroy(&injection->mutex);
  ring_destroy(&injection->ring);
}

/* Both under the mutex. The counter goes up relaxed: a pusher's Notify, which follows its unlock,
 * orders it for whoever is about to sleep. It goes down by release, pairing with the acquire in
 * injection_pop and injection_count: who sees a task gone from the list sees it in the ring. */
static void overflow_append(struct injection *injection, dromon_task *task) {
  task->next = NULL;
  if (injection->overflow_head == NULL)
    injection->overflow_head = task;
  else
    injection->overflow_tail->next = task;
  injection->overflow_tail = task;
  store_relaxed(&injection->overflow_count, injection->overflow_count + 1);
}

static dromon_task *overflow_remove_first(struct injection *injection) {
  dromon_task *task = injection->overflow_head;
  if (task != NULL) {
    injection->overflow_head = task->next;
    store_release(&injection->overflow_count, injection->overflow_count - 1);
  }
  return task;
}

void injection_push(struct injection *injection, dromon_task *task) {
  /* Relaxed: a stale answer costs the order of two tasks that were pushed at the same time. */
  if (load_relaxed(&injection->overflow_count) == 0 && ring_push(&injection->ring, task))
    return;
  pthread_mutex_lock(&injection->mutex);
  if (injection->overflow_head != NULL || !ring_push(&injection->ring, task))
    overflow_append(injection, task);
  pthread_mutex_unlock(&injection->mutex);
}

/* Takes the oldest overflowed task and moves as many of the following ones as fit, but not so many
 * that others wait long for the mutex. */
static dromon_task *pop_overflow(struct injection *injection) {
  enum { MOVE_AT_MOST = 64 };
  pthread_mutex_lock(&injection->mutex);
  dromon_task *oldest = ring_pop(&injection->ring);
  if (oldest == NULL)
    oldest = overflow_remove_first(injection);
  for (int moved = 0; moved < MOVE_AT_MOST && injection->overflow_head != NULL; moved++) {
    dromon_task *task = injection->overflow_head;
    dromon_task *next = task->next; /* once in the ring, the task is its taker's */
    if (!ring_push(&injection->ring, task))
      break;
    injection->overflow_head = next;
    store_release(&injection->overflow_count, injection->overflow_count - 1);
  }
  pthread_mutex_unlock(&injection->mutex);
  return oldest;
}

dromon_task *injection_pop(struct injection *injection) {
  if (load_acquire(&injection->overflow_count) > 0) /* pairs with the releases above */
    return pop_overflow(injection);
  return ring_pop(&injection->ring);
}

uint64_t injection_count(const struct injection *injection) {
  /* The list first: tasks move from there into the ring, and none must be missed on the way.
   * Acquire, pairs with the releases above. */
  uint64_t overflow = load_acquire(&injection->overflow_count);
  return overflow + ring_count(&injection->ring);
}
