/* test_bare_thread.c - tests of threads without libc.
 *
 * What runs on one is FREESTANDING: it calls nothing but what is here and FREESTANDING, too, or inline.
 * It cannot check anything, so it notes what it saw, and the test checks that after the join. The tests
 * are run for each of the two system calls.
 */
#include "process.h"
#include "thread.h"

#include <dromon/dromon.h>
#include <linux/futex.h>
#include <signal.h>

#define FREESTANDING                                                                               \
  __attribute__((noinline, no_stack_protector, no_sanitize("address", "undefined", "thread")))

enum { STACK_SIZE = 1 << 16, GUARD_SIZE = 1 << 16 };

/* ---- What a bare thread may call ------------------------------------------------------------ */

/* A system call by its instruction: a negative errno, and no errno. */
FREESTANDING static long bare_call(long number, uintptr_t a, uintptr_t b, uintptr_t c,
                                   uintptr_t d) {
#if defined(__x86_64__)
  register uintptr_t d_ __asm__("r10") = d;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(d_)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long number_ __asm__("x8") = number;
  register uintptr_t a_ __asm__("x0") = a;
  register uintptr_t b_ __asm__("x1") = b;
  register uintptr_t c_ __asm__("x2") = c;
  register uintptr_t d_ __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(a_) : "r"(number_), "r"(b_), "r"(c_), "r"(d_) : "memory");
  return (long)a_;
#endif
}

/* ---- Starting ------------------------------------------------------------------------------- */

static enum dromon_spawn wish; /* what all tests ask for */

static dromon_bare_config config_of(void (*fn)(void *), void *arg) {
  return (dromon_bare_config){
      .fn = fn,
      .arg = arg,
      .stack_size = STACK_SIZE,
      .guard_size = GUARD_SIZE,
      .spawn = wish,
  };
}

static dromon_bare_thread *start(void (*fn)(void *), void *arg) {
  dromon_bare_config config = config_of(fn, arg);
  dromon_bare_thread *thread;
  CHECK_EQ(dromon_bare_start(&config, &thread), 0);
  return thread;
}

static void join(dromon_bare_thread *thread) {
  CHECK_EQ(dromon_bare_join(thread, -1), 0);
}

static void run_in_thread(void (*fn)(void *), void *arg) {
  join(start(fn, arg));
}

FREESTANDING static void do_nothing(void *arg) {
  (void)arg;
}

static void check_start_fails(dromon_bare_config config, int error) {
  unsigned mappings = count_mappings();
  dromon_bare_thread *thread;
  CHECK_EQ(dromon_bare_start(&config, &thread), error);
  CHECK_EQ(count_mappings(), mappings);
  await_thread_count(1);
}

static void options_out_of_range_are_refused(void) {
  check_start_fails((dromon_bare_config){.fn = NULL}, -EINVAL);
  check_start_fails((dromon_bare_config){.fn = do_nothing, .spawn = DROMON_SPAWN_PTHREAD}, -EINVAL);
  check_start_fails((dromon_bare_config){.fn = do_nothing, .spawn = UINT32_MAX}, -EINVAL);
  check_start_fails((dromon_bare_config){.fn = do_nothing, .stack_size = UINT64_MAX}, -EINVAL);
  check_start_fails((dromon_bare_config){.fn = do_nothing, .guard_size = UINT64_MAX}, -EINVAL);
}

static void zeros_stand_for_the_defaults(void) {
  dromon_bare_config config = {.fn = do_nothing};
  dromon_bare_thread *thread;
  CHECK_EQ(dromon_bare_start(&config, &thread), 0);
  join(thread);
}

static void it_is_made_as_wished_and_counted(void) {
  uint64_t clone3 = dromon_spawn_count(DROMON_SPAWN_CLONE3);
  uint64_t clone = dromon_spawn_count(DROMON_SPAWN_CLONE);
  uint64_t pthread = dromon_spawn_count(DROMON_SPAWN_PTHREAD);
  run_in_thread(do_nothing, NULL);
  CHECK_EQ(dromon_spawn_count(DROMON_SPAWN_CLONE3), clone3 + (wish == DROMON_SPAWN_CLONE3));
  CHECK_EQ(dromon_spawn_count(DROMON_SPAWN_CLONE), clone + (wish == DROMON_SPAWN_CLONE));
  CHECK_EQ(dromon_spawn_count(DROMON_SPAWN_PTHREAD), pthread);
}

/* ---- What it is ----------------------------------------------------------------------------- */

struct seen {
  long tid;
  long pid;
  uintptr_t frame;
  uint64_t blocked_signals;
};

