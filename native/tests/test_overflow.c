/* test_overflow.c - tests of what is said when a thread's stack overflows, and of who is asked next.
 *
 * Each scene is a child process that dies, and what it wrote to stderr.
 */
#include "process.h"
#include "thread.h"

#include <dromon/dromon.h>
#include <signal.h>
#include <string.h>

enum { STACK_SIZE = 1 << 18, GUARD_SIZE = 1 << 16 };

/* ---- Scenes --------------------------------------------------------------------------------- */

static char heard[4096]; /* what the child wrote */
static int ears;

static void (*scene)(void);

static void speak(void) {
  CHECK_EQ(dup2(ears, STDERR_FILENO), STDERR_FILENO);
  scene();
}

/* Runs a scene, which is to die of the signal. */
static void watch(void (*of)(void), int signal) {
  int ends[2];
  CHECK_EQ(pipe(ends), 0);
  scene = of;
  ears = ends[1];
  int status = run_in_child(speak);
  close(ends[1]);
  size_t length = 0;
  ssize_t count;
  while ((count = read(ends[0], heard + length, sizeof heard - 1 - length)) > 0)
    length += (size_t)count;
  heard[length] = 0;
  close(ends[0]);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), signal);
}

static void check_heard(const char *expected) {
  if (strcmp(heard, expected) != 0) {
    fprintf(stderr, "expected:\n%sheard:\n%s", expected, heard);
    _exit(1);
  }
}

/* ---- What happens in them ------------------------------------------------------------------- */

static enum dromon_spawn wish;

static void run_in_thread(void (*fn)(void *)) {
  static struct thread thread;
  struct thread_options options = {
      .stack_size = STACK_SIZE, .guard_size = GUARD_SIZE, .name = "deep", .spawn = wish};
  CHECK_EQ(thread_start(&thread, &options, fn, NULL), 0);
  thread_join(&thread);
}

__attribute__((noinline)) static unsigned recurse(unsigned depth) {
  volatile unsigned char frame[256] = {0};
  return depth == 0 ? frame[0] : recurse(depth - 1) + frame[depth % 256];
}

static void recurse_for_ever(void *arg) {
  (void)arg;
  recurse(UINT32_MAX);
}

__attribute__((noinline)) static void touch_nothing(void *arg) {
  __asm__ volatile("" : "+r"(arg)); /* so that the compiler does not see what this is */
  *(volatile char *)arg = 0;
}

static void install_report(void) {
  CHECK_EQ(dromon_overflow_report_install(), 0);
}

/* ---- Other handlers ------------------------------------------------------------------------- */

static void say(const char *text) {
  CHECK_EQ(write(STDERR_FILENO, text, strlen(text)), (ssize_t)strlen(text));
}

/* As Python's faulthandler does: says its word, puts back what was there before and raises the signal
 * anew. */
struct other {
  const char *word;
  struct sigaction before;
};

static struct other early = {.word = "early\n"}, late = {.word = "late\n"};

static void have_a_turn(struct other *other) {
  say(other->word);
  sigaction(SIGSEGV, &other->before, NULL);
  raise(SIGSEGV);
}

static void handle_early(int signal) {
  (void)signal;
  have_a_turn(&early);
}

static void handle_late(int signal) {
  (void)signal;
  have_a_turn(&late);
}

static void install_other(struct other *other, void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK | SA_NODEFER};
  CHECK_EQ(sigaction(SIGSEGV, &action, &other->before), 0);
}

/* ---- The line ------------------------------------------------------------------------------- */

static void overflow(void) {
  install_report();
  run_in_thread(recurse_for_ever);
}

static void check_line_comes(void (*of)(void), const char *thread) {
  char name[16], rest[16];
  unsigned long size, fault, guard, low;
  watch(of, SIGSEGV);
  CHECK_EQ(sscanf(heard,
                  "dromon: stack overflow in thread %15[a-z0-9-]: its stack has %lu bytes, and "
                  "0x%lx lies in "
                  "its guard page, 0x%lx to 0x%lx%15s",
                  name, &size, &fault, &guard, &low, rest),
           5);
  CHECK_EQ(strcmp(name, thread), 0);
  CHECK_EQ(size, STACK_SIZE);
  CHECK_EQ(low - guard, GUARD_SIZE);
  CHECK_THAT(fault, >=, guard);
  CHECK_THAT(fault, <, low);
  CHECK_EQ(strchr(heard, '\n') - heard, strlen(heard) - 1); /* one line */
}

static void an_overflow_is_told_in_one_line_on_each_back_end(void) {
  for (int spawn = DROMON_SPAWN_AUTO; spawn <= DROMON_SPAWN_PTHREAD; spawn++) {
    if (spawn == DROMON_SPAWN_CLONE3 && dromon_clone3_probe() < 0) {
      printf("  not here: clone3: %s\n", strerror(-dromon_clone3_probe()));
      continue;
    }
    wish = (enum dromon_spawn)spawn;
    check_line_comes(overflow, "deep");
  }
  wish = DROMON_SPAWN_AUTO;
}

static int park_for_ever(void *arg) {
  dromon_park_wait(arg, -1);
  return 0;
}

static int recurse_in_task(void *arg) {
  recurse_for_ever(arg);
  return 0;
}

