/* test_clone3.c - what the core takes for granted of clone3 and clone, asked of the kernel itself.
 *
 * From clone(2) and, for what that leaves out, from the kernel's kernel/fork.c (clone3_args_valid and the
 * head of copy_process). Each test is a child process, where a call that should have been refused may
 * make whatever it makes.
 */
#include "arch/arch.h"
#include "process.h"
#include "thread.h"

#include <dromon/dromon.h>
#include <linux/kcmp.h>
#include <linux/sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/utsname.h>

/* ---- Asking --------------------------------------------------------------------------------- */

/* clone3's answer. A process that it made has ended. */
static int ask_with_size(const void *args, size_t size) {
  pid_t asker = getpid();
  int answer = os_clone3(args, size);
  if (answer == 0)
    _exit(getpid() == asker); /* a thread was never asked for: that fails the test */
  if (answer > 0)
    CHECK_EQ(waitpid(answer, NULL, __WALL), answer);
  return answer;
}

static int ask(struct clone_args args) {
  return ask_with_size(&args, sizeof args);
}

static void check_refused(struct clone_args args, int error) {
  CHECK_EQ(ask(args), -error);
}

static struct clone_args process_with(uint64_t flags) {
  return (struct clone_args){.flags = flags, .exit_signal = SIGCHLD};
}

enum { THREAD_FLAGS = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD };

static struct clone_args thread_with(uint64_t flags) {
  return (struct clone_args){.flags = THREAD_FLAGS | flags};
}

static bool kernel_is_at_least(int major, int minor) {
  struct utsname name;
  int has_major = 0, has_minor = 0;
  CHECK_EQ(uname(&name), 0);
  CHECK_EQ(sscanf(name.release, "%d.%d", &has_major, &has_minor), 2);
  return has_major > major || (has_major == major && has_minor >= minor);
}

static bool is_root_or_says_so(void) {
  if (geteuid() == 0)
    return true;
  printf("  in part not here: needs root\n");
  return false;
}

/* ---- Threads that are to be made ------------------------------------------------------------ */

static uint32_t thread_alive; /* its TID until it is gone */

static void do_nothing(void *arg) {
  (void)arg;
}

/* For arch_clone3_bare and arch_clone_bare: C can't go on on another stack. */
static struct clone_args runnable_thread_with(uint64_t flags) {
  static _Alignas(16) unsigned char stack[65536];
  struct arch_bare *top = (struct arch_bare *)(void *)(stack + sizeof stack) - 1;
  *top = (struct arch_bare){.fn = do_nothing};
  return (struct clone_args){
      .flags = THREAD_FLAGS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | flags,
      .parent_tid = (uintptr_t)&thread_alive,
      .child_tid = (uintptr_t)&thread_alive,
      .stack = (uintptr_t)stack,
      .stack_size = (size_t)((unsigned char *)top - stack),
  };
}

static void await_thread(int tid) {
  CHECK_THAT(tid, >, 0);
  uint32_t alive;
  while ((alive = load_acquire(&thread_alive)) != 0)
    os_futex_wait_shared(&thread_alive, alive, OS_NO_DEADLINE);
}

/* ---- The struct's size ---------------------------------------------------------------------- */

struct longer {
  struct clone_args args;
  unsigned char tail[8192];
};

static void each_size_that_there_was_is_accepted(void) {
  static const size_t sizes[] = {CLONE_ARGS_SIZE_VER0, CLONE_ARGS_SIZE_VER1, CLONE_ARGS_SIZE_VER2};
  struct clone_args args = process_with(0);
  CHECK_EQ(sizes[0], 64);
  CHECK_EQ(sizes[1], 80);
  CHECK_EQ(sizes[2], 88);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    CHECK_THAT(ask_with_size(&args, sizes[i]), >, 0);
}

static void a_size_below_the_first_is_refused(void) {
  static const size_t sizes[] = {0, 1, 56, CLONE_ARGS_SIZE_VER0 - 1};
  struct clone_args args = process_with(0);
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
    CHECK_EQ(ask_with_size(&args, sizes[i]), -EINVAL);
}

static void the_probe_makes_nothing_and_is_refused_like_a_short_struct(void) {
  CHECK_EQ(ask_with_size(NULL, 0), -EINVAL);
  CHECK_EQ(dromon_clone3_probe(), 0);
}

static void a_longer_struct_is_accepted_if_its_tail_is_zero(void) {
  struct longer longer = {.args = process_with(0)};
  CHECK_THAT(ask_with_size(&longer, sizeof longer.args + 8), >, 0);
  CHECK_THAT(ask_with_size(&longer, os_page_size()), >, 0);
}

