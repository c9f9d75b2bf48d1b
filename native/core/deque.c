/* deque.c - see deque.h, whose event names the comments here use. */
#include "deque.h"

#include <errno.h>
#include <stdlib.h>

int deque_init(struct deque *deque, uint64_t capacity) {
  if (capacity == 0 || (capacity & (capacity - 1)) != 0)
    return -EINVAL;
  void **slots = calloc(capacity, sizeof *slots);
  if (slots == NULL)
    return -ENOMEM;
  *deque = (struct deque){.slots = slots, .mask = capacity - 1};
  return 0;
}

void deque_destroy(struct deque *deque) {
  free(deque->slots);
}

/* How many values there are. Less than 0 where the last one was stolen from under a Reserve. Only
 * differences of positions count, so they may wrap. */
static int64_t between(uint64_t top, uint64_t bottom) {
  return (int64_t)(bottom - top);
}

/* Slots are relaxed: a thief may Read one that is being Filled again, and then fails to Take. */
static void **slot_of(const struct deque *deque, uint64_t position) {
  return &deque->slots[position & deque->mask];
}

static bool take(struct deque *deque, uint64_t top) {
  return cas_seq_cst(&deque->top, &top, top + 1);
}

bool deque_push(struct deque *deque, void *value) {
  uint64_t bottom = load_relaxed(&deque->bottom); /* relaxed: ours */
  /* Acquire, pairs with Take: the slot's last value was Read before we Fill it. */
  uint64_t top = load_acquire(&deque->top);
  if (between(top, bottom) > (int64_t)deque->mask)
    return false;
  store_relaxed(slot_of(deque, bottom), value); /* Fill */
  store_release(&deque->bottom, bottom + 1);    /* Publish, pairs with a thief's Look */
  return true;
}

void *deque_pop(struct deque *deque) {
  uint64_t bottom = load_relaxed(&deque->bottom); /* relaxed: ours */
  /* Relaxed: top never goes back, so what looks empty is. It spares an idle owner the Reserve. */
  if (between(load_relaxed(&deque->top), bottom) <= 0)
    return NULL;
  uint64_t newest = bottom - 1;
  store_seq_cst(&deque->bottom, newest);    /* Reserve, before Look; see the header, 1 */
  uint64_t top = load_seq_cst(&deque->top); /* Look, pairs with Take */
  int64_t others = between(top, newest);
  if (others > 0)
    return load_relaxed(slot_of(deque, newest)); /* Read */
  void *value = NULL;
  if (others == 0 && take(deque, top))
    value = load_relaxed(slot_of(deque, newest)); /* no other one Fills it */
  store_relaxed(&deque->bottom, bottom);          /* Restore; see the header, 3 */
  return value;
}

void *deque_newest(const struct deque *deque) {
  return load_relaxed(slot_of(deque, load_relaxed(&deque->bottom) - 1)); /* relaxed: both ours */
}

void *deque_steal(struct deque *deque) {
  for (;;) {
    uint64_t top = load_seq_cst(&deque->top);            /* Aim */
    if (between(top, load_seq_cst(&deque->bottom)) <= 0) /* Look; see the header, 1 */
      return NULL;
    void *value = load_relaxed(slot_of(deque, top)); /* Read */
    if (take(deque, top))
      return value;
  }
}

uint64_t deque_count(const struct deque *deque) {
  /* Relaxed: whoever was told of a push, as in the header, 4, sees it so, too. */
  uint64_t top = load_relaxed(&deque->top);
  int64_t count = between(top, load_relaxed(&deque->bottom));
  return count > 0 ? (uint64_t)count : 0;
}
