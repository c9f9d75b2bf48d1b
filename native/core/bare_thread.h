/* bare_thread.h - threads without libc (its functions are public, in dromon.h).
 *
 * A bare thread is what the kernel makes and no more: a stack, a function, and an id that the kernel
 * clears at its end. libc does not know of it.
 *
 *      low                                                          high
 *      | guard | stack, grows down  <--                | arch_bare |
 *                                                      ^ where its stack pointer begins
 *
 * The stack belongs to the thread until the kernel has cleared `alive`, which it does when the thread
 * can no longer touch it. A word that the thread itself cleared would come too early.
 */
#ifndef DROMON_CORE_BARE_THREAD_H
#define DROMON_CORE_BARE_THREAD_H

#include "stack.h"

#include <dromon/dromon.h>
#include <sys/types.h>

struct dromon_bare_thread {
  struct stack stack;
  pid_t tid;
  uint32_t alive; /* its TID until the kernel has cleared it */
};

#endif
