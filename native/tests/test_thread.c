/* test_thread.c - tests that a citizen thread, which a raw system call made, is to libc, the kernel and
 * the program what a thread of libc's own is.
 *
 * The function that a test starts in such a thread checks the most, from inside. The tests are run for
 * each back end: `test_thread [AUTO | clone3 | clone | pthread | auto-without-clone3]`.
 */
#include "thread.h"

#include "arch/arch.h"
#include "os.h"
#include "process.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { STACK_SIZE = 1 << 20, GUARD_SIZE = 1 << 16 };

/* ---- Starting ------------------------------------------------------------------------------- */

static struct thread thread; /* the one that a test looks at */

static enum dromon_spawn wish;     /* what all tests ask for, */
static enum dromon_spawn expected; /* and what they shall get */

static void await(sem_t *semaphore) {
  while (sem_wait(semaphore) < 0)
    CHECK_EQ(errno, EINTR);
}

static int try_to_start(struct thread *to_start, const char *name, void (*fn)(void *), void *arg) {
  struct thread_options options = {
      .stack_size = STACK_SIZE,
      .guard_size = GUARD_SIZE,
      .name = name,
      .spawn = wish,
  };
  return thread_start(to_start, &options, fn, arg);
}

static void start(void (*fn)(void *), void *arg) {
  CHECK_EQ(try_to_start(&thread, "tested", fn, arg), 0);
}

static void run_in_thread(void (*fn)(void *)) {
  start(fn, NULL);
  thread_join(&thread);
}

/* How a thread that waits is let go on. */
static sem_t may_go_on;

static void wait_in_thread(void *arg) {
  (void)arg;
  await(&may_go_on);
}

static void end_waiting_thread(void) {
  sem_post(&may_go_on);
  thread_join(&thread);
}

static void do_nothing(void *arg) {
  (void)arg;
}

static void a_thread_is_made_as_expected_and_counted(void) {
  uint64_t counts[DROMON_SPAWN_PTHREAD + 1];
  for (int spawn = 0; spawn <= DROMON_SPAWN_PTHREAD; spawn++)
    counts[spawn] = dromon_spawn_count(spawn);
  run_in_thread(do_nothing);
  CHECK_EQ(thread.spawn, expected);
  CHECK_EQ(thread.spawn_error == 0, wish == expected || expected == DROMON_SPAWN_CLONE3);
  for (int spawn = 0; spawn <= DROMON_SPAWN_PTHREAD; spawn++)
    CHECK_EQ(dromon_spawn_count(spawn), counts[spawn] + (spawn == (int)expected));
}

static void set_to_7(void *arg) {
  *(int *)arg = 7;
}

static void the_function_gets_its_argument_and_the_join_its_effect(void) {
  int value = 0;
  start(set_to_7, &value);
  thread_join(&thread);
  CHECK_EQ(value, 7);
}

static void check_refused(struct thread_options options) {
  unsigned mappings = count_mappings();
  options.name = "";
  CHECK_EQ(thread_start(&thread, &options, do_nothing, NULL), -EINVAL);
  CHECK_EQ(count_mappings(), mappings);
}

static void options_out_of_range_are_refused(void) {
  check_refused((struct thread_options){.stack_size = 0, .guard_size = GUARD_SIZE});
  check_refused(
      (struct thread_options){.stack_size = DROMON_STACK_SIZE_MIN - 1, .guard_size = GUARD_SIZE});
  check_refused((struct thread_options){.stack_size = STACK_SIZE, .guard_size = 0});
  check_refused((struct thread_options){
      .stack_size = STACK_SIZE, .guard_size = GUARD_SIZE, .spawn = DROMON_SPAWN_PTHREAD + 1});
}

/* ---- Who it is ------------------------------------------------------------------------------ */

static pid_t creator;

static void check_tid(void *arg) {
  (void)arg;
  CHECK_EQ(thread.tid, os_gettid());
  if (thread.spawn != DROMON_SPAWN_PTHREAD)
    CHECK_EQ(load_relaxed(&thread.incubator_alive), 0); /* nobody else is on this stack */
  CHECK_THAT(os_gettid(), !=, creator);
  CHECK_EQ(getpid(), creator);
}

static void it_knows_its_kernel_id(void) {
  creator = os_gettid();
  for (int i = 0; i < 100; i++)
    run_in_thread(check_tid);
}

static void check_self(void *arg) {
  pthread_t *self = arg;
  *self = pthread_self();
}

static void pthread_self_is_what_its_creator_got(void) {
  pthread_t self;
  start(check_self, &self);
  CHECK(!pthread_equal(thread.pthread, pthread_self()));
  thread_join(&thread);
  CHECK(pthread_equal(thread.pthread, self));
}

static void await_signal(void *arg) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  int signal;
  CHECK_EQ(sigwait(&set, &signal), 0);
  CHECK_EQ(signal, SIGUSR1);
  *(bool *)arg = true;
}

/* The signal is blocked everywhere else too, so that only a right kernel id lets it arrive. */
static void pthread_kill_reaches_it(void) {
  bool arrived = false;
  start(await_signal, &arrived);
  CHECK_EQ(pthread_kill(thread.pthread, 0), 0);
  CHECK_EQ(pthread_kill(thread.pthread, SIGUSR1), 0);
  thread_join(&thread);
  CHECK(arrived);
}

