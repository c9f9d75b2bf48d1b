/* stack.h - the memory that a thread runs on.
 *
 *      low                                                                    high
 *      | guard (no access) | stack, grows down  <--                            |
 *      ^ mapping           ^ low                                low + size ----^
 *
 * One private anonymous MAP_STACK mapping. A frame that overruns the stack hits the guard and gets
 * SIGSEGV instead of somebody's memory. Pages are only backed once touched.
 *
 * The handler of that SIGSEGV needs a place to run. So a citizen thread (thread.h) has two of these,
 * each in a mapping of its own, guard included:
 *
 *      | guard | stack                                  <--  | its own size and guard
 *      | guard | signal stack  <-- |                           what the kernel puts there + 64 KiB,
 *                                                              and a guard of one page
 */
#ifndef DROMON_CORE_STACK_H
#define DROMON_CORE_STACK_H

#include <stddef.h>
#include <stdint.h>

struct stack {
  unsigned char *low; /* lowest usable byte */
  size_t size;        /* usable bytes, whole pages */
  size_t guard;       /* bytes below `low`, whole pages */
};

/* Maps a stack; both sizes are rounded up to whole pages. -EINVAL if one is 0 or a sum overflows;
 * -ENOMEM if the kernel refuses. */
int stack_map(struct stack *stack, uint64_t size, uint64_t guard);

void stack_unmap(struct stack *stack);

/* The two halves of stack_map, for who maps several stacks at once (slabs.h).
 *
 * Rounds both sizes up to whole pages. -EINVAL if one is 0 or too large for a sum of both. */
int stack_round(uint64_t *size, uint64_t *guard);

/* Maps memory that stacks can be, without guards. -ENOMEM. */
int stack_reserve(unsigned char **mapping, uint64_t bytes);

/* How far down the stack was ever used, in bytes from its top and by whole pages: down to the lowest
 * page that is in memory. It is too little if the system has swapped out the lowest ones. */
size_t stack_used(const struct stack *stack);

#endif
