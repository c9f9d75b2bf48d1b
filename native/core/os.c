/* os.c - see os.h. */
#include "os.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The abort signature that glibc's rseq registration uses (sysdeps/unix/sysv/linux/<arch>/bits/rseq.h);
 * the kernel demands the same one at unregistration. */
#if defined(__x86_64__)
#define RSEQ_SIGNATURE 0x53053053u
#elif defined(__aarch64__)
#define RSEQ_SIGNATURE 0xd428bc00u
#endif
#define RSEQ_UNREGISTER 1 /* RSEQ_FLAG_UNREGISTER of <linux/rseq.h>, which may be absent */

static long negative_errno(long result) {
  return result < 0 ? -errno : result;
}

int os_futex_wait(const uint32_t *word, uint32_t expected) {
  return (int)negative_errno(syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0));
}

/* The bitset form takes a point of time, on the clock of os_now_ns, where the plain one takes a
 * length. */
static int futex_wait_until(const uint32_t *word, int operation, uint32_t expected, uint32_t bits,
                            uint64_t deadline_ns) {
  struct timespec deadline = {
      .tv_sec = (time_t)(deadline_ns / 1000000000u),
      .tv_nsec = (long)(deadline_ns % 1000000000u),
  };
  return (int)negative_errno(syscall(SYS_futex, word, operation, expected,
                                     deadline_ns == OS_NO_DEADLINE ? NULL : &deadline, NULL, bits));
}

int os_futex_wait_until(const uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
  return os_futex_wait_bits(word, expected, FUTEX_BITSET_MATCH_ANY, deadline_ns);
}

int os_futex_wait_bits(const uint32_t *word, uint32_t expected, uint32_t bits,
                       uint64_t deadline_ns) {
  return futex_wait_until(word, FUTEX_WAIT_BITSET_PRIVATE, expected, bits, deadline_ns);
}

int os_futex_wait_shared(const uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
  return futex_wait_until(word, FUTEX_WAIT_BITSET, expected, FUTEX_BITSET_MATCH_ANY, deadline_ns);
}

void os_futex_wake(const uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

void os_futex_wake_bits(const uint32_t *word, uint32_t bits) {
  syscall(SYS_futex, word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, bits);
}

void os_yield(void) {
  sched_yield();
}

pid_t os_gettid(void) {
  return (pid_t)syscall(SYS_gettid);
}

uint64_t os_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t os_deadline_after(int64_t timeout_ns) {
  return timeout_ns < 0 ? OS_NO_DEADLINE : os_now_ns() + (uint64_t)timeout_ns;
}

size_t os_page_size(void) {
  return (size_t)sysconf(_SC_PAGESIZE);
}

int os_get_affinity(uint64_t *cpus, size_t bytes) {
  return (int)negative_errno(syscall(SYS_sched_getaffinity, 0, bytes, cpus));
}

int os_set_affinity(const uint64_t *cpus, size_t bytes) {
  return (int)negative_errno(syscall(SYS_sched_setaffinity, 0, bytes, cpus));
}

int os_set_scheduler(int policy) {
  /* Raw: for libc 0 may one day be the process, to the kernel it is the calling thread. */
  struct sched_param parameters = {.sched_priority = 0};
  return (int)negative_errno(syscall(SYS_sched_setscheduler, 0, policy, &parameters));
}

int os_add_nice(int nice) {
  /* The raw call gives 20 - nice, so that a result is never negative. */
  long now = 20 - syscall(SYS_getpriority, PRIO_PROCESS, 0);
  return (int)negative_errno(syscall(SYS_setpriority, PRIO_PROCESS, 0, now + nice));
}

void os_get_name(char name[16]) {
  prctl(PR_GET_NAME, name, 0, 0, 0);
}

void os_set_name(const char *name) {
  prctl(PR_SET_NAME, name, 0, 0, 0);
}

uint64_t os_set_blocked_signals(uint64_t signals) {
  uint64_t previous;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, &signals, &previous, sizeof signals);
  return previous;
}

uint64_t os_get_blocked_signals(void) {
  uint64_t blocked;
  syscall(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &blocked, sizeof blocked);
  return blocked;
}

/* Of <asm/prctl.h> and <linux/prctl.h>, which may be older. Both kernels answer with a set of what is enabled,
 * of which bit 0 is the shadow stack itself, or with an error where there is no such thing. */
#if defined(__x86_64__)
#define ARCH_SHSTK_STATUS 0x5005
static long read_shadow_stack_status(uint64_t *status) {
  return syscall(SYS_arch_prctl, ARCH_SHSTK_STATUS, status);
}
#elif defined(__aarch64__)
#define PR_GET_SHADOW_STACK_STATUS 74
static long read_shadow_stack_status(uint64_t *status) {
  return prctl(PR_GET_SHADOW_STACK_STATUS, status, 0, 0, 0);
}
#endif

bool os_has_shadow_stack(void) {
  uint64_t status = 0;
  return read_shadow_stack_status(&status) == 0 && (status & 1) != 0;
}

size_t os_signal_frame_size(void) {
  return getauxval(AT_MINSIGSTKSZ);
}

int os_clone3(const void *args, size_t size) {
  return (int)negative_errno(syscall(SYS_clone3, args, size));
}

void os_set_clear_tid(uint32_t *word) {
  syscall(SYS_set_tid_address, word);
}

int os_get_clear_tid(uint32_t **word) {
  return (int)negative_errno(prctl(PR_GET_TID_ADDRESS, word, 0, 0, 0));
}

int os_get_robust_list(void **head, size_t *length) {
  return (int)negative_errno(syscall(SYS_get_robust_list, 0, head, length));
}

int os_set_robust_list(void *head, size_t length) {
  return (int)negative_errno(syscall(SYS_set_robust_list, head, length));
}

int os_rseq_register(void *area, uint32_t length) {
  return (int)negative_errno(syscall(SYS_rseq, area, length, 0, RSEQ_SIGNATURE));
}

int os_rseq_unregister(void *area, uint32_t length) {
  return (int)negative_errno(syscall(SYS_rseq, area, length, RSEQ_UNREGISTER, RSEQ_SIGNATURE));
}