static void read_comm(pid_t tid, char name[16]) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/comm", tid);
  FILE *file = fopen(path, "r");
  CHECK(file != NULL);
  CHECK(fgets(name, 16, file) != NULL);
  name[strcspn(name, "\n")] = 0;
  fclose(file);
}

static void check_name(void *arg) {
  char name[16];
  read_comm(os_gettid(), name);
  CHECK_EQ(strcmp(name, arg), 0);
  CHECK_EQ(pthread_getname_np(pthread_self(), name, sizeof name), 0);
  CHECK_EQ(strcmp(name, arg), 0);
}

static void it_has_its_name_cut_to_15_bytes(void) {
  CHECK_EQ(try_to_start(&thread, "dromon-0", check_name, "dromon-0"), 0);
  thread_join(&thread);
  CHECK_EQ(try_to_start(&thread, "fifteen bytes -- and more", check_name, "fifteen bytes -"), 0);
  thread_join(&thread);
}

static int64_t cpu_time_of(pthread_t pthread) {
  clockid_t clock;
  struct timespec used;
  CHECK_EQ(pthread_getcpuclockid(pthread, &clock), 0);
  CHECK_EQ(clock_gettime(clock, &used), 0);
  return used.tv_sec * 1000000000ll + used.tv_nsec;
}

static void its_cpu_clock_can_be_read_from_outside(void) {
  start(wait_in_thread, NULL);
  CHECK_THAT(cpu_time_of(thread.pthread), >, 0);
  end_waiting_thread();
}

/* ---- Its stack ------------------------------------------------------------------------------ */

static void check_stack_of(pthread_t pthread) {
  pthread_attr_t attributes;
  void *low;
  size_t size;
  CHECK_EQ(pthread_getattr_np(pthread, &attributes), 0);
  CHECK_EQ(pthread_attr_getstack(&attributes, &low, &size), 0);
  CHECK_EQ((uintptr_t)low, (uintptr_t)thread.stack.low);
  CHECK_EQ(size, thread.stack.size);
  pthread_attr_destroy(&attributes);
}

static void check_own_stack(void *arg) {
  (void)arg;
  check_stack_of(pthread_self());
  await(&may_go_on);
}

static void libc_reports_our_stack(void) {
  start(check_own_stack, NULL);
  check_stack_of(thread.pthread);
  end_waiting_thread();
}

/* Not inlined, and through a register that the compiler knows nothing of: else it may take for
 * granted what is to be checked. */
__attribute__((noinline)) static uintptr_t frame_address(void) {
  uintptr_t address = (uintptr_t)__builtin_frame_address(0);
  __asm__ volatile("" : "+r"(address));
  return address;
}

static void check_locals(void *arg) {
  (void)arg;
  uintptr_t low = (uintptr_t)thread.stack.low;
  CHECK_THAT(frame_address(), >, low);
  CHECK_THAT(frame_address(), <, low + thread.stack.size);
}

static void its_locals_lie_in_our_stack(void) {
  run_in_thread(check_locals);
}

/* The ABI has the stack pointer at a multiple of 16 before each call, so two words below it, where
 * frames begin, too. */
static void check_alignment(void *arg) {
  (void)arg;
  uintptr_t address = (uintptr_t)__builtin_frame_address(0);
  __asm__ volatile("" : "+r"(address));
  CHECK_EQ(address % 16, 0);
  char text[32];
  snprintf(text, sizeof text, "%.2f %.2Lf", 1.25, 2.5L); /* libc uses aligned vector moves here */
  CHECK_EQ(strcmp(text, "1.25 2.50"), 0);
}

static void the_stack_is_aligned_at_entry(void) {
  run_in_thread(check_alignment);
}

static void fill_most_of_the_stack(void *arg) {
  (void)arg;
  enum { MOST = STACK_SIZE - (128 << 10) };
  volatile unsigned char most[MOST];
  for (size_t i = 0; i < MOST; i += 1024)
    most[MOST - 1 - i] = (unsigned char)i;
  CHECK_EQ(most[MOST - 1], 0);
}

static void most_of_the_stack_can_be_used(void) {
  run_in_thread(fill_most_of_the_stack);
}

__attribute__((noinline)) static unsigned recurse(unsigned depth) {
  volatile unsigned char frame[256] = {0};
  return depth == 0 ? frame[0] : recurse(depth - 1) + frame[depth % 256];
}

static void recurse_for_ever(void *arg) {
  (void)arg;
  recurse(UINT32_MAX);
}

static void overflow_a_stack(void) {
  run_in_thread(recurse_for_ever);
}

