/* bare_thread.c - see bare_thread.h. */
#include "bare_thread.h"

#include "arch/arch.h"
#include "atomic.h"
#include "os.h"
#include "spawn.h"

#include <errno.h>
#include <linux/sched.h>
#include <stdlib.h>

/* By clone3 or, where that is refused or was not wished, by clone: the new thread's id. */
static int spawn_by_call(struct clone_args *args, enum dromon_spawn wish) {
  int refusal = 0;
  if (wish != DROMON_SPAWN_CLONE) {
    int result = arch_clone3_bare(args, sizeof *args);
    if (result > 0)
      spawn_count(DROMON_SPAWN_CLONE3);
    if (wish == DROMON_SPAWN_CLONE3 || !spawn_is_refused(result))
      return result;
    refusal = result;
  }
  int result = arch_clone_bare(args);
  if (result > 0)
    spawn_count(DROMON_SPAWN_CLONE);
  return result < 0 && refusal < 0 ? refusal : result;
}

static int spawn(dromon_bare_thread *thread, const dromon_bare_config *config) {
  unsigned char *top = thread->stack.low + thread->stack.size - sizeof(struct arch_bare);
  *(struct arch_bare *)(void *)top = (struct arch_bare){.fn = config->fn, .arg = config->arg};
  struct clone_args args = {
      /* As for any thread of the process. A thread pointer of 0 makes a use of libc or of a
       * thread-local fault at once, where it would else go to the creator's. */
      .flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
               CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
      .tls = 0,
      .parent_tid = (uintptr_t)&thread->alive, /* written before the thread runs */
      .child_tid = (uintptr_t)&thread->alive,
      .stack = (uintptr_t)thread->stack.low,
      .stack_size = (size_t)(top - thread->stack.low),
  };
  /* It begins with its creator's mask. No handler of the program's could run on it. */
  uint64_t previous = os_set_blocked_signals(~OS_FAULT_SIGNALS);
  int tid = spawn_by_call(&args, (enum dromon_spawn)config->spawn);
  os_set_blocked_signals(previous);
  if (tid < 0)
    return tid;
  thread->tid = tid;
  return 0;
}

int dromon_bare_start(const dromon_bare_config *config, dromon_bare_thread **out) {
  if (config->fn == NULL || config->spawn >= DROMON_SPAWN_PTHREAD)
    return -EINVAL;
  dromon_bare_thread *thread = calloc(1, sizeof *thread);
  if (thread == NULL)
    return -ENOMEM;
  int result = stack_map(&thread->stack, config->stack_size ?: DROMON_STACK_SIZE_DEFAULT,
                         config->guard_size ?: DROMON_GUARD_SIZE_DEFAULT);
  if (result == 0) {
    result = spawn(thread, config);
    if (result < 0)
      stack_unmap(&thread->stack);
  }
  if (result < 0)
    free(thread);
  else
    *out = thread;
  return result;
}

int32_t dromon_bare_tid(const dromon_bare_thread *thread) {
  return thread->tid;
}

int dromon_bare_join(dromon_bare_thread *thread, int64_t timeout_ns) {
  uint64_t deadline_ns = os_deadline_after(timeout_ns);
  uint32_t alive;
  /* Acquire, pairs with the kernel's store at the thread's end: what it wrote is visible now. */
  while ((alive = load_acquire(&thread->alive)) != 0) {
    if (os_futex_wait_shared(&thread->alive, alive, deadline_ns) == -ETIMEDOUT)
      return -ETIMEDOUT;
  }
  stack_unmap(&thread->stack);
  free(thread);
  return 0;
}
