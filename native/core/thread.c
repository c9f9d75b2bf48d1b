/* thread.c - see thread.h and thread.md, whose event names the functions here bear. */
#include "thread.h"

#include "arch/arch.h"
#include "atomic.h"
#include "os.h"
#include "spawn.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* By what kernel and libc know the incubator, and will know the worker. */
struct identity {
  uint32_t *tid_word;       /* libc's idea of the thread's id (`pd->tid`) */
  uint32_t *clear_tid_word; /* cleared by the kernel at the end; what pthread_join waits on */
  void *robust_list;        /* NULL: there are none here */
  size_t robust_list_length;
  void *rseq; /* NULL: not registered */
  uint32_t rseq_length;
};

/* Initial-exec, so that reading it in a signal handler calls nothing of libc's. */
static _Thread_local const struct thread *current __attribute__((tls_model("initial-exec")));

const struct thread *thread_current(void) {
  return current;
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
  /* The TID word itself up to glibc 2.42; from 2.43 a word beside it (`joinstate`). Either is not 0
   * while the thread lives, which is what a join waits for. What stands between us and the kernel may
   * also say yes and tell a word of its own (qemu-user before 9), or none. */
  identity->clear_tid_word = NULL;
  int result = os_get_clear_tid(&identity->clear_tid_word);
  if (result < 0)
    return result;
  if (!lies_in_tcb(thread, identity->clear_tid_word) || *identity->clear_tid_word == 0)
    return -ENOSYS;
  return 0;
}

static int learn_robust_list(struct identity *identity) {
  int result = os_get_robust_list(&identity->robust_list, &identity->robust_list_length);
  if (result != -ENOSYS)
    return result;
  identity->robust_list = NULL; /* qemu-user has no such lists */
  return 0;
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
    result = learn_robust_list(identity);
  if (result == 0)
    result = learn_rseq(identity);
  return result;
}

/* ---- Release, and its undoing --------------------------------------------------------------- */

/* Makes the robust list and the rseq area those of the calling thread. */
static int claim(const struct identity *identity) {
  int result = 0;
  if (identity->robust_list != NULL)
    result = os_set_robust_list(identity->robust_list, identity->robust_list_length);
  if (result == 0 && identity->rseq != NULL)
    result = os_rseq_register(identity->rseq, identity->rseq_length);
  return result;
}

static void take_back(const struct identity *identity) {
  os_set_clear_tid(identity->clear_tid_word);
  /* Both were this thread's a moment ago. Without rseq libc would ask the kernel for the CPU. */
  (void)claim(identity);
}

/* Whether the kernel has taken the word that it was given: set_tid_address tells no failure, and a sandbox
 * may refuse it or only say yes. */
static bool is_clear_tid_word(const uint32_t *word) {
  uint32_t *told = NULL;
  return os_get_clear_tid(&told) == 0 && told == word;
}

static int release(struct thread *thread, const struct identity *identity) {
  if (identity->rseq != NULL) {
    int result = os_rseq_unregister(identity->rseq, identity->rseq_length);
    if (result < 0)
      return result; /* not where we thought it was */
  }
  if (identity->robust_list != NULL)
    os_set_robust_list(NULL, identity->robust_list_length);
  store_relaxed(&thread->incubator_alive, (uint32_t)os_gettid());
  os_set_clear_tid(&thread->incubator_alive);
  if (!is_clear_tid_word(&thread->incubator_alive)) {
    take_back(identity);
    return -ENOSYS;
  }
  return 0;
}

/* ---- Running -------------------------------------------------------------------------------- */

/* Tells thread_start the outcome. */
static void tell(struct thread *thread, int result) {
  thread->begin_result = result;
  store_release(&thread->has_begun, 1); /* pairs with the acquire in await_begin */
  os_futex_wake(&thread->has_begun, 1);
}

static int await_begin(const struct thread *thread) {
  while (load_acquire(&thread->has_begun) == 0)
    os_futex_wait(&thread->has_begun, 0);
  return thread->begin_result;
}

static void restore_signal_stack(void *previous) {
  sigaltstack(previous, NULL);
}

static void run(struct thread *thread) {
  const struct stack *signal_stack = &thread->signal_stack;
  stack_t own = {.ss_sp = signal_stack->low, .ss_size = signal_stack->size};
  stack_t previous;
  spawn_count(thread->spawn);
  thread->tid = os_gettid();
  current = thread;
  sigaltstack(&own, &previous);
  /* Also at pthread_exit: a sanitizer, for one, frees at a thread's end what stack it then finds. */
  pthread_cleanup_push(restore_signal_stack, &previous);
  pthread_setname_np(pthread_self(), thread->name);
  tell(thread, 0);
  errno = 0; /* a query that was refused on the way leaves no trace */
  thread->fn(thread->arg);
  pthread_cleanup_pop(1);
}

/* ---- Adopt ---------------------------------------------------------------------------------- */

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
    os_futex_wait_shared(&thread->incubator_alive, alive, OS_NO_DEADLINE);

  int result = claim(identity);
  if (result == 0 && !libc_knows_us())
    result = -ESRCH;
  return result;
}

static void run_adopted(void *argument) {
  struct transfer *transfer = argument;
  int result = adopt(transfer->thread, transfer->identity);
  if (result == 0)
    run(transfer->thread);
  else
    tell(transfer->thread, result); /* too late for this thread to Stay: it ends */
}

/* ---- Transfer ------------------------------------------------------------------------------- */