static void an_overflow_hits_the_guard(void) {
  int status = run_in_child(overflow_a_stack);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

/* The object (a library or the program) that this code is in. */
static const void *object_of(const void *code) {
  Dl_info info;
  return dladdr(code, &info) != 0 ? info.dli_fbase : NULL;
}

/* No function of the assembly is longer. */
enum { TRANSFER_CODE_SIZE = 256 };

static bool is_in_transfer(const void *code) {
  uintptr_t transfer = thread.spawn == DROMON_SPAWN_CLONE3 ? (uintptr_t)arch_clone3_transfer
                                                           : (uintptr_t)arch_clone_transfer;
  return (uintptr_t)code - transfer < TRANSFER_CODE_SIZE;
}

static void check_backtrace(void *arg) {
  (void)arg;
  void *frames[32];
  int count = backtrace(frames, 32);
  int i = 0;
  while (i < count && !is_in_transfer(frames[i]))
    i++;
  CHECK_EQ(i < count, thread.spawn != DROMON_SPAWN_PTHREAD);
  const void *libc = object_of((const void *)(uintptr_t)pthread_create);
  CHECK(libc != NULL);
  CHECK_EQ((uintptr_t)object_of(frames[count - 1]), (uintptr_t)libc);
}

/* Out of the worker's frames, through the assembly, into those that the incubator has left. */
static void a_backtrace_leads_to_libcs_thread_entry(void) {
  run_in_thread(check_backtrace);
}

/* ---- What libc keeps per thread ------------------------------------------------------------- */

static void use_malloc(void *arg) {
  (void)arg;
  void *blocks[100];
  for (size_t i = 0; i < 100; i++) {
    blocks[i] = malloc(1 + i * i * 10);
    CHECK(blocks[i] != NULL);
    memset(blocks[i], (int)i, 1 + i * i * 10);
  }
  for (size_t i = 0; i < 100; i++) {
    CHECK_EQ(*(unsigned char *)blocks[i], i);
    free(blocks[i]);
  }
}

static void malloc_works(void) {
  run_in_thread(use_malloc);
}

static void fail_a_call(void *arg) {
  CHECK_EQ(errno, 0);
  await(&may_go_on);
  CHECK_EQ(open("/nowhere", O_RDONLY), -1);
  CHECK_EQ(errno, ENOENT);
  store_release((int *)arg, 1);
}

static void errno_is_its_own(void) {
  int has_failed = 0;
  start(fail_a_call, &has_failed);
  sem_post(&may_go_on);
  errno = EDOM;
  while (!load_acquire(&has_failed))
    continue;
  CHECK_EQ(errno, EDOM);
  thread_join(&thread);
}

static _Thread_local int local = 5;

static void change_local(void *arg) {
  (void)arg;
  CHECK_EQ(local, 5);
  local = 6;
  CHECK_EQ(local, 6);
}

static void thread_locals_begin_fresh_in_each_thread(void) {
  local = 9;
  run_in_thread(change_local);
  run_in_thread(change_local);
  CHECK_EQ(local, 9);
}

static pthread_key_t key;
static pid_t destroyed_in; /* the kernel id of the thread whose key was destroyed */

static void destroy_key(void *value) {
  CHECK_EQ((uintptr_t)value, (uintptr_t)&key);
  destroyed_in = os_gettid();
}

static void set_key(void *arg) {
  (void)arg;
  CHECK(pthread_getspecific(key) == NULL);
  CHECK_EQ(pthread_setspecific(key, &key), 0);
}

static void destructors_of_keys_run_at_its_end(void) {
  destroyed_in = 0;
  CHECK_EQ(pthread_key_create(&key, destroy_key), 0);
  run_in_thread(set_key);
  CHECK_EQ(destroyed_in, thread.tid);
  CHECK_EQ(pthread_key_delete(key), 0);
}

/* ---- Locks that know their owner ------------------------------------------------------------ */

static pthread_mutex_t mutex_make(int type, int robustness) {
  pthread_mutex_t mutex;
  pthread_mutexattr_t attributes;
  CHECK_EQ(pthread_mutexattr_init(&attributes), 0);
  CHECK_EQ(pthread_mutexattr_settype(&attributes, type), 0);
  CHECK_EQ(pthread_mutexattr_setrobust(&attributes, robustness), 0);
  CHECK_EQ(pthread_mutex_init(&mutex, &attributes), 0);
  pthread_mutexattr_destroy(&attributes);
  return mutex;
}

static void lock_twice(void *arg) {
  CHECK_EQ(pthread_mutex_lock(arg), 0);
  CHECK_EQ(pthread_mutex_lock(arg), EDEADLK);
  CHECK_EQ(pthread_mutex_unlock(arg), 0);
  CHECK_EQ(pthread_mutex_unlock(arg), EPERM);
}

static void an_error_checking_mutex_knows_its_owner(void) {
  pthread_mutex_t mutex = mutex_make(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED);
  start(lock_twice, &mutex);
  thread_join(&thread);
  pthread_mutex_destroy(&mutex);
}

static void lock_and_leave(void *arg) {
  CHECK_EQ(pthread_mutex_lock(arg), 0);
}

/* The kernel hands over what is on the dead thread's robust list, if its kernel id is in the lock.
 */
static void a_robust_mutex_outlives_its_owner(void) {
  void *head;
  size_t length;
  if (os_get_robust_list(&head, &length) == -ENOSYS) {
    printf("  not here: no robust lists\n");
    return;
  }
  pthread_mutex_t mutex = mutex_make(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST);
  start(lock_and_leave, &mutex);
  thread_join(&thread);
  CHECK_EQ(pthread_mutex_lock(&mutex), EOWNERDEAD);
  CHECK_EQ(pthread_mutex_consistent(&mutex), 0);
  CHECK_EQ(pthread_mutex_unlock(&mutex), 0);
  pthread_mutex_destroy(&mutex);
}

/* ---- Signals -------------------------------------------------------------------------------- */

static bool tells_of_a_fault(int signal) {
  static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
    if (signal == faults[i])
      return true;
  }
  return false;
}

