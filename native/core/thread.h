/* thread.h - citizen threads: made by a raw system call, and taken by libc for its own.
 *
 * CPython, malloc, errno, setuid and gdb need a thread control block (TCB) of libc's, listed with
 * libc's other threads. A raw thread has none. So libc grows one for an *incubator* on our stack, and
 * the thread takes it over: Hatch, Learn, Release, Transfer, Adopt, Leave. thread.md beside this file
 * has the protocol, and what happens when a step of it fails; code and tests use its names.
 *
 * A thread that was started is sound, whichever back end it got (enum dromon_spawn).
 */
#ifndef DROMON_CORE_THREAD_H
#define DROMON_CORE_THREAD_H

#include "stack.h"

#include <dromon/dromon.h>
#include <pthread.h>
#include <sys/types.h>

#define DROMON_NAME_DEFAULT "dromon" /* what the names of a pool's threads begin with */

struct thread_options {
  uint64_t stack_size; /* at least DROMON_STACK_SIZE_MIN */
  uint64_t guard_size;
  const char *name;        /* cut to 15 bytes */
  enum dromon_spawn spawn; /* the wish; AUTO: the first that can be had */
};

struct thread {
  struct stack stack;
  struct stack signal_stack;
  pthread_t pthread;
  void (*fn)(void *);
  void *arg;
  char name[16];
  enum dromon_spawn wish;

  /* What is true of it once thread_start has returned. */
  pid_t tid;
  enum dromon_spawn spawn;
  int spawn_error; /* why it is not a clone3 thread, if AUTO was wished; else 0 */

  /* How thread_start learns the outcome. */
  uint32_t has_begun; /* 0 until `begin_result` is there; a futex */
  int begin_result;   /* 0: it runs; or why it could not begin, and has ended */

  uint32_t incubator_alive; /* its TID until the kernel has cleared it */
};

/* Starts a thread that runs fn(arg) on a new stack, and waits until it is about to. All signals but
 * those that report a fault of the thread itself are blocked in it, and it has a signal stack.
 * `thread` must stay where it is until the join.
 *
 * Returns a negative errno if there is no such thread, and then nothing is left behind: -EINVAL for
 * options out of range; what stack_map or pthread_create answered (-EPERM where a sandbox forbids
 * clone3 in a way that libc does not take for "there is none"); why the back end that was wished cannot
 * be had; or why Adopt failed. */
int thread_start(struct thread *thread, const struct thread_options *options, void (*fn)(void *),
                 void *arg);

/* Makes `prefix`-`suffix` the name of a thread to come. The kernel would cut it at 15 bytes; the prefix
 * is cut instead, and at a whole character if it is UTF-8. The suffix must be short. */
void thread_name(char name[16], const char *prefix, const char *suffix);

/* Waits until the thread has ended and unmaps its stacks. */
void thread_join(struct thread *thread);

/* For a thread that nobody is to join, as the last thing that it does: it is joined, and `thread` freed, by
 * the next one that ends so or by thread_join_ended. So there is one such thread in the process at most that
 * has ended and still has its memory. `thread` is malloc's. */
void thread_end_unjoined(struct thread *thread);
void thread_join_ended(void);

/* The calling thread's, if it was started here; else NULL. May be asked in a signal handler. */
const struct thread *thread_current(void);

#endif
