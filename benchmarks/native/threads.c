/* threads.c - making and joining a worker's thread, each way that there is, beside a pthread of the same
 * stack size.
 *
 * libc keeps the stacks of its threads that have ended for the next ones. Ours are new each time, as
 * is that of the second pthread here. All run on one CPU: on several, what is measured is mostly how
 * fast an idle one wakes.
 */
#include "measure.h"
#include "thread.h"

#include <dromon/dromon.h>

enum { THREADS = 500 };

static void nothing(void *arg) {
  (void)arg;
}

static void *nothing_for_libc(void *arg) {
  return arg;
}

static int make_pthread(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  pthread_attr_init(&attributes);
  MUST(pthread_attr_setstacksize(&attributes, DROMON_STACK_SIZE_DEFAULT) == 0);
  MUST(pthread_create(&thread, &attributes, nothing_for_libc, NULL) == 0);
  pthread_join(thread, NULL);
  return 0;
}

static int make_pthread_on_a_new_stack(void) {
  struct stack stack;
  pthread_attr_t attributes;
  pthread_t thread;
  MUST(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, DROMON_GUARD_SIZE_DEFAULT) == 0);
  pthread_attr_init(&attributes);
  MUST(pthread_attr_setstack(&attributes, stack.low, stack.size) == 0);
  MUST(pthread_create(&thread, &attributes, nothing_for_libc, NULL) == 0);
  pthread_join(thread, NULL);
  stack_unmap(&stack);
  return 0;
}

static int make_stack(void) {
  struct stack stack;
  MUST(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, DROMON_GUARD_SIZE_DEFAULT) == 0);
  stack_unmap(&stack);
  return 0;
}

/* What the kernel needs for one thread more, such as the incubator, and for a stack. */
static int make_bare(void) {
  dromon_bare_config config = {.fn = nothing, .spawn = DROMON_SPAWN_CLONE};
  dromon_bare_thread *thread;
  MUST(dromon_bare_start(&config, &thread) == 0);
  MUST(dromon_bare_join(thread, -1) == 0);
  return 0;
}

static int make_worker(enum dromon_spawn spawn) {
  struct thread_options options = {
      .stack_size = DROMON_STACK_SIZE_DEFAULT,
      .guard_size = DROMON_GUARD_SIZE_DEFAULT,
      .name = "benchmark",
      .spawn = spawn,
  };
  struct thread thread;
  int result = thread_start(&thread, &options, nothing, NULL);
  if (result == 0)
    thread_join(&thread);
  return result;
}

static int make_worker_by_pthread(void) {
  return make_worker(DROMON_SPAWN_PTHREAD);
}

static int make_worker_by_clone(void) {
  return make_worker(DROMON_SPAWN_CLONE);
}

static int make_worker_by_clone3(void) {
  return make_worker(DROMON_SPAWN_CLONE3);
}

static void measure(const char *name, int (*make)(void)) {
  static double times[THREADS];
  if (!is_asked(name))
    return;
  for (unsigned i = 0; i < THREADS; i++) {
    uint64_t start = os_now_ns();
    if (make() < 0)
      return; /* this way cannot be had here */
    times[i] = (double)(os_now_ns() - start);
  }
  report("ns", median(times, THREADS));
}

int main(int argc, char **argv) {
  begin(argc, argv);
  run_on(0);
  measure("a new stack alone", make_stack);
  measure("pthread, libc's stack", make_pthread);
  measure("pthread, new stack", make_pthread_on_a_new_stack);
  measure("bare thread, new stack", make_bare);
  measure("worker by pthread", make_worker_by_pthread);
  measure("worker by clone", make_worker_by_clone);
  measure("worker by clone3", make_worker_by_clone3);
  return end();
}