static void check_mask(void *arg) {
  (void)arg;
  uint64_t can_be_blocked = signals_that_can_be_blocked() & ~OS_LIBC_SIGNALS;
  sigset_t blocked;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
  for (int signal = 1; signal <= SIGRTMAX; signal++) {
    if (can_be_blocked & OS_SIGNAL(signal))
      CHECK_EQ(sigismember(&blocked, signal), !tells_of_a_fault(signal));
  }
}

static void all_signals_but_those_of_faults_are_blocked(void) {
  run_in_thread(check_mask);
}

static void its_creators_mask_stays(void) {
  sigset_t before, after;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &before), 0);
  CHECK_EQ(sigismember(&before, SIGINT), 0);
  run_in_thread(do_nothing);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &after), 0);
  for (int signal = 1; signal <= SIGRTMAX; signal++)
    CHECK_EQ(sigismember(&before, signal), sigismember(&after, signal));
}

/* ---- Its signal stack ----------------------------------------------------------------------- */

static uintptr_t handled_at; /* the frame of the handler */

static void note_frame(int signal) {
  (void)signal;
  handled_at = frame_address();
}

static void check_signal_stack(void *arg) {
  (void)arg;
  const struct stack *own = &thread.signal_stack;
  stack_t present;
  CHECK_EQ(sigaltstack(NULL, &present), 0);
  CHECK_EQ((uintptr_t)present.ss_sp, (uintptr_t)own->low);
  CHECK_EQ(present.ss_size, own->size);
  CHECK_EQ(present.ss_flags, 0);
  CHECK_THAT(own->size, >=, os_signal_frame_size() + 65536);
  CHECK_EQ(raise(SIGTRAP), 0);
  CHECK_THAT(handled_at, >, (uintptr_t)own->low);
  CHECK_THAT(handled_at, <, (uintptr_t)own->low + own->size);
}

static void handlers_may_run_on_its_signal_stack(void) {
  struct sigaction before, action = {.sa_handler = note_frame, .sa_flags = SA_ONSTACK};
  CHECK_EQ(sigaction(SIGTRAP, &action, &before), 0);
  run_in_thread(check_signal_stack);
  CHECK_EQ(sigaction(SIGTRAP, &before, NULL), 0);
}

static void touch_below_signal_stack(void *arg) {
  (void)arg;
  *(volatile unsigned char *)(thread.signal_stack.low - 1) = 1;
}

static void overrun_a_signal_stack(void) {
  run_in_thread(touch_below_signal_stack);
}

static void its_signal_stack_has_a_guard(void) {
  int status = run_in_child(overrun_a_signal_stack);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGSEGV);
}

/* libc runs it when the thread's function has returned. */
static void check_signal_stack_is_not_ours(void *value) {
  stack_t present;
  CHECK_EQ(sigaltstack(NULL, &present), 0);
  CHECK_THAT((uintptr_t)present.ss_sp, !=, (uintptr_t)thread.signal_stack.low);
  *(bool *)value = true;
}

static bool has_checked;

static void set_key_to_check(void *arg) {
  (void)arg;
  CHECK_EQ(pthread_setspecific(key, &has_checked), 0);
}

static void set_key_to_check_and_exit(void *arg) {
  set_key_to_check(arg);
  pthread_exit(NULL);
}

static void its_signal_stack_is_taken_down_however_it_ends(void) {
  CHECK_EQ(pthread_key_create(&key, check_signal_stack_is_not_ours), 0);
  for (int exits = 0; exits < 2; exits++) {
    has_checked = false;
    run_in_thread(exits ? set_key_to_check_and_exit : set_key_to_check);
    CHECK(has_checked);
  }
  CHECK_EQ(pthread_key_delete(key), 0);
}

/* ---- Restartable sequences ------------------------------------------------------------------ */

/* The calling thread's area: what the kernel keeps there, as in <linux/rseq.h>. NULL if libc has
 * none. */
static uint32_t *rseq_area(void) {
  const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
  const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
  if (size == NULL || offset == NULL || *size == 0)
    return NULL;
  return (uint32_t *)(void *)((char *)__builtin_thread_pointer() + *offset);
}

static void move_over_all_processors(void *arg) {
  (void)arg;
  cpu_set_t allowed;
  CHECK_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  volatile uint32_t *area = rseq_area();
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed))
      continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_EQ(sched_getcpu(), cpu);
    if (area != NULL)
      CHECK_EQ(area[1], cpu); /* cpu_id, which the kernel keeps up to date */
  }
}

static void it_knows_its_processor(void) {
  run_in_thread(move_over_all_processors);
}

static void register_again(void *arg) {
  (void)arg;
  if (rseq_area() == NULL)
    return;
  const unsigned *size = dlsym(RTLD_DEFAULT, "__rseq_size");
  CHECK_EQ(os_rseq_register(rseq_area(), *size < 32 ? 32 : *size), -EBUSY);
}

static void its_area_is_registered_already(void) {
  run_in_thread(register_again);
}

/* ---- Other ends ----------------------------------------------------------------------------- */