/* By clone3 or, where that is refused or was not wished, by clone. 0 on the worker, when it is done; a
 * negative errno on the incubator, clone3's if both were tried. */
static int transfer_by_call(struct clone_args *args, struct transfer *transfer) {
  struct thread *thread = transfer->thread;
  int refusal = 0;
  if (thread->wish != DROMON_SPAWN_CLONE) {
    thread->spawn = DROMON_SPAWN_CLONE3;
    refusal = arch_clone3_transfer(args, sizeof *args, run_adopted, transfer);
    /* In this order: at 0 the worker is done, and `thread` may be gone with its pool. */
    if (!spawn_is_refused(refusal) || thread->wish == DROMON_SPAWN_CLONE3)
      return refusal;
  }
  thread->spawn = DROMON_SPAWN_CLONE;
  thread->spawn_error = refusal;
  int result = arch_clone_transfer(args, run_adopted, transfer);
  return result < 0 && refusal < 0 ? refusal : result;
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
  return transfer_by_call(&args, &transfer);
}

/* ---- Hatch ---------------------------------------------------------------------------------- */

/* Moves the calling thread into one of ours. 0 on that one, when it is done; a negative errno on the
 * incubator, as if nothing had been. */
static int hand_over(struct thread *thread) {
  struct identity identity;
  int result = learn(thread, &identity);
  if (result == 0)
    result = release(thread, &identity);
  if (result == 0) {
    result = transfer(thread, &identity);
    if (result < 0)
      take_back(&identity);
  }
  return result;
}

/* The incubator. Its frame is also where the worker comes back to at its end. */
static void *incubate(void *argument) {
  struct thread *thread = argument;
  int result = 0;
  if (thread->wish != DROMON_SPAWN_PTHREAD) {
    result = hand_over(thread);
    if (result == 0)
      return NULL; /* the worker, done */
    if (thread->wish != DROMON_SPAWN_AUTO) {
      tell(thread, result);
      return NULL;
    }
  }
  /* Stay. */
  thread->spawn = DROMON_SPAWN_PTHREAD;
  thread->spawn_error = result;
  run(thread);
  return NULL;
}

static int map_stacks(struct thread *thread, const struct thread_options *options) {
  enum { SIGNAL_HANDLER_ROOM = 65536 };
  int result = stack_map(&thread->stack, options->stack_size, options->guard_size);
  if (result < 0)
    return result;
  result = stack_map(&thread->signal_stack, os_signal_frame_size() + SIGNAL_HANDLER_ROOM, 1);
  if (result < 0)
    stack_unmap(&thread->stack);
  return result;
}

static void unmap_stacks(struct thread *thread) {
  stack_unmap(&thread->stack);
  stack_unmap(&thread->signal_stack);
}

/* pthread_create on our stack, for an incubator that begins with the signals blocked that a worker
 * shall have blocked: all go to the program's own threads, but for those that tell of this thread's own
 * fault and those that libc uses inside. */
static int hatch(struct thread *thread) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  int result = -pthread_attr_setstack(&attributes, thread->stack.low, thread->stack.size);
  if (result == 0) {
    uint64_t previous = os_set_blocked_signals(~(OS_FAULT_SIGNALS | OS_LIBC_SIGNALS));
    result = -pthread_create(&thread->pthread, &attributes, incubate, thread);
    os_set_blocked_signals(previous);
  }
  pthread_attr_destroy(&attributes);
  return result;
}

int thread_start(struct thread *thread, const struct thread_options *options, void (*fn)(void *),
                 void *arg) {
  if (options->stack_size < DROMON_STACK_SIZE_MIN || options->spawn > DROMON_SPAWN_PTHREAD)
    return -EINVAL;
  *thread = (struct thread){.fn = fn, .arg = arg, .wish = options->spawn};
  snprintf(thread->name, sizeof thread->name, "%s", options->name);
  int result = map_stacks(thread, options);
  if (result < 0)
    return result;
  result = hatch(thread);
  if (result < 0) {
    unmap_stacks(thread);
    return result;
  }
  result = await_begin(thread);
  if (result < 0)
    thread_join(thread);
  return result;
}

void thread_name(char name[16], const char *prefix, const char *suffix) {
  size_t room = 15 - strlen("-") - strlen(suffix);
  size_t length = strnlen(prefix, room + 1);
  if (length > room) {
    length = room;
    while (length > 0 && (prefix[length] & 0xc0) == 0x80) /* inside a character */
      length--;
  }
  snprintf(name, 16, "%.*s-%s", (int)length, prefix, suffix);
}

void thread_join(struct thread *thread) {
  pthread_join(thread->pthread, NULL);
  unmap_stacks(thread);
}

/* ---- Ending unjoined ------------------------------------------------------------------------ */

static struct thread
    *ended; /* the latest one; all earlier ones are joined, or their joiners under way */

static void join_and_free(struct thread *thread) {
  if (thread == NULL)
    return;
  thread_join(thread);
  free(thread);
}

void thread_end_unjoined(struct thread *thread) {
  /* acq_rel, with itself: who gets it sees all of it. */
  join_and_free(exchange_acq_rel(&ended, thread));
}

void thread_join_ended(void) {
  join_and_free(exchange_acq_rel(&ended, NULL)); /* acq_rel, as above */
}

/* In the child of a fork there is no such thread, to be waited for. */
static void forget_ended(void) {
  store_relaxed(&ended, NULL); /* relaxed: there is no other thread */
}

__attribute__((constructor)) static void watch_forks(void) {
  pthread_atfork(NULL, NULL, forget_ended);
}