static void a_tail_that_the_kernel_does_not_know_is_too_big(void) {
  struct longer longer = {.args = process_with(0)};
  longer.tail[64] = 1; /* no kernel knows a struct as long as that */
  CHECK_THAT(ask_with_size(&longer, sizeof longer.args + 64), >, 0);
  CHECK_EQ(ask_with_size(&longer, sizeof longer.args + 65), -E2BIG);
}

static void more_than_a_page_is_too_big(void) {
  struct longer longer = {.args = process_with(0)};
  CHECK_EQ(ask_with_size(&longer, os_page_size() + 1), -E2BIG);
  CHECK_EQ(ask_with_size(&longer, SIZE_MAX), -E2BIG);
}

static void a_struct_that_can_not_be_read_is_a_fault(void) {
  CHECK_EQ(ask_with_size(NULL, sizeof(struct clone_args)), -EFAULT);
  CHECK_EQ(ask_with_size((void *)8, sizeof(struct clone_args)), -EFAULT);
}

/* ---- What is refused ------------------------------------------------------------------------ */

static void a_thread_shares_handlers_and_who_shares_those_shares_memory(void) {
  check_refused((struct clone_args){.flags = CLONE_THREAD | CLONE_VM}, EINVAL);
  check_refused((struct clone_args){.flags = CLONE_THREAD}, EINVAL);
  check_refused((struct clone_args){.flags = CLONE_THREAD | CLONE_SIGHAND}, EINVAL);
  check_refused(process_with(CLONE_SIGHAND), EINVAL);
}

static void handlers_are_not_both_shared_and_cleared(void) {
  check_refused(process_with(CLONE_VM | CLONE_SIGHAND | CLONE_CLEAR_SIGHAND), EINVAL);
}

static void an_exit_signal_must_be_one(void) {
  check_refused((struct clone_args){.exit_signal = CSIGNAL + 1}, EINVAL);
  check_refused((struct clone_args){.exit_signal = UINT64_MAX}, EINVAL);
  check_refused((struct clone_args){.exit_signal = (uint64_t)SIGCHLD | (uint64_t)1 << 32}, EINVAL);
  check_refused((struct clone_args){.exit_signal = 65}, EINVAL); /* there are 64 */
}

static void a_thread_or_sibling_has_no_exit_signal(void) {
  check_refused((struct clone_args){.flags = THREAD_FLAGS, .exit_signal = SIGCHLD}, EINVAL);
  check_refused((struct clone_args){.flags = CLONE_PARENT, .exit_signal = SIGCHLD}, EINVAL);
}

/* But for 0x80, which is CLONE_NEWTIME here. */
static void a_signal_in_the_flags_is_refused(void) {
  for (uint64_t bit = 1; bit < CLONE_NEWTIME; bit <<= 1)
    check_refused(process_with(bit), EINVAL);
  check_refused((struct clone_args){.flags = SIGCHLD}, EINVAL);
}

static void an_unused_flag_is_refused(void) {
  check_refused(process_with(CLONE_DETACHED), EINVAL);
  check_refused(thread_with(CLONE_DETACHED), EINVAL);
  check_refused(process_with((uint64_t)1 << 63), EINVAL);
}

static void a_stack_has_both_place_and_size(void) {
  static unsigned char stack[4096];
  struct clone_args args = process_with(0);
  args.stack = (uintptr_t)stack;
  check_refused(args, EINVAL);
  args = process_with(0);
  args.stack_size = sizeof stack;
  check_refused(args, EINVAL);
  args.stack = UINTPTR_MAX - 4095; /* not in this process's half */
  check_refused(args, EINVAL);
}

static void a_pidfd_of_a_thread_may_be_had_from_linux_6_9(void) {
  int pidfd = -1;
  struct clone_args args = runnable_thread_with(CLONE_PIDFD);
  args.pidfd = (uintptr_t)&pidfd;
  int answer = arch_clone3_bare(&args, sizeof args);
  if (!kernel_is_at_least(6, 9)) {
    printf("  refused by this kernel\n");
    CHECK_EQ(answer, -EINVAL);
    return;
  }
  printf("  accepted by this kernel\n");
  await_thread(answer);
  CHECK_THAT(pidfd, >=, 0);
  CHECK_EQ(close(pidfd), 0);
}

static void a_new_mount_or_user_namespace_does_not_go_with_a_shared_root(void) {
  check_refused(process_with(CLONE_NEWNS | CLONE_FS), EINVAL);
  check_refused(process_with(CLONE_NEWUSER | CLONE_FS), EINVAL);
}

static void a_thread_has_its_process_s_namespaces(void) {
  check_refused((struct clone_args){.flags = (THREAD_FLAGS & ~CLONE_FS) | CLONE_NEWUSER}, EINVAL);
  check_refused(thread_with(CLONE_NEWPID), EINVAL);
}

