/* arch.h - what each processor provides in assembly (one file per processor in this folder). */
#ifndef DROMON_CORE_ARCH_H
#define DROMON_CORE_ARCH_H

#include <stddef.h>

struct clone_args; /* <linux/sched.h> */

/* Moves the caller's execution to a new kernel thread, made by clone3.
 *
 * Makes a thread from `args` (of `size` bytes), which runs fn(arg) on the stack that `args` gives,
 * while the calling thread leaves by a raw `exit` system call, at once and without touching its
 * stack. When fn returns, the *new* thread returns 0 from this very call, on the caller's stack: to
 * the calling function nothing happened but that its thread has another kernel id.
 *
 * If the thread cannot be made, returns a negative errno on the calling thread.
 *
 * fn must neither return nor write to the caller's frames before the kernel has cleared the caller's
 * clear-TID word: until then the caller still stands on them. */
int arch_clone3_transfer(struct clone_args *args, size_t size, void (*fn)(void *), void *arg);

#endif
