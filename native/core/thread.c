/* thread.c - see thread.h, whose event names the functions here bear. */
#include "thread.h"

#include "arch/arch.h"
#include "atomic.h"
#include "os.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* By what kernel and libc know the incubator, and will know the worker. */
struct identity {
  uint32_t *tid_word;       /* libc's idea of the thread's id (`pd->tid`) */
  uint32_t *clear_tid_word; /* cleared by the kernel at the end; what pthread_join waits on */
  void *robust_list;
  size_t robust_list_length;
  void *rseq; /* NULL: not registered */
  uint32_t rseq_length;
};

static uint64_t clone3_count;

uint64_t dromon_clone3_count(void) {
  return load_relaxed(&clone3_count);
}

/* ---- Learn ---------------------------------------------------------------------------------- */

/* Whether libc has this word inside the TCB of the calling thread, at the top of its stack. */
static bool lies_in_tcb(const struct thread *thread, const uint32_t *word) {
  uintptr_t address = (uintptr_t)word;
  uintptr_t top = (uintptr_t)thread->stack.low + thread->stack.size;
  return address >= (uintptr_t)pthread_self() && address <= top - sizeof *word &&
         address % sizeof *word == 0;
}

static int learn_tid_word(const struct thread *thread, struct identity *identity) {
  /* glibc's descriptor of `pd->tid` for debuggers (nptl_db): field width, count, offset. */
  const uint32_t *descriptor = dlsym(RTLD_DEFAULT, "_thread_db_pthread_tid");
  if (descriptor == NULL || descriptor[0] != 32 || descriptor[1] != 1)
    return -ENOSYS;
  uint32_t *word = (uint32_t *)(void *)((char *)pthread_self() + descriptor[2]);
  if (!lies_in_tcb(thread, word) || *word != (uint32_t)os_gettid())
    return -ENOSYS;
  identity->tid_word = word;
  return 0;
}

static int learn_clear_tid_word(const struct thread *thread, struct identity *identity) {
  /* The TID word itself up to glibc 2.42; from 2.43 a word beside it (`joinstate`). */
  int result = os_get_clear_tid(&identity->clear_tid_word);
  if (result < 0)
    return result;
  return lies_in_tcb(thread, identity->clear_tid_word) ? 0 : -ENOSYS;
}

static int learn_rseq(struct identity *identity) {
  identity->rseq = NULL;
  const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
  const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
  if (size == NULL || offset == NULL || *size == 0)
    return 0; /* an older glibc, or switched off: nothing is registered */
  identity->rseq = (char *)__builtin_thread_pointer() + *offset;
  identity->rseq_length = *size < 32 ? 32 : *size; /* 32 is the least that the kernel takes */
  return 0;
}

static int learn(const struct thread *thread, struct identity *identity) {
  int result = learn_tid_word(thread, identity);
  if (result == 0)
    result = learn_clear_tid_word(thread, identity);
  if (result == 0)
    result = os_get_robust_list(&identity->robust_list, &identity->robust_list_length);
  if (result == 0)
    result = learn_rseq(identity);
  return result;
}

/* ---- Release, and its undoing --------------------------------------------------------------- */

/* Makes the robust list and the rseq area those of the calling thread. */
static int claim(const struct identity *identity) {
  int result = os_set_robust_list(identity->robust_list, identity->robust_list_length);
  if (result == 0 && identity->rseq != NULL)
    result = os_rseq_register(identity->rseq, identity->rseq_length);
  return result;
}

static void take_back(const struct identity *identity) {
  os_set_clear_tid(identity->clear_tid_word);
  /* Both were this thread's a moment ago. Without rseq libc would ask the kernel for the CPU. */
  (void)claim(identity);
}

static int release(struct thread *thread, const struct identity *identity) {
  if (identity->rseq != NULL) {
    int result = os_rseq_unregister(identity->rseq, identity->rseq_length);
    if (result < 0)
      return result; /* not where we thought it was */
  }
  os_set_robust_list(NULL, identity->robust_list_length);
  store_relaxed(&thread->incubator_alive, (uint32_t)os_gettid());
  os_set_clear_tid(&thread->incubator_alive);
  return 0;
}

/* ---- Transfer and Adopt --------------------------------------------------------------------- */

struct transfer {
  struct thread *thread;
  const struct identity *identity;
};