/* The first task keeps the thread's own stack. */
static void overflow_on_a_fiber(void) {
  dromon_pool_config config = {.workers = 1, .stack_size = STACK_SIZE, .guard_size = GUARD_SIZE};
  dromon_native_task tasks[2];
  dromon_park park;
  dromon_port *port;
  dromon_pool *pool;
  install_report();
  dromon_park_init(&park);
  CHECK_EQ(dromon_port_open(&port), 0);
  CHECK_EQ(dromon_pool_open(&config, &pool), 0);
  dromon_native_task_init(&tasks[0], park_for_ever, &park, port);
  dromon_native_task_init(&tasks[1], recurse_in_task, NULL, port);
  CHECK_EQ(dromon_pool_submit(pool, &tasks[0].task), 0);
  CHECK_EQ(dromon_pool_submit(pool, &tasks[1].task), 0);
  dromon_port_wait(port, -1);
}

static void an_overflow_on_a_fiber_is_told_too(void) {
  check_line_comes(overflow_on_a_fiber, "dromon-0");
}

static void touch_in_thread(void *arg) {
  (void)arg;
  touch_nothing((void *)8);
}

static void fault_in_a_worker(void) {
  install_report();
  run_in_thread(touch_in_thread);
}

static void fault_elsewhere(void) {
  install_report();
  touch_nothing((void *)8);
}

static void be_sent_a_signal(void) {
  install_report();
  raise(SIGSEGV);
}

static void overflow_without_report(void) {
  run_in_thread(recurse_for_ever);
}

static void of_all_else_nothing_is_said(void) {
  void (*scenes[])(void) = {fault_in_a_worker, fault_elsewhere, be_sent_a_signal,
                            overflow_without_report};
  for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++) {
    watch(scenes[i], SIGSEGV);
    check_heard("");
  }
}

static void raise_bus(void) {
  install_report();
  raise(SIGBUS);
}

static void each_signal_stays_what_it_was(void) {
  watch(raise_bus, SIGBUS);
  check_heard("");
}

/* ---- Who is asked next ---------------------------------------------------------------------- */

/* What was heard, without the line, which may only come first. */
static const char *heard_after_line(void) {
  const char *end = strchr(heard, '\n');
  CHECK_EQ(strncmp(heard, "dromon: ", 8), 0);
  return end + 1;
}

static void overflow_with_an_early_one(void) {
  install_other(&early, handle_early);
  overflow();
}

static void who_was_there_before_is_next(void) {
  watch(overflow_with_an_early_one, SIGSEGV);
  CHECK_EQ(strcmp(heard_after_line(), "early\n"), 0);
}

static void fault_with_an_early_one(void) {
  install_other(&early, handle_early);
  fault_in_a_worker();
}

static void be_sent_a_signal_with_an_early_one(void) {
  install_other(&early, handle_early);
  be_sent_a_signal();
}

static void who_was_there_before_gets_all_else_too(void) {
  watch(fault_with_an_early_one, SIGSEGV);
  check_heard("early\n");
  watch(be_sent_a_signal_with_an_early_one, SIGSEGV);
  check_heard("early\n");
}

static siginfo_t seen;

static void see(int signal, siginfo_t *info, void *context) {
  (void)context;
  seen = *info;
  sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
  if (seen.si_code == SEGV_MAPERR && (uintptr_t)seen.si_addr == 8)
    say("as it was\n");
}

static void fault_with_one_that_looks(void) {
  struct sigaction action = {.sa_sigaction = see, .sa_flags = SA_SIGINFO};
  CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
  fault_in_a_worker();
}

static void it_is_the_same_fault_that_comes_again(void) {
  watch(fault_with_one_that_looks, SIGSEGV);
  check_heard("as it was\n");
}

static void overflow_after_many_installs(void) {
  install_other(&early, handle_early);
  for (int i = 0; i < 10; i++)
    install_report();
  overflow();
}

static void to_install_it_again_changes_nothing(void) {
  watch(overflow_after_many_installs, SIGSEGV);
  CHECK_EQ(strcmp(heard_after_line(), "early\n"), 0);
}

static void overflow_with_a_late_one(void) {
  install_other(&early, handle_early);
  install_report();
  install_other(&late, handle_late);
  install_report();
  overflow(); /* which installs it once more, and that must not make it forget the late one */
}

/* The late one hands over to the report, whose turn has been: early's it is. */
static void who_came_later_is_next_if_it_is_installed_again(void) {
  watch(overflow_with_a_late_one, SIGSEGV);
  CHECK_EQ(strcmp(heard_after_line(), "late\nearly\n"), 0);
}

static void overflow_under_a_late_one(void) {
  install_other(&early, handle_early);
  install_report();
  install_other(&late, handle_late);
  run_in_thread(recurse_for_ever);
}

static void who_came_later_may_hand_over_to_it(void) {
  watch(overflow_under_a_late_one, SIGSEGV);
  check_heard("late\nearly\n"); /* it raised the signal, which tells no address any more */
}

/* The one below hands over to the report, too: it was taken away and installed again. */
static void overflow_with_one_that_is_early_and_late(void) {
  install_other(&early, handle_early);
  install_report();
  install_other(&early, handle_early);
  overflow();
}

static void no_chain_comes_round(void) {
  watch(overflow_with_one_that_is_early_and_late, SIGSEGV);
  CHECK_EQ(strcmp(heard_after_line(), "early\n"), 0);
}

int main(void) {
  RUN(an_overflow_is_told_in_one_line_on_each_back_end);
  RUN(an_overflow_on_a_fiber_is_told_too);
  RUN(of_all_else_nothing_is_said);
  RUN(each_signal_stays_what_it_was);
  RUN(who_was_there_before_is_next);
  RUN(who_was_there_before_gets_all_else_too);
  RUN(it_is_the_same_fault_that_comes_again);
  RUN(to_install_it_again_changes_nothing);
  RUN(who_came_later_is_next_if_it_is_installed_again);
  RUN(who_came_later_may_hand_over_to_it);
  RUN(no_chain_comes_round);
  return 0;
}
