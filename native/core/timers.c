/* timers.c - see timers.h.
 *
 * The timer at place i is no later than those at 2 i + 1 and 2 i + 2.
 */
#include "timers.h"

#include <errno.h>
#include <stdlib.h>

static void put(struct timers *timers, uint32_t place, struct timer *timer) {
  timers->heap[place] = timer;
  timer->index = place;
}

/* Both find the place of a timer, beginning at one that is free, and put it there. */

static void sift_up(struct timers *timers, uint32_t place, struct timer *timer) {
  while (place > 0) {
    struct timer *parent = timers->heap[(place - 1) / 2];
    if (parent->deadline_ns <= timer->deadline_ns)
      break;
    uint32_t above = parent->index;
    put(timers, place, parent);
    place = above;
  }
  put(timers, place, timer);
}

static void sift_down(struct timers *timers, uint32_t place, struct timer *timer) {
  for (;;) {
    uint64_t below = 2 * (uint64_t)place + 1;
    if (below >= timers->count)
      break;
    struct timer *child = timers->heap[below];
    if (below + 1 < timers->count && timers->heap[below + 1]->deadline_ns < child->deadline_ns)
      child = timers->heap[below + 1];
    if (timer->deadline_ns <= child->deadline_ns)
      break;
    uint32_t freed = child->index;
    put(timers, place, child);
    place = freed;
  }
  put(timers, place, timer);
}

void timers_init(struct timers *timers) {
  *timers = (struct timers){0};
}

void timers_destroy(struct timers *timers) {
  for (uint32_t i = 0; i < timers->count; i++)
    timers->heap[i]->index = TIMER_IDLE;
  free(timers->heap);
}

static int make_room(struct timers *timers) {
  if (timers->count < timers->capacity)
    return 0;
  uint32_t capacity = timers->capacity == 0 ? 16 : 2 * timers->capacity;
  struct timer **grown = realloc(timers->heap, capacity * sizeof *grown);
  if (grown == NULL)
    return -ENOMEM;
  timers->heap = grown;
  timers->capacity = capacity;
  return 0;
}

int timers_add(struct timers *timers, struct timer *timer) {
  int error = make_room(timers);
  if (error == 0)
    sift_up(timers, timers->count++, timer);
  return error;
}

void timers_remove(struct timers *timers, struct timer *timer) {
  uint32_t place = timer->index;
  if (place == TIMER_IDLE)
    return;
  timer->index = TIMER_IDLE;
  struct timer *last = timers->heap[--timers->count];
  if (last == timer)
    return;
  /* The last one fills the gap. It may belong above it, as it comes from another branch. */
  sift_down(timers, place, last);
  sift_up(timers, last->index, last);
}

struct timer *timers_first(const struct timers *timers) {
  return timers->count == 0 ? NULL : timers->heap[0];
}
