/* process.h - what the tests of threads ask of the kernel: what this process holds, children in
 * which something may go wrong, and system calls that are refused.
 */
#ifndef DROMON_TESTS_PROCESS_H
#define DROMON_TESTS_PROCESS_H

#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- What the process holds ----------------------------------------------------------------- */

static inline unsigned count_entries(const char *directory) {
  DIR *entries = opendir(directory);
  CHECK(entries != NULL);
  unsigned count = 0;
  for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
    count += entry->d_name[0] != '.';
  closedir(entries);
  return count;
}

/* Threads that are none of the program's: an emulator's (qemu-user has one). */
static unsigned foreign_threads;

__attribute__((constructor)) static void count_foreign_threads(void) {
  foreign_threads = count_entries("/proc/self/task") - 1;
}

static inline unsigned count_threads(void) {
  return count_entries("/proc/self/task") - foreign_threads;
}

static inline unsigned count_files(void) {
  return count_entries("/proc/self/fd");
}

/* Always 0 under AddressSanitizer, whose own mappings come and go. */
static inline unsigned count_mappings(void) {
  if (UNDER_ASAN)
    return 0;
  FILE *maps = fopen("/proc/self/maps", "r");
  CHECK(maps != NULL);
  unsigned count = 0;
  for (int c; (c = fgetc(maps)) != EOF;)
    count += c == '\n';
  fclose(maps);
  return count;
}

static inline void sleep_a_moment(void) {
  nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* A thread that was joined may be listed for a moment longer: the join ends when the kernel clears
 * the thread's id, which is not the last thing that it does at a thread's end. */
static inline void await_thread_count(unsigned count) {
  while (count_threads() != count)
    sleep_a_moment();
}

/* All but SIGKILL, SIGSTOP and, if there is an emulator (qemu-user), what that keeps for itself. */
static inline uint64_t signals_that_can_be_blocked(void) {
  uint64_t mask = os_set_blocked_signals(UINT64_MAX);
  return os_set_blocked_signals(mask);
}

/* ---- Children ------------------------------------------------------------------------------- */

/* Runs `fn` in a forked child and returns its wait status; 0 if it came back from `fn`. */
static inline int run_in_child(void (*fn)(void)) {
  pid_t child = fork();
  CHECK_THAT(child, >=, 0);
  if (child == 0) {
    alarm(HANGS_AFTER_SECONDS);
    fn();
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return status;
}

/* ---- System calls that are refused ---------------------------------------------------------- */

/* Which calls are refused: those that match all that is given. */
struct refusal {
  uint32_t call;
  int error;      /* what the caller gets as errno; 0: it is told of a success */
  bool traps;     /* the caller gets SIGSYS instead, whose handler may answer */
  uintptr_t code; /* only calls made by code in these bytes; 0: by any */
  uint32_t code_size;
  bool checks_argument; /* only with this value in the low half of argument `index` */
  unsigned index;
  uint32_t value;
};

/* A filter that is being put together. */
struct filter {
  struct sock_filter code[16];
  unsigned short length;
};

static inline struct sock_filter *filter_add(struct filter *filter, int code, uint32_t operand) {
  CHECK_THAT(filter->length, <, 16);
  struct sock_filter *instruction = &filter->code[filter->length++];
  *instruction = (struct sock_filter){.code = (uint16_t)code, .k = operand};
  return instruction;
}

static inline void filter_load(struct filter *filter, size_t offset_in_data) {
  filter_add(filter, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset_in_data);
}

/* Goes on if the comparison is as `wanted`, else to the end, how far that may be: the 1 in a jump
 * becomes the distance in filter_complete. */
static inline void filter_demand(struct filter *filter, int comparison, uint32_t operand,
                                 bool wanted) {
  struct sock_filter *jump = filter_add(filter, BPF_JMP | comparison | BPF_K, operand);
  jump->jt = !wanted;
  jump->jf = wanted;
}

static inline void filter_complete(struct filter *filter, uint32_t action) {
  filter_add(filter, BPF_RET | BPF_K, action);
  filter_add(filter, BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  unsigned end = filter->length - 1u;
  for (unsigned i = 0; i < end; i++) {
    filter->code[i].jt *= (uint8_t)(end - i - 1);
    filter->code[i].jf *= (uint8_t)(end - i - 1);
  }
}

static inline void filter_demand_code(struct filter *filter, uintptr_t code, uint32_t size) {
  size_t instruction = offsetof(struct seccomp_data, instruction_pointer);
  filter_load(filter, instruction + 4);
  filter_demand(filter, BPF_JEQ, (uint32_t)(code >> 32), true);
  filter_load(filter, instruction);
  filter_add(filter, BPF_ALU | BPF_SUB | BPF_K, (uint32_t)code);
  filter_demand(filter, BPF_JGE, size, false);
}

/* For a child without other threads: from now on the kernel refuses these calls. There is no way
 * back. False if this process may not have such filters. */
static inline bool refuse(const struct refusal *refusal) {
  struct filter filter = {.length = 0};
  filter_load(&filter, offsetof(struct seccomp_data, nr));
  filter_demand(&filter, BPF_JEQ, refusal->call, true);
  if (refusal->code != 0)
    filter_demand_code(&filter, refusal->code, refusal->code_size);
  if (refusal->checks_argument) {
    filter_load(&filter, offsetof(struct seccomp_data, args) + 8 * refusal->index);
    filter_demand(&filter, BPF_JEQ, refusal->value, true);
  }
  filter_complete(&filter, refusal->traps ? (uint32_t)SECCOMP_RET_TRAP
                                          : SECCOMP_RET_ERRNO | (uint32_t)refusal->error);
  struct sock_fprog program = {.len = filter.length, .filter = filter.code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

#endif