/* Whether libc gives the calling thread's kernel id for its `pthread_self()`. The id is read out of
 * the thread's CPU clock: (~id << 3) | flags, see clock_getcpuclockid(3). */
static bool libc_knows_us(void) {
  clockid_t clock;
  if (pthread_getcpuclockid(pthread_self(), &clock) != 0)
    return false;
  return (pid_t) ~(clock >> 3) == os_gettid();
}

static int adopt(struct thread *thread, const struct identity *identity) {
  uint32_t alive;
  /* Acquire, pairs with the kernel's store at the incubator's end. */
  while ((alive = load_acquire(&thread->incubator_alive)) != 0)
    os_futex_wait_shared(&thread->incubator_alive, alive);

  int result = claim(identity);
  if (result == 0 && !libc_knows_us())
    result = -ESRCH;
  return result;
}

static void run(struct thread *thread) {
  thread->tid = os_gettid();
  pthread_setname_np(pthread_self(), thread->name); /* `pthread` may not be stored yet */
  thread->fn(thread->arg);
}

static void run_adopted(void *argument) {
  struct transfer *transfer = argument;
  struct thread *thread = transfer->thread;
  fetch_add_relaxed(&clone3_count, 1);
  thread->spawn = DROMON_SPAWN_CLONE3;
  thread->spawn_error = adopt(thread, transfer->identity);
  run(thread); /* fn checks spawn_error: it is too late for this thread to Stay */
}

/* What the incubator keeps below the frame of transfer(): room for its last calls, and for the frame
 * of a signal that libc itself sends it (setuid in another thread), up to 11 KiB with AMX. */
#define INCUBATOR_ROOM 32768

static int transfer(struct thread *thread, const struct identity *identity) {
  struct transfer transfer = {.thread = thread, .identity = identity};
  uintptr_t top = ((uintptr_t)__builtin_frame_address(0) - INCUBATOR_ROOM) & ~(uintptr_t)63;
  struct clone_args args = {
      .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
               CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
      .parent_tid = (uintptr_t)identity->tid_word,
      .child_tid = (uintptr_t)identity->clear_tid_word,
      .stack = (uintptr_t)thread->stack.low,
      .stack_size = top - (uintptr_t)thread->stack.low,
      .tls = (uintptr_t)__builtin_thread_pointer(),
  };
  return arch_clone3_transfer(&args, sizeof args, run_adopted, &transfer);
}

/* ---- Hatch ---------------------------------------------------------------------------------- */

/* The incubator. Its frame is also where the worker comes back to at its end. */
static void *incubate(void *argument) {
  struct thread *thread = argument;
  struct identity identity;
  int result = learn(thread, &identity);
  if (result == 0)
    result = release(thread, &identity);
  if (result == 0) {
    result = transfer(thread, &identity);
    if (result == 0)
      return NULL; /* the worker, done */
    take_back(&identity);
  }
  /* Stay. */
  thread->spawn = DROMON_SPAWN_PTHREAD;
  thread->spawn_error = result;
  run(thread);
  return NULL;
}

/* All signals go to the program's own threads, but for those that tell of this thread's own fault
 * and those that libc uses inside (32 and 33, which its functions leave open by themselves). */
static void block_signals(sigset_t *previous) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  sigset_t blocked;
  sigfillset(&blocked);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
    sigdelset(&blocked, faults[i]);
  pthread_sigmask(SIG_SETMASK, &blocked, previous);
}

int thread_start(struct thread *thread, uint64_t stack_size, uint64_t guard_size, const char *name,
                 void (*fn)(void *), void *arg) {
  *thread = (struct thread){.fn = fn, .arg = arg};
  snprintf(thread->name, sizeof thread->name, "%s", name);
  int result = stack_map(&thread->stack, stack_size, guard_size);
  if (result < 0)
    return result;

  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  result = -pthread_attr_setstack(&attributes, thread->stack.low, thread->stack.size);
  if (result == 0) {
    sigset_t previous; /* a thread begins with its creator's mask */
    block_signals(&previous);
    result = -pthread_create(&thread->pthread, &attributes, incubate, thread);
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
  }
  pthread_attr_destroy(&attributes);
  if (result < 0)
    stack_unmap(&thread->stack);
  return result;
}

void thread_join(struct thread *thread) {
  pthread_join(thread->pthread, NULL);
  stack_unmap(&thread->stack);
}