FREESTANDING static void look(void *arg) {
  struct seen *seen = arg;
  seen->tid = bare_call(SYS_gettid, 0, 0, 0, 0);
  seen->pid = bare_call(SYS_getpid, 0, 0, 0, 0);
  uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
  __asm__ volatile("" : "+r"(frame)); /* so that nothing is taken for granted about it */
  seen->frame = frame;
  bare_call(SYS_rt_sigprocmask, SIG_BLOCK, 0, (uintptr_t)&seen->blocked_signals, 8);
}

static void it_is_a_thread_of_this_process(void) {
  struct seen seen = {0};
  dromon_bare_thread *thread = start(look, &seen);
  int32_t tid = dromon_bare_tid(thread);
  join(thread);
  CHECK_EQ(seen.tid, tid);
  CHECK_EQ(seen.pid, getpid());
  CHECK_THAT(seen.tid, !=, os_gettid());
}

/* Two words below a multiple of 16 is where frames begin if the stack is aligned at the call. */
static void the_stack_is_aligned_at_entry(void) {
  struct seen seen = {0};
  run_in_thread(look, &seen);
  CHECK_EQ(seen.frame % 16, 0);
}

static void all_signals_but_those_of_faults_are_blocked(void) {
  struct seen seen = {0};
  uint64_t mask = os_set_blocked_signals(OS_SIGNAL(SIGUSR2));
  run_in_thread(look, &seen);
  CHECK_EQ(os_set_blocked_signals(mask), OS_SIGNAL(SIGUSR2)); /* its creator's mask has stayed */
  CHECK_EQ(seen.blocked_signals, signals_that_can_be_blocked() & ~OS_FAULT_SIGNALS);
}

FREESTANDING static void fill_most_of_the_stack(void *arg) {
  enum { MOST = STACK_SIZE - 1024 };
  volatile unsigned char most[MOST];
  for (size_t i = 0; i < MOST; i += 512)
    most[i] = 1;
  *(unsigned *)arg = most[0] + most[512];
}

static void the_stack_has_the_size_that_was_asked_for(void) {
  unsigned sum = 0;
  run_in_thread(fill_most_of_the_stack, &sum);
  CHECK_EQ(sum, 2);
}

FREESTANDING static unsigned recurse(unsigned depth) {
  volatile unsigned char frame[256];
  frame[depth % 256] = (unsigned char)depth;
  return depth == 0 ? 0 : recurse(depth - 1) + frame[depth % 256];
}

FREESTANDING static void recurse_for_ever(void *arg) {
  *(unsigned *)arg = recurse(UINT32_MAX);
}

static void overflow_a_stack(void) {
  unsigned result;
  run_in_thread(recurse_for_ever, &result);
}

static void check_is_killed(void (*fn)(void), int signal) {
  int status = run_in_child(fn);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), signal);
}

static void an_overflow_hits_the_guard(void) {
  check_is_killed(overflow_a_stack, SIGSEGV);
}

/* ---- What it may do ------------------------------------------------------------------------- */

struct exchange {
  uint32_t question; /* 0 until it may go on; a futex */
  uint32_t answer;
};

FREESTANDING static void answer(void *arg) {
  struct exchange *exchange = arg;
  uint32_t question;
  while ((question = load_acquire(&exchange->question)) == 0)
    bare_call(SYS_futex, (uintptr_t)&exchange->question, FUTEX_WAIT_PRIVATE, 0, 0);
  store_release(&exchange->answer, question + 1);
}

static void ask(struct exchange *exchange, uint32_t question) {
  store_release(&exchange->question, question);
  os_futex_wake(&exchange->question, 1);
}

static void it_may_share_memory_and_sleep_on_a_futex(void) {
  struct exchange exchange = {0};
  dromon_bare_thread *thread = start(answer, &exchange);
  CHECK_EQ(load_relaxed(&exchange.answer), 0);
  ask(&exchange, 41);
  join(thread);
  CHECK_EQ(exchange.answer, 42);
}

struct file {
  int fd;
  long written;
};

FREESTANDING static void write_to_file(void *arg) {
  static const char text[] = "bare";
  struct file *file = arg;
  file->written = bare_call(SYS_write, (uintptr_t)file->fd, (uintptr_t)text, 4, 0);
}

static void it_may_make_system_calls_on_the_files_of_the_process(void) {
  int ends[2];
  char text[8];
  CHECK_EQ(pipe(ends), 0);
  struct file file = {.fd = ends[1]};
  run_in_thread(write_to_file, &file);
  CHECK_EQ(file.written, 4);
  CHECK_EQ(read(ends[0], text, sizeof text), 4);
  CHECK_EQ(memcmp(text, "bare", 4), 0);
  close(ends[0]);
  close(ends[1]);
}

/* ---- What it may not ------------------------------------------------------------------------ */

static _Thread_local volatile int local;

FREESTANDING static void use_a_thread_local(void *arg) {
  (void)arg;
  local = 1;
}

static void let_it_use_a_thread_local(void) {
  run_in_thread(use_a_thread_local, NULL);
}

