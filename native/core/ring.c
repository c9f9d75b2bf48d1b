/* ring.c - see ring.h. */
#include "ring.h"

#include <errno.h>
#include <stdlib.h>

int ring_init(struct ring *ring, uint64_t capacity) {
  if (capacity < 2 || (capacity & (capacity - 1)) != 0)
    return -EINVAL;
  struct ring_cell *cells = calloc(capacity, sizeof *cells);
  if (cells == NULL)
    return -ENOMEM;
  for (uint64_t i = 0; i < capacity; i++)
    cells[i].sequence = i;
  *ring = (struct ring){.cells = cells, .mask = capacity - 1};
  return 0;
}

void ring_destroy(struct ring *ring) {
  free(ring->cells);
}

bool ring_push(struct ring *ring, void *value) {
  uint64_t position = load_relaxed(&ring->push_position);
  for (;;) {
    struct ring_cell *cell = &ring->cells[position & ring->mask];
    /* Pairs with the release in ring_pop: the cell's last value was read before we overwrite it. */
    int64_t lead = (int64_t)(load_acquire(&cell->sequence) - position);
    if (lead < 0)
      return false;
    if (lead > 0)
      position = load_relaxed(&ring->push_position);
    /* Relaxed: the claim orders nothing, the sequence does. */
    else if (cas_weak_relaxed(&ring->push_position, &position, position + 1)) {
      cell->value = value;
      /* Pairs with the acquire in ring_pop: who sees the sequence sees the value. */
      store_release(&cell->sequence, position + 1);
      return true;
    }
  }
}

void *ring_pop(struct ring *ring) {
  uint64_t position = load_relaxed(&ring->pop_position);
  for (;;) {
    struct ring_cell *cell = &ring->cells[position & ring->mask];
    /* Pairs with the release in ring_push. */
    int64_t lead = (int64_t)(load_acquire(&cell->sequence) - (position + 1));
    if (lead < 0)
      return NULL;
    if (lead > 0)
      position = load_relaxed(&ring->pop_position);
    else if (cas_weak_relaxed(&ring->pop_position, &position, position + 1)) {
      void *value = cell->value;
      /* Pairs with the acquire in ring_push, one lap later. */
      store_release(&cell->sequence, position + ring->mask + 1);
      return value;
    }
  }
}

uint64_t ring_count(const struct ring *ring) {
  uint64_t popped = load_relaxed(&ring->pop_position);
  uint64_t pushed = load_relaxed(&ring->push_position);
  return pushed > popped ? pushed - popped : 0;
}