static void note_cleanup(void *arg) {
  *(bool *)arg = true;
}

__attribute__((noinline, noreturn)) static void exit_from_deep_inside(void *arg) {
  pthread_cleanup_push(note_cleanup, arg);
  CHECK_EQ(pthread_setspecific(key, &key), 0);
  pthread_exit(NULL);
  pthread_cleanup_pop(0);
}

/* It unwinds through all frames, those of the assembly included, to libc's own. */
static void pthread_exit_ends_it_cleanly(void) {
  bool cleaned_up = false;
  destroyed_in = 0;
  CHECK_EQ(pthread_key_create(&key, destroy_key), 0);
  start(exit_from_deep_inside, &cleaned_up);
  thread_join(&thread);
  CHECK(cleaned_up);
  CHECK_EQ(destroyed_in, thread.tid);
  CHECK_EQ(pthread_key_delete(key), 0);
}

static sem_t is_ready; /* the clean-up is in place */

static void wait_for_ever(void *arg) {
  pthread_cleanup_push(note_cleanup, arg);
  sem_post(&is_ready);
  for (;;)
    pause();
  pthread_cleanup_pop(0);
}

static void it_can_be_cancelled(void) {
  bool cleaned_up = false;
  start(wait_for_ever, &cleaned_up);
  await(&is_ready);
  CHECK_EQ(pthread_cancel(thread.pthread), 0);
  thread_join(&thread);
  CHECK(cleaned_up);
}

static void exit_while_it_runs(void) {
  start(wait_in_thread, NULL);
  exit(3);
}

static void the_process_may_exit_while_it_runs(void) {
  int status = run_in_child(exit_while_it_runs);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 3);
}

static void check_forked(void) {
  CHECK_EQ(os_gettid(), getpid());
  CHECK_EQ(count_threads(), 1);
  pthread_mutex_t mutex = mutex_make(PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_STALLED);
  lock_twice(&mutex);
  CHECK_EQ(pthread_kill(pthread_self(), 0), 0);
  use_malloc(NULL);
}

static void fork_in_thread(void *arg) {
  (void)arg;
  CHECK_EQ(run_in_child(check_forked), 0);
  lock_twice(&(pthread_mutex_t)PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP);
}

static void it_can_fork(void) {
  run_in_thread(fork_in_thread);
}

/* ---- Rights --------------------------------------------------------------------------------- */

enum { NOBODY = 65534 };

static void check_rights(void *arg) {
  (void)arg;
  await(&may_go_on);
  uid_t real, effective, saved;
  CHECK_EQ(syscall(SYS_getresuid, &real, &effective, &saved), 0);
  CHECK_EQ(real, NOBODY);
  CHECK_EQ(effective, NOBODY);
  CHECK_EQ(saved, NOBODY);
}

static void give_up_root(void) {
  start(check_rights, NULL);
  CHECK_EQ(setresuid(NOBODY, NOBODY, NOBODY), 0);
  end_waiting_thread();
}

/* Rights are the kernel's per thread; libc changes them in each thread that it knows. One that it
 * does not know would stay root. */
static void setuid_reaches_it(void) {
  if (geteuid() == 0)
    CHECK_EQ(run_in_child(give_up_root), 0);
  else
    printf("  not here: needs root\n");
}

/* ---- Many ----------------------------------------------------------------------------------- */

static void use_libc(void *arg) {
  use_malloc(arg);
  local = 6;
}

static void a_thousand_threads_leave_nothing_behind(void) {
  run_in_thread(use_libc); /* what libc keeps for the next thread is not to be counted */
  await_thread_count(1);
  unsigned mappings = count_mappings();
  for (int i = 0; i < 1000; i++)
    run_in_thread(use_libc);
  await_thread_count(1);
  CHECK_EQ(count_mappings(), mappings);
}

static void the_stacks_are_unmapped_by_the_join(void) {
  run_in_thread(do_nothing);
  unsigned char resident;
  CHECK_EQ(mincore(thread.stack.low, os_page_size(), &resident), -1);
  CHECK_EQ(errno, ENOMEM);
  CHECK_EQ(mincore(thread.signal_stack.low, os_page_size(), &resident), -1);
  CHECK_EQ(errno, ENOMEM);
}

static void check_in(void *arg) {
  fetch_add_relaxed((unsigned *)arg, 1);
  await(&may_go_on);
}

static void many_threads_live_at_once(void) {
  enum { MANY = 100 };
  static struct thread threads[MANY];
  unsigned checked_in = 0;
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(try_to_start(&threads[i], "many", check_in, &checked_in), 0);
  while (load_relaxed(&checked_in) < MANY)
    sleep_a_moment();
  await_thread_count(1 + MANY); /* the incubators are gone */
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(pthread_kill(threads[i].pthread, 0), 0);
  for (int i = 0; i < MANY; i++)
    sem_post(&may_go_on);
  for (int i = 0; i < MANY; i++)
    thread_join(&threads[i]);
  await_thread_count(1);
}

static void start_and_join(void *arg, unsigned index) {
  (void)arg;
  (void)index;
  for (int i = 0; i < 200; i++) {
    struct thread own;
    int value = 0;
    CHECK_EQ(try_to_start(&own, "own", set_to_7, &value), 0);
    thread_join(&own);
    CHECK_EQ(value, 7);
  }
}