static void a_new_ipc_namespace_does_not_go_with_shared_semaphores(void) {
  if (is_root_or_says_so()) /* else EPERM comes first */
    check_refused(process_with(CLONE_NEWIPC | CLONE_SYSVSEM), EINVAL);
}

static void a_wished_id_has_both_place_and_count(void) {
  pid_t wished[] = {0};
  struct clone_args args = process_with(0);
  args.set_tid = (uintptr_t)wished;
  check_refused(args, EINVAL);
  args.set_tid_size = 1;
  check_refused(args, EINVAL); /* 0 is no id */
  args.set_tid_size = 33;      /* namespaces do not lie deeper than 32 */
  check_refused(args, EINVAL);
  args.set_tid = 0;
  args.set_tid_size = 1;
  check_refused(args, EINVAL);
}

static void a_wished_id_must_be_free(void) {
  pid_t wished[] = {getpid()};
  struct clone_args args = process_with(0);
  args.set_tid = (uintptr_t)wished;
  args.set_tid_size = 1;
  int answer = ask(args);
  CHECK(answer == -EEXIST || answer == -EPERM); /* by the right to wish */
}

static void a_control_group_must_be_a_file_descriptor(void) {
  struct clone_args args = process_with(CLONE_INTO_CGROUP);
  args.cgroup = (uint64_t)INT_MAX + 1;
  check_refused(args, EINVAL);
  args.cgroup = INT_MAX;
  check_refused(args, EBADF);
  CHECK_EQ(ask_with_size(&args, CLONE_ARGS_SIZE_VER1), -EINVAL); /* that struct has no cgroup */
}

/* ---- What legacy clone ignores -------------------------------------------------------------- */

static int clone_process(uint64_t flags) {
  pid_t asker = getpid();
  long answer = syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
  if (answer == 0)
    _exit(getpid() == asker);
  if (answer > 0)
    CHECK_EQ(waitpid((pid_t)answer, NULL, __WALL), answer);
  return answer < 0 ? -errno : (int)answer;
}

static void clone_ignores_an_unused_flag(void) {
  CHECK_THAT(clone_process(SIGCHLD | CLONE_DETACHED), >, 0);
  struct clone_args args = runnable_thread_with(CLONE_DETACHED);
  await_thread(arch_clone_bare(&args));
}

static void clone_ignores_a_threads_exit_signal(void) {
  struct clone_args args = runnable_thread_with(SIGCHLD);
  await_thread(arch_clone_bare(&args));
}

static void clone_ignores_that_an_exit_signal_is_none(void) {
  CHECK_THAT(clone_process(127), >, 0);
}

/* 0x80 is a part of the exit signal here. */
static void clone_knows_no_time_namespaces(void) {
  CHECK_THAT(clone_process(CLONE_NEWTIME), >, 0);
}

static void clone_ignores_flags_that_do_not_fit(void) {
  CHECK_THAT(clone_process(SIGCHLD | CLONE_CLEAR_SIGHAND | (uint64_t)1 << 63), >, 0);
}

static void clone_refuses_the_same_contradictions(void) {
  CHECK_EQ(clone_process(SIGCHLD | CLONE_SIGHAND), -EINVAL);
  CHECK_EQ(clone_process(CLONE_VM | CLONE_THREAD), -EINVAL);
  CHECK_EQ(clone_process(SIGCHLD | CLONE_NEWNS | CLONE_FS), -EINVAL);
  CHECK_EQ(clone_process(SIGCHLD | CLONE_PIDFD | CLONE_DETACHED), -EINVAL);
  CHECK_EQ(clone_process(SIGCHLD | CLONE_PIDFD | CLONE_PARENT_SETTID), -EINVAL);
}

/* ---- What is shared ------------------------------------------------------------------------- */

static const struct {
  int type;
  const char *name;
} resources[] = {
    {KCMP_VM, "VM"},           {KCMP_FILES, "FILES"},     {KCMP_FS, "FS"},
    {KCMP_SIGHAND, "SIGHAND"}, {KCMP_SYSVSEM, "SYSVSEM"},
};

enum { RESOURCES = sizeof resources / sizeof *resources };

/* 0: it is the same one in both, 1 to 3: not, or a negative errno. */
static int compare(pid_t one, pid_t other, int type) {
  long answer = syscall(SYS_kcmp, one, other, type, 0, 0);
  return answer < 0 ? -errno : (int)answer;
}

static bool may_compare(void) {
  int answer = compare(getpid(), getpid(), KCMP_VM);
  if (answer < 0)
    printf("  not here: kcmp: %s\n", strerror(-answer));
  return answer >= 0;
}

static void check_all_is_shared(pid_t tid) {
  for (int i = 0; i < RESOURCES; i++) {
    int answer = compare(getpid(), tid, resources[i].type);
    if (answer != 0)
      fprintf(stderr, "%s: %d\n", resources[i].name, answer);
    CHECK_EQ(answer, 0);
  }
}