/* And does not change its creator's. */
static void a_use_of_a_thread_local_faults(void) {
  check_is_killed(let_it_use_a_thread_local, SIGSEGV);
}

static void raise_errno(int signal) {
  (void)signal;
  errno = EDOM;
  _exit(0);
}

FREESTANDING static void touch_nothing(void *arg) {
  *(volatile char *)arg = 0;
}

static void let_it_fault_with_a_handler(void) {
  signal(SIGSEGV, raise_errno);
  run_in_thread(touch_nothing, (void *)1);
}

static void a_fault_ends_the_process_whatever_the_handler(void) {
  check_is_killed(let_it_fault_with_a_handler, SIGSEGV);
}

/* ---- Join ----------------------------------------------------------------------------------- */

static void a_join_that_timed_out_may_be_tried_again(void) {
  struct exchange exchange = {0};
  dromon_bare_thread *thread = start(answer, &exchange);
  int32_t tid = dromon_bare_tid(thread);
  CHECK_EQ(dromon_bare_join(thread, 0), -ETIMEDOUT);
  uint64_t before = os_now_ns();
  CHECK_EQ(dromon_bare_join(thread, 3000000), -ETIMEDOUT);
  CHECK_THAT(os_now_ns() - before, >=, 3000000);
  CHECK_EQ(dromon_bare_tid(thread), tid);
  ask(&exchange, 1);
  CHECK_EQ(dromon_bare_join(thread, INT64_MAX), 0);
  CHECK_EQ(exchange.answer, 2);
}

static void a_join_of_one_that_has_ended_does_not_wait(void) {
  dromon_bare_thread *thread = start(do_nothing, NULL);
  await_thread_count(1);
  CHECK_EQ(dromon_bare_join(thread, 0), 0);
}

static void note_alarm(int signal) {
  (void)signal;
}

FREESTANDING static void nap(void *arg) {
  struct timespec moment = {.tv_nsec = 20000000};
  bare_call(SYS_nanosleep, (uintptr_t)&moment, 0, 0, 0);
  *(bool *)arg = true;
}

static void a_signal_does_not_end_a_join(void) {
  struct sigaction action = {.sa_handler = note_alarm}; /* without SA_RESTART */
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  bool has_napped = false;
  dromon_bare_thread *thread = start(nap, &has_napped);
  timer_t timer;
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct itimerspec often = {{.tv_nsec = 2000000}, {.tv_nsec = 2000000}};
  CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  CHECK_EQ(timer_settime(timer, 0, &often, NULL), 0);
  join(thread);
  CHECK_EQ(timer_delete(timer), 0);
  CHECK(has_napped);
}

/* ---- Rights --------------------------------------------------------------------------------- */

enum { NOBODY = 65534 };

/* Both threads go by this, the citizen one with libc's leave. */
struct rights {
  uint32_t may_look;
  uint32_t real, effective, saved;
};

FREESTANDING static void look_at_rights(void *arg) {
  struct rights *rights = arg;
  while (load_acquire(&rights->may_look) == 0)
    bare_call(SYS_futex, (uintptr_t)&rights->may_look, FUTEX_WAIT_PRIVATE, 0, 0);
  bare_call(SYS_getresuid, (uintptr_t)&rights->real, (uintptr_t)&rights->effective,
            (uintptr_t)&rights->saved, 0);
}

static void check_rights(const struct rights *rights, uint32_t user) {
  CHECK_EQ(rights->real, user);
  CHECK_EQ(rights->effective, user);
  CHECK_EQ(rights->saved, user);
}

static void give_up_root(void) {
  struct rights of_bare = {0}, of_citizen = {0};
  struct thread citizen;
  struct thread_options options = {
      .stack_size = DROMON_STACK_SIZE_MIN, .guard_size = GUARD_SIZE, .name = "citizen"};
  CHECK_EQ(thread_start(&citizen, &options, look_at_rights, &of_citizen), 0);
  dromon_bare_thread *bare = start(look_at_rights, &of_bare);
  CHECK_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
  raise_count(&of_bare.may_look, 1);
  raise_count(&of_citizen.may_look, 1);
  join(bare);
  thread_join(&citizen);
  check_rights(&of_citizen, NOBODY);
  check_rights(&of_bare, 0); /* what the header warns of */
}

static void setuid_does_not_reach_it(void) {
  if (geteuid() == 0)
    CHECK_EQ(run_in_child(give_up_root), 0);
  else
    printf("  not here: needs root\n");
}

/* ---- Many ----------------------------------------------------------------------------------- */

static void a_thousand_threads_leave_nothing_behind(void) {
  run_in_thread(do_nothing, NULL);
  unsigned mappings = count_mappings();
  for (int i = 0; i < 1000; i++)
    run_in_thread(do_nothing, NULL);
  CHECK_EQ(count_mappings(), mappings);
  await_thread_count(1);
}

