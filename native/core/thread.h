/* thread.h - threads made by raw clone3 that libc takes for its own.
 *
 * CPython, malloc, errno, setuid and gdb need a thread control block (TCB) of libc's, listed with
 * libc's other threads. A raw clone3 thread has none. So libc grows one and the thread takes it over:
 *
 *   Hatch     pthread_create starts an *incubator* on our stack; libc puts TCB, TLS and dtv at its
 *             top and lists it.
 *   Learn     The incubator finds the four things by which kernel and libc know it: its TID word,
 *             its clear-TID word, its robust list, its rseq area. Each is checked. If one cannot be
 *             proven the incubator Stays: it is a sound pthread on our stack.
 *   Release   It gives robust list and rseq area back to the kernel and points its clear-TID address
 *             at a word of ours (`incubator_alive`).
 *   Transfer  clone3 with exactly libc's flags makes the worker: same thread pointer, the TID word as
 *             parent_tid (the kernel writes the new TID there before the worker runs), the clear-TID
 *             word as child_tid, and the part of the stack below the incubator's frames. The
 *             incubator exits by syscall, running no libc clean-up. If clone3 fails, Release is undone
 *             and the incubator Stays.
 *   Adopt     The worker waits until `incubator_alive` is 0 (the incubator stood on the same stack),
 *             registers robust list and rseq for itself, and verifies that libc now gives its own
 *             kernel id for `pthread_self()`.
 *   Leave     It returns into the incubator's frames, so that libc's ordinary thread epilogue runs
 *             TLS destructors and frees what libc owns, and pthread_join works.
 *
 * One race is left: libc's setuid and its kin, called by one thread at the very moment of another's
 * Transfer, may signal the incubator instead of the worker, which then keeps the old rights; or the
 * signal dies with the incubator, and setuid waits for its answer for ever. Change identity before
 * a pool is opened or after, not meanwhile.
 *
 * All this rests on glibc's ways, hence "checked, never assumed": nothing is written to a place that
 * was not verified first.
 */
#ifndef DROMON_CORE_THREAD_H
#define DROMON_CORE_THREAD_H

#include "stack.h"

#include <dromon/dromon.h>
#include <pthread.h>
#include <sys/types.h>

struct thread {
  struct stack stack;
  pthread_t pthread;
  void (*fn)(void *);
  void *arg;
  char name[16];

  /* Set before fn runs. */
  pid_t tid;
  enum dromon_spawn spawn;
  int spawn_error; /* of a pthread: why it is not a clone3 thread. Of a clone3 thread: not 0 if Adopt
                      failed; then fn must touch neither libc's locks nor a language runtime, and
                      return */

  uint32_t incubator_alive; /* its TID until the kernel has cleared it */
};

/* Starts a thread named `name` (cut to 15 bytes) that runs fn(arg) on a new stack. All signals but
 * those that report a fault of the thread itself are blocked in it. `thread` must stay where it is
 * until the join. Returns a negative errno of stack_map or pthread_create. */
int thread_start(struct thread *thread, uint64_t stack_size, uint64_t guard_size, const char *name,
                 void (*fn)(void *), void *arg);

/* Waits until the thread has ended and unmaps its stack. */
void thread_join(struct thread *thread);

#endif