static void several_threads_may_start_some_at_once(void) {
  struct threads threads;
  threads_start(&threads, 4, start_and_join, NULL);
  threads_join(&threads);
  await_thread_count(1);
}

/* ---- Where the kernel refuses --------------------------------------------------------------- */

/* What every thread must do, however it was made. */
static void check_sound(void *arg) {
  check_tid(arg);
  check_stack_of(pthread_self());
  check_locals(arg);
  use_libc(arg);
  check_mask(arg);
  move_over_all_processors(arg);
  register_again(arg);
  lock_twice(&(pthread_mutex_t)PTHREAD_ERRORCHECK_MUTEX_INITIALIZER_NP);
  CHECK_EQ(pthread_kill(pthread_self(), 0), 0);
}

/* With AUTO: what the threads are then, and why they are not clone3's. */
static void check_falls_back_to(enum dromon_spawn spawn, int error) {
  creator = os_gettid();
  unsigned mappings = 0;
  for (int i = 0; i < 10; i++) {
    run_in_thread(check_sound);
    CHECK_EQ(thread.spawn, spawn);
    CHECK_EQ(thread.spawn_error, error);
    await_thread_count(1);
    if (i == 0)
      mappings = count_mappings();
  }
  CHECK_EQ(count_mappings(), mappings);
  start(lock_and_leave, &(pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER);
  thread_join(&thread);
  a_robust_mutex_outlives_its_owner();
  destructors_of_keys_run_at_its_end();
  pthread_exit_ends_it_cleanly();
}

static void check_start_fails(enum dromon_spawn wished, int error) {
  unsigned mappings = 0;
  wish = wished;
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(try_to_start(&thread, "", do_nothing, NULL), error);
    await_thread_count(1);
    if (i == 0)
      mappings = count_mappings();
  }
  CHECK_EQ(count_mappings(), mappings);
  wish = DROMON_SPAWN_AUTO;
}

/* In a child: false if there is nothing to be tested, since the filter can't be had. */
static bool refuse_or_say_so(const struct refusal *refusal) {
  if (refuse(refusal))
    return true;
  printf("  not here: no seccomp filters\n");
  return false;
}

/* libc then makes its own threads by clone. */
static const struct refusal no_clone3 = {.call = SYS_clone3, .error = ENOSYS};

static void without_clone3(void) {
  if (!refuse_or_say_so(&no_clone3))
    return;
  CHECK_EQ(dromon_clone3_probe(), -ENOSYS);
  check_falls_back_to(DROMON_SPAWN_CLONE, -ENOSYS);
  check_start_fails(DROMON_SPAWN_CLONE3, -ENOSYS);
}

static void where_clone3_does_not_exist_it_is_made_by_clone(void) {
  CHECK_EQ(run_in_child(without_clone3), 0);
}

/* As at a limit that is reached just between libc's thread and ours. */
static void without_our_clone3(void) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_clone3,
                                          .error = EAGAIN,
                                          .code = (uintptr_t)arch_clone3_transfer,
                                          .code_size = TRANSFER_CODE_SIZE}))
    return;
  check_falls_back_to(DROMON_SPAWN_PTHREAD, -EAGAIN);
  check_start_fails(DROMON_SPAWN_CLONE3, -EAGAIN);
}

static void where_only_our_clone3_fails_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(without_our_clone3), 0);
}

/* libc's clone still works. */
static void without_both_calls(void) {
  struct refusal no_clone = {.call = SYS_clone,
                             .error = EPERM,
                             .code = (uintptr_t)arch_clone_transfer,
                             .code_size = TRANSFER_CODE_SIZE};
  if (!refuse_or_say_so(&no_clone3) || !refuse_or_say_so(&no_clone))
    return;
  check_falls_back_to(DROMON_SPAWN_PTHREAD, -ENOSYS);
  check_start_fails(DROMON_SPAWN_CLONE3, -ENOSYS);
  check_start_fails(DROMON_SPAWN_CLONE, -EPERM);
}

static void where_both_calls_are_refused_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(without_both_calls), 0);
}

/* In a child: with this query, AUTO Stays for this reason and the others can't be had. */
static void check_nothing_is_proven(const struct refusal *refusal, int error) {
  if (!refuse_or_say_so(refusal))
    return;
  check_falls_back_to(DROMON_SPAWN_PTHREAD, error);
  check_start_fails(DROMON_SPAWN_CLONE3, error);
  check_start_fails(DROMON_SPAWN_CLONE, error);
}

/* As in a kernel without CONFIG_CHECKPOINT_RESTORE. */
static void without_the_clear_tid_query(void) {
  check_nothing_is_proven(
      &(struct refusal){
          .call = SYS_prctl, .error = EINVAL, .checks_argument = true, .value = PR_GET_TID_ADDRESS},
      -EINVAL);
}

static void where_the_clear_tid_word_is_not_told_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(without_the_clear_tid_query), 0);
}

/* A filter that answers 0: the call is said to have succeeded and has done nothing. */
static void with_an_empty_clear_tid_query(void) {
  check_nothing_is_proven(
      &(struct refusal){
          .call = SYS_prctl, .error = 0, .checks_argument = true, .value = PR_GET_TID_ADDRESS},
      -ENOSYS);
}