static void many_threads_live_at_once(void) {
  enum { MANY = 100 };
  dromon_bare_thread *threads[MANY];
  struct exchange exchange = {0};
  for (int i = 0; i < MANY; i++)
    threads[i] = start(answer, &exchange);
  CHECK_EQ(count_threads(), 1 + MANY);
  store_release(&exchange.question, 1);
  os_futex_wake(&exchange.question, MANY);
  for (int i = 0; i < MANY; i++)
    join(threads[i]);
  await_thread_count(1);
}

/* ---- Where the kernel refuses --------------------------------------------------------------- */

static bool refuse_or_say_so(const struct refusal *refusal) {
  if (refuse(refusal))
    return true;
  printf("  not here: no seccomp filters\n");
  return false;
}

static void check_is_made_by_clone(int error) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_clone3, .error = error}))
    return;
  wish = DROMON_SPAWN_AUTO;
  uint64_t count = dromon_spawn_count(DROMON_SPAWN_CLONE);
  it_may_share_memory_and_sleep_on_a_futex();
  it_is_a_thread_of_this_process();
  CHECK_EQ(dromon_spawn_count(DROMON_SPAWN_CLONE), count + 2);
  wish = DROMON_SPAWN_CLONE3;
  check_start_fails(config_of(do_nothing, NULL), -error);
}

static void without_clone3(void) {
  check_is_made_by_clone(ENOSYS);
}

static void *do_nothing_as_pthread(void *arg) {
  return arg;
}

/* libc can make no thread then. */
static void where_clone3_is_forbidden(void) {
  check_is_made_by_clone(EPERM);
  pthread_t pthread;
  if (dromon_clone3_probe() == -EPERM)
    CHECK_EQ(pthread_create(&pthread, NULL, do_nothing_as_pthread, NULL), EPERM);
}

static void where_clone3_is_refused_it_is_made_by_clone(void) {
  CHECK_EQ(run_in_child(without_clone3), 0);
  CHECK_EQ(run_in_child(where_clone3_is_forbidden), 0);
}

static void without_both_calls(void) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_clone3, .error = ENOSYS}) ||
      !refuse_or_say_so(&(struct refusal){.call = SYS_clone, .error = EPERM}))
    return;
  wish = DROMON_SPAWN_AUTO;
  check_start_fails(config_of(do_nothing, NULL), -ENOSYS);
  wish = DROMON_SPAWN_CLONE;
  check_start_fails(config_of(do_nothing, NULL), -EPERM);
}

static void where_both_calls_are_refused_the_start_fails(void) {
  CHECK_EQ(run_in_child(without_both_calls), 0);
}

static void at_the_limit_on_threads(void) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_clone3, .error = EAGAIN}))
    return;
  wish = DROMON_SPAWN_AUTO;
  check_start_fails(config_of(do_nothing, NULL), -EAGAIN);
}

/* It holds for both calls: the other is not tried. */
static void a_limit_is_told_as_it_is(void) {
  CHECK_EQ(run_in_child(at_the_limit_on_threads), 0);
}

static void run_with(enum dromon_spawn spawn) {
  wish = spawn;
  RUN(it_is_made_as_wished_and_counted);
  RUN(it_is_a_thread_of_this_process);
  RUN(the_stack_is_aligned_at_entry);
  RUN(all_signals_but_those_of_faults_are_blocked);
  RUN(the_stack_has_the_size_that_was_asked_for);
  RUN(an_overflow_hits_the_guard);
  RUN(it_may_share_memory_and_sleep_on_a_futex);
  RUN(it_may_make_system_calls_on_the_files_of_the_process);
  RUN(a_use_of_a_thread_local_faults);
  RUN(a_fault_ends_the_process_whatever_the_handler);
  RUN(a_join_that_timed_out_may_be_tried_again);
  RUN(a_join_of_one_that_has_ended_does_not_wait);
  RUN(a_signal_does_not_end_a_join);
  RUN(setuid_does_not_reach_it);
  RUN(a_thousand_threads_leave_nothing_behind);
  RUN(many_threads_live_at_once);
}

int main(void) {
  (void)count_mappings(); /* stdio's first buffers are mapped before anything is counted */
  RUN(options_out_of_range_are_refused);
  RUN(zeros_stand_for_the_defaults);
  if (dromon_clone3_probe() == 0) {
    run_with(DROMON_SPAWN_CLONE3);
    RUN(where_clone3_is_refused_it_is_made_by_clone);
    RUN(where_both_calls_are_refused_the_start_fails);
    RUN(a_limit_is_told_as_it_is);
  } else {
    printf("not here: clone3: %s\n", strerror(-dromon_clone3_probe()));
  }
  run_with(DROMON_SPAWN_CLONE);
  return 0;
}
