/* timers.h - points of time, of which the earliest is wanted: a binary heap.
 *
 * A `struct timer` is embedded in what it is for, and must stay where it is while it is in the heap.
 * One thread at a time. Adding and removing take O(log n); equal times come in any order.
 */
#ifndef DROMON_CORE_TIMERS_H
#define DROMON_CORE_TIMERS_H

#include <stddef.h>
#include <stdint.h>

#define TIMER_IDLE UINT32_MAX

struct timer {
  uint64_t deadline_ns; /* as of os_now_ns; must not change while it is in the heap */
  uint32_t index;       /* in the heap; TIMER_IDLE: it is in none, as a timer must begin */
};

struct timers {
  struct timer **heap;
  uint32_t count;
  uint32_t capacity;
};

void timers_init(struct timers *timers);

/* Forgets all timers. */
void timers_destroy(struct timers *timers);

/* Adds an idle timer. -ENOMEM, and then it is idle still. */
int timers_add(struct timers *timers, struct timer *timer);

/* Afterwards the timer is idle, as it may have been before. */
void timers_remove(struct timers *timers, struct timer *timer);

/* The earliest, which stays where it is; NULL if there is none. */
struct timer *timers_first(const struct timers *timers);

#endif
