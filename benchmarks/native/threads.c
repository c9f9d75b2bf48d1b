/* threads.c - making and joining a worker's thread, each way that there is, beside a pthread of the same
 * stack size.
 *
 * libc keeps the stacks of its threads that have ended for the next ones. Ours are new each time, as
 * is that of the second pthread here.
 */
#include "measure.h"
#include "thread.h"

#include <dromon/dromon.h>

enum { THREADS = 200 };

static void nothing(void *arg) {
  (void)arg;
}

static void *nothing_for_libc(void *arg) {
  return arg;
}

static void measure_pthread(void) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  MUST(pthread_attr_setstacksize(&attributes, DROMON_STACK_SIZE_DEFAULT) == 0);
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < THREADS; i++) {
    pthread_t thread;
    MUST(pthread_create(&thread, &attributes, nothing_for_libc, NULL) == 0);
    pthread_join(thread, NULL);
  }
  report_each("pthread, libc's stack", start, THREADS);
}

static void measure_pthread_on_a_new_stack(void) {
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < THREADS; i++) {
    struct stack stack;
    MUST(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, DROMON_GUARD_SIZE_DEFAULT) == 0);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    MUST(pthread_attr_setstack(&attributes, stack.low, stack.size) == 0);
    pthread_t thread;
    MUST(pthread_create(&thread, &attributes, nothing_for_libc, NULL) == 0);
    pthread_join(thread, NULL);
    stack_unmap(&stack);
  }
  report_each("pthread, new stack", start, THREADS);
}

static void measure_stack(void) {
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < THREADS; i++) {
    struct stack stack;
    MUST(stack_map(&stack, DROMON_STACK_SIZE_DEFAULT, DROMON_GUARD_SIZE_DEFAULT) == 0);
    stack_unmap(&stack);
  }
  report_each("a new stack alone", start, THREADS);
}

/* What the kernel itself needs for one thread more: that of the incubator. */
static void measure_bare(void) {
  dromon_bare_config config = {.fn = nothing, .spawn = DROMON_SPAWN_CLONE};
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < THREADS; i++) {
    dromon_bare_thread *thread;
    MUST(dromon_bare_start(&config, &thread) == 0);
    MUST(dromon_bare_join(thread, -1) == 0);
  }
  report_each("bare thread, new stack", start, THREADS);
}

static void measure_ours(const char *name, enum dromon_spawn spawn) {
  struct thread_options options = {
      .stack_size = DROMON_STACK_SIZE_DEFAULT,
      .guard_size = DROMON_GUARD_SIZE_DEFAULT,
      .name = "benchmark",
      .spawn = spawn,
  };
  uint64_t start = os_now_ns();
  for (unsigned i = 0; i < THREADS; i++) {
    struct thread thread;
    if (thread_start(&thread, &options, nothing, NULL) < 0)
      return; /* this way cannot be had here */
    thread_join(&thread);
  }
  report_each(name, start, THREADS);
}

int main(int argc, char **argv) {
  for (unsigned round = begin(argc, argv); round > 0; round--) {
    measure_pthread();
    measure_pthread_on_a_new_stack();
    measure_stack();
    measure_bare();
    measure_ours("worker by pthread", DROMON_SPAWN_PTHREAD);
    measure_ours("worker by clone", DROMON_SPAWN_CLONE);
    measure_ours("worker by clone3", DROMON_SPAWN_CLONE3);
  }
  return 0;
}