static void where_the_clear_tid_query_tells_nothing_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(with_an_empty_clear_tid_query), 0);
}

/* The query is answered here, with a word that is not the one. */
static uint32_t *(*choose_word)(void);

static void tell_word(int signal, siginfo_t *info, void *context) {
  (void)signal;
  (void)info;
  mcontext_t *registers = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
  *(uint32_t **)registers->gregs[REG_RSI] = choose_word();
  registers->gregs[REG_RAX] = 0;
#elif defined(__aarch64__)
  *(uint32_t **)registers->regs[1] = choose_word();
  registers->regs[0] = 0;
#endif
}

static void check_nothing_is_proven_by(uint32_t *(*word)(void)) {
  struct sigaction action = {.sa_sigaction = tell_word, .sa_flags = SA_SIGINFO};
  choose_word = word;
  CHECK_EQ(sigaction(SIGSYS, &action, NULL), 0);
  check_nothing_is_proven(
      &(struct refusal){
          .call = SYS_prctl, .traps = true, .checks_argument = true, .value = PR_GET_TID_ADDRESS},
      -ENOSYS);
}

/* As under qemu-user before version 9. */
static uint32_t *somebody_elses_word(void) {
  static uint32_t word = 1;
  return &word;
}

static uint32_t *first_word_of_tcb(void) {
  return (uint32_t *)pthread_self();
}

static uint32_t *misplaced_word(void) {
  return (uint32_t *)((uintptr_t)first_word_of_tcb() + 1);
}

static uint32_t *idle_word_of_tcb(void) {
  uint32_t *word = first_word_of_tcb();
  while (*word != 0)
    word++;
  return word;
}

static void with_somebody_elses_word(void) {
  check_nothing_is_proven_by(somebody_elses_word);
}

static void with_a_misplaced_word(void) {
  check_nothing_is_proven_by(misplaced_word);
}

static void with_an_idle_word(void) {
  check_nothing_is_proven_by(idle_word_of_tcb);
}

static void where_the_clear_tid_query_tells_another_word_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(with_somebody_elses_word), 0);
  CHECK_EQ(run_in_child(with_a_misplaced_word), 0);
  CHECK_EQ(run_in_child(with_an_idle_word), 0);
}

/* The kernel would clear the word of the TCB, and not ours, when the incubator ends. */
static void with_a_clear_tid_word_that_stays(void) {
  check_nothing_is_proven(&(struct refusal){.call = SYS_set_tid_address, .error = EPERM}, -ENOSYS);
}

static void with_a_clear_tid_word_that_is_said_to_change(void) {
  check_nothing_is_proven(&(struct refusal){.call = SYS_set_tid_address, .error = 0}, -ENOSYS);
}

static void where_the_clear_tid_word_can_not_be_changed_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(with_a_clear_tid_word_that_stays), 0);
  CHECK_EQ(run_in_child(with_a_clear_tid_word_that_is_said_to_change), 0);
}

static void without_rseq_unregistration(void) {
  if (rseq_area() == NULL) {
    printf("  not here: libc has no rseq area\n");
    return;
  }
  check_nothing_is_proven(
      &(struct refusal){
          .call = SYS_rseq, .error = EPERM, .checks_argument = true, .index = 2, .value = 1},
      -EPERM);
}

static void where_rseq_can_not_be_given_back_it_stays_a_pthread(void) {
  CHECK_EQ(run_in_child(without_rseq_unregistration), 0);
}

static void check_no_thread(int error) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_clone3, .error = error}))
    return;
  for (int spawn = DROMON_SPAWN_AUTO; spawn <= DROMON_SPAWN_PTHREAD; spawn++)
    check_start_fails((enum dromon_spawn)spawn, -error);
}

static void at_the_limit_on_threads(void) {
  check_no_thread(EAGAIN);
}

/* libc takes this for a failure and not for "there is no such call", and so makes no thread. */
static void where_clone3_is_forbidden(void) {
  check_no_thread(EPERM);
}

static void where_libc_can_make_no_thread_the_start_fails(void) {
  CHECK_EQ(run_in_child(at_the_limit_on_threads), 0);
  CHECK_EQ(run_in_child(where_clone3_is_forbidden), 0);
}

/* Only the core's calls by way of libc's syscall(), not those of libc's own thread start. */
static void without_adoption(void) {
  if (!refuse_or_say_so(&(struct refusal){.call = SYS_set_robust_list,
                                          .error = EPERM,
                                          .code = (uintptr_t)dlsym(RTLD_DEFAULT, "syscall"),
                                          .code_size = 64}))
    return;
  check_start_fails(DROMON_SPAWN_AUTO, -EPERM);
  check_start_fails(DROMON_SPAWN_CLONE3, -EPERM);
  check_start_fails(DROMON_SPAWN_CLONE, -EPERM);
}

static void where_adopt_fails_the_start_fails(void) {
  CHECK_EQ(run_in_child(without_adoption), 0);
}

/* ---- All ------------------------------------------------------------------------------------ */