/* So that the same answer means something. The thread before has given this process its list of
 * semaphores to undo; the child has none. */
static void check_nothing_is_shared_with_a_child(void) {
  pid_t child = fork();
  CHECK_THAT(child, >=, 0);
  if (child == 0) {
    pause();
    _exit(0);
  }
  for (int i = 0; i < RESOURCES; i++)
    CHECK_THAT(compare(getpid(), child, resources[i].type), >, 0);
  CHECK_EQ(kill(child, SIGKILL), 0);
  CHECK_EQ(waitpid(child, NULL, 0), child);
}

static void await(void *arg) {
  sem_t *may_end = arg;
  while (sem_wait(may_end) < 0)
    CHECK_EQ(errno, EINTR);
}

static void compare_with_worker(enum dromon_spawn spawn) {
  sem_t may_end;
  struct thread thread;
  struct thread_options options = {.stack_size = DROMON_STACK_SIZE_MIN,
                                   .guard_size = DROMON_GUARD_SIZE_DEFAULT,
                                   .name = "worker",
                                   .spawn = spawn};
  CHECK_EQ(sem_init(&may_end, 0, 0), 0);
  CHECK_EQ(thread_start(&thread, &options, await, &may_end), 0);
  check_all_is_shared(thread.tid);
  check_nothing_is_shared_with_a_child();
  sem_post(&may_end);
  thread_join(&thread);
}

static void a_worker_shares_all_that_libcs_threads_share(void) {
  if (!may_compare())
    return;
  compare_with_worker(DROMON_SPAWN_CLONE3);
  compare_with_worker(DROMON_SPAWN_CLONE);
  compare_with_worker(DROMON_SPAWN_PTHREAD);
}

/* ---- All ------------------------------------------------------------------------------------ */

#define RUN_IN_CHILD(test)                                                                         \
  do {                                                                                             \
    setvbuf(stdout, NULL, _IONBF, 0);                                                              \
    printf("%s\n", #test);                                                                         \
    CHECK_EQ(run_in_child(test), 0);                                                               \
  } while (0)

static void run_tests_of_clone3(void) {
  RUN_IN_CHILD(each_size_that_there_was_is_accepted);
  RUN_IN_CHILD(a_size_below_the_first_is_refused);
  RUN_IN_CHILD(the_probe_makes_nothing_and_is_refused_like_a_short_struct);
  RUN_IN_CHILD(a_longer_struct_is_accepted_if_its_tail_is_zero);
  RUN_IN_CHILD(a_tail_that_the_kernel_does_not_know_is_too_big);
  RUN_IN_CHILD(more_than_a_page_is_too_big);
  RUN_IN_CHILD(a_struct_that_can_not_be_read_is_a_fault);
  RUN_IN_CHILD(a_thread_shares_handlers_and_who_shares_those_shares_memory);
  RUN_IN_CHILD(handlers_are_not_both_shared_and_cleared);
  RUN_IN_CHILD(an_exit_signal_must_be_one);
  RUN_IN_CHILD(a_thread_or_sibling_has_no_exit_signal);
  RUN_IN_CHILD(a_signal_in_the_flags_is_refused);
  RUN_IN_CHILD(an_unused_flag_is_refused);
  RUN_IN_CHILD(a_stack_has_both_place_and_size);
  RUN_IN_CHILD(a_pidfd_of_a_thread_may_be_had_from_linux_6_9);
  RUN_IN_CHILD(a_new_mount_or_user_namespace_does_not_go_with_a_shared_root);
  RUN_IN_CHILD(a_thread_has_its_process_s_namespaces);
  RUN_IN_CHILD(a_new_ipc_namespace_does_not_go_with_shared_semaphores);
  RUN_IN_CHILD(a_wished_id_has_both_place_and_count);
  RUN_IN_CHILD(a_wished_id_must_be_free);
  RUN_IN_CHILD(a_control_group_must_be_a_file_descriptor);
  RUN_IN_CHILD(a_worker_shares_all_that_libcs_threads_share);
}

static void run_tests_of_clone(void) {
  RUN_IN_CHILD(clone_ignores_an_unused_flag);
  RUN_IN_CHILD(clone_ignores_a_threads_exit_signal);
  RUN_IN_CHILD(clone_ignores_that_an_exit_signal_is_none);
  RUN_IN_CHILD(clone_knows_no_time_namespaces);
  RUN_IN_CHILD(clone_ignores_flags_that_do_not_fit);
  RUN_IN_CHILD(clone_refuses_the_same_contradictions);
}

int main(void) {
  if (dromon_clone3_probe() == 0)
    run_tests_of_clone3();
  else
    printf("not here: clone3: %s\n", strerror(-dromon_clone3_probe()));
  run_tests_of_clone();
  return 0;
}
