/* stack.h - the memory that a thread runs on.
 *
 *      low                                                                    high
 *      | guard (no access) | stack, grows down  <--                            |
 *      ^ mapping           ^ low                                low + size ----^
 *
 * One private anonymous MAP_STACK mapping. A frame that overruns the stack hits the guard and gets
 * SIGSEGV instead of somebody's memory. Pages are only backed once touched.
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

/* Maps a stack; both sizes are rounded up to whole pages. -EINVAL if `size` is below
 * DROMON_STACK_SIZE_MIN, `guard` is 0, or a sum overflows; -ENOMEM if the kernel refuses. */
int stack_map(struct stack *stack, uint64_t size, uint64_t guard);

void stack_unmap(struct stack *stack);

#endif
