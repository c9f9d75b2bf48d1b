/* slabs.h - many stacks of one size, which come and go.
 *
 * A slab is one mapping (stack.h) of several slots, each a guard and a stack:
 *
 *      low                                                              high
 *      | guard | stack  <-- | guard | stack  <-- | guard | stack  <-- | ...
 *
 * A mapping for each stack would be two or three of the 65,530 that a process may have. Where the
 * kernel has guards that need no mapping of their own (MADV_GUARD_INSTALL, Linux 6.13), a slab stays
 * one mapping, which also merges with its neighbours. Elsewhere its guards are made by mprotect.
 *
 * Guarantees: an overrun of a stack gets SIGSEGV. A stack that was given back holds no memory but page
 * tables (unless the process locks its memory). Of the slabs without a stack in use one is kept at most.
 * Stacks at low addresses are taken first, so that the other slabs become empty.
 *
 * The number of stacks in use is limited for the whole process, to what leaves enough mappings to
 * everybody else (slabs_limit): CPython, for one, does not survive that there are no more.
 *
 * All functions but init and destroy may be called by any thread at any time.
 */
#ifndef DROMON_CORE_SLABS_H
#define DROMON_CORE_SLABS_H

#include "stack.h"

#include <pthread.h>

struct slab;

struct slabs {
  pthread_mutex_t mutex;
  uint64_t stack_size;
  uint64_t guard_size;
  struct slab *slabs; /* by address */
  size_t count;
  size_t capacity;
  size_t first;    /* no slab before this one has a free slot */
  size_t empty;    /* slabs without a stack in use: 0 or 1, unless an unmapping failed */
  uint64_t in_use; /* stacks */
};

/* Both sizes are rounded up to whole pages. -EINVAL if one is 0 or too large. */
int slabs_init(struct slabs *slabs, uint64_t stack_size, uint64_t guard_size);

/* Unmaps all stacks, also those that were not given back. Nobody may be on one. */
void slabs_destroy(struct slabs *slabs);

/* Takes a stack. -EAGAIN if as many as may be are in use in this process, -ENOMEM if the kernel refuses
 * the memory. */
int slabs_take(struct slabs *slabs, struct stack *stack);

/* Gives back a stack that was taken here, by a thread that is not on it. */
void slabs_give(struct slabs *slabs, const struct stack *stack);

/* How many of these stacks are in use right now. */
uint64_t slabs_in_use(struct slabs *slabs);

/* How many bytes of address space these stacks take, guards and those that are free included. */
uint64_t slabs_reserved(struct slabs *slabs);

/* How many stacks may be in use in this process: with guards that need no mapping, three quarters of
 * vm.max_map_count, as each may cost one (a neighbour that does not merge, or what else a fiber needs); else
 * a quarter, as each costs three (guard, stack, and one more). Read once. */
uint64_t slabs_limit(void);

#endif
