/* ring.h - a bounded queue for many producers and many consumers, without locks.
 *
 * Dmitry Vyukov's ring (1024cores.net, "Bounded MPMC queue"): each cell carries a sequence number
 * that says whose turn it is. A cell at index i is free for the producer of position p when its
 * sequence is p, and full for the consumer of position p when it is p + 1.
 *
 * Guarantees: every pushed pointer is popped exactly once; what one producer pushes is popped in its
 * order; neither call ever waits. Positions have 64 bits and do not wrap.
 *
 * Mind: a producer that has claimed a cell and was preempted before filling it makes the ring look
 * empty, though later cells are full. Who sleeps on "empty" is safe only because every producer
 * notifies after every push (eventcount.md), the preempted one too, once it goes on. And a consumer that
 * was preempted before it had emptied its cell makes the ring look full to who comes round to that cell,
 * though others are free.
 */
#ifndef DROMON_CORE_RING_H
#define DROMON_CORE_RING_H

#include "atomic.h"

#include <stdint.h>

struct ring_cell {
  uint64_t sequence;
  void *value;
};

struct ring {
  struct ring_cell *cells;
  uint64_t mask; /* capacity - 1 */
  _Alignas(CACHE_LINES) uint64_t push_position;
  _Alignas(CACHE_LINES) uint64_t pop_position;
};

/* `capacity`: a power of two, at least 2 (with one cell, "full" and "next lap" look the same).
 * -EINVAL or -ENOMEM. */
int ring_init(struct ring *ring, uint64_t capacity);
void ring_destroy(struct ring *ring);

/* False if the ring is full. `value` is not NULL. */
bool ring_push(struct ring *ring, void *value);

/* NULL if the ring is, or looks, empty. */
void *ring_pop(struct ring *ring);

/* How many values are between the two positions right now. */
uint64_t ring_count(const struct ring *ring);

#endif