static void run_citizen_tests(void) {
  RUN(a_thread_is_made_as_expected_and_counted);
  RUN(the_function_gets_its_argument_and_the_join_its_effect);
  RUN(options_out_of_range_are_refused);
  RUN(it_knows_its_kernel_id);
  RUN(pthread_self_is_what_its_creator_got);
  RUN(pthread_kill_reaches_it);
  RUN(it_has_its_name_cut_to_15_bytes);
  RUN(its_cpu_clock_can_be_read_from_outside);
  RUN(libc_reports_our_stack);
  RUN(its_locals_lie_in_our_stack);
  RUN(the_stack_is_aligned_at_entry);
  RUN(most_of_the_stack_can_be_used);
  RUN(an_overflow_hits_the_guard);
  RUN_UNLESS(UNDER_ASAN, "since AddressSanitizer wraps what a thread runs",
             a_backtrace_leads_to_libcs_thread_entry);
  RUN(malloc_works);
  RUN(errno_is_its_own);
  RUN(thread_locals_begin_fresh_in_each_thread);
  RUN(destructors_of_keys_run_at_its_end);
  RUN(an_error_checking_mutex_knows_its_owner);
  RUN(a_robust_mutex_outlives_its_owner);
  RUN(all_signals_but_those_of_faults_are_blocked);
  RUN(its_creators_mask_stays);
  RUN(handlers_may_run_on_its_signal_stack);
  RUN(its_signal_stack_has_a_guard);
  RUN(its_signal_stack_is_taken_down_however_it_ends);
  RUN(it_knows_its_processor);
  RUN(its_area_is_registered_already);
  RUN(pthread_exit_ends_it_cleanly);
  RUN(it_can_be_cancelled);
  RUN(the_process_may_exit_while_it_runs);
  RUN(it_can_fork);
  RUN(setuid_reaches_it);
  RUN(a_thousand_threads_leave_nothing_behind);
  RUN(the_stacks_are_unmapped_by_the_join);
  RUN(many_threads_live_at_once);
  RUN(several_threads_may_start_some_at_once);
}

static void run_tests_of_fallback(void) {
  RUN(where_clone3_does_not_exist_it_is_made_by_clone);
  RUN(where_only_our_clone3_fails_it_stays_a_pthread);
  RUN(where_both_calls_are_refused_it_stays_a_pthread);
  RUN(where_the_clear_tid_word_is_not_told_it_stays_a_pthread);
  RUN(where_the_clear_tid_query_tells_nothing_it_stays_a_pthread);
  RUN(where_the_clear_tid_query_tells_another_word_it_stays_a_pthread);
  RUN(where_the_clear_tid_word_can_not_be_changed_it_stays_a_pthread);
  RUN(where_rseq_can_not_be_given_back_it_stays_a_pthread);
  RUN(where_libc_can_make_no_thread_the_start_fails);
  RUN(where_adopt_fails_the_start_fails);
}

/* What this process must do first, and what its threads shall be. */
static const struct variant {
  const char *name;
  enum dromon_spawn wish;
  bool without_clone3;
} variants[] = {
    {"auto", DROMON_SPAWN_AUTO, false},
    {"clone3", DROMON_SPAWN_CLONE3, false},
    {"clone", DROMON_SPAWN_CLONE, false},
    {"pthread", DROMON_SPAWN_PTHREAD, false},
    {"auto-without-clone3", DROMON_SPAWN_AUTO, true},
};

static const struct variant *find_variant(const char *name) {
  for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
    if (strcmp(variants[i].name, name) == 0)
      return &variants[i];
  }
  return NULL;
}

/* Whether this kernel, and what stands between it and this process, has what is needed for it. */
static int find_out_what_is_missing(enum dromon_spawn spawn) {
  uint32_t *word;
  if (spawn == DROMON_SPAWN_PTHREAD)
    return 0;
  if (spawn == DROMON_SPAWN_CLONE3 && dromon_clone3_probe() < 0)
    return dromon_clone3_probe();
  return os_get_clear_tid(&word);
}

/* What AUTO comes to here: the first that can be had. */
static enum dromon_spawn find_out_what_is_best(void) {
  if (find_out_what_is_missing(DROMON_SPAWN_CLONE3) == 0)
    return DROMON_SPAWN_CLONE3;
  if (find_out_what_is_missing(DROMON_SPAWN_CLONE) == 0)
    return DROMON_SPAWN_CLONE;
  return DROMON_SPAWN_PTHREAD;
}

enum { SKIPPED = 77 }; /* to meson */

int main(int argc, char **argv) {
  const struct variant *variant = find_variant(argc > 1 ? argv[1] : "auto");
  CHECK(variant != NULL);
  if (variant->without_clone3 && !refuse_or_say_so(&no_clone3))
    return SKIPPED;
  wish = variant->wish;
  expected = wish == DROMON_SPAWN_AUTO ? find_out_what_is_best() : wish;
  int missing = find_out_what_is_missing(expected);
  if (missing < 0) {
    printf("not here: %s\n", strerror(-missing));
    return SKIPPED;
  }

  sigset_t usr1; /* see pthread_kill_reaches_it */
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &usr1, NULL), 0);
  CHECK_EQ(sem_init(&may_go_on, 0, 0), 0);
  CHECK_EQ(sem_init(&is_ready, 0, 0), 0);
  run_citizen_tests();
  if (wish == DROMON_SPAWN_AUTO && expected == DROMON_SPAWN_CLONE3)
    run_tests_of_fallback();
  return 0;
}
