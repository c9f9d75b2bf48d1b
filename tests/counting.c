/* counting.c - how counted_works.py tells callgrind what to count, and the clock that goes with it. */
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

void start_counting(void) {
  CALLGRIND_START_INSTRUMENTATION;
}

void forget_counts(void) {
  CALLGRIND_ZERO_STATS;
}

/* Into a file of their own, which begins with the name; and forgets them. */
void write_counts(const char *name) {
  CALLGRIND_DUMP_STATS_AT(name);
}

enum { BETWEEN_LOOKS_NS = 100, AHEAD_S = 3600 };

/* In the place of libc's, by LD_PRELOAD. What is done next may depend on the time that something took (how long
 * a chunk of a map is, when a batch ends), and under valgrind that is far longer, and never the same. By this
 * clock a fixed time goes by between two looks. It is ahead of the kernel's, so that nothing that waits until
 * a time is given up early. */
int clock_gettime(clockid_t clock, struct timespec *now) {
  static _Atomic int64_t looks, began_s;
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (clock != CLOCK_MONOTONIC || result != 0)
    return result;
  int64_t unset = 0;
  atomic_compare_exchange_strong(&began_s, &unset, now->tv_sec + AHEAD_S);
  int64_t ns = atomic_fetch_add(&looks, 1) * BETWEEN_LOOKS_NS;
  now->tv_sec = atomic_load(&began_s) + ns / 1000000000;
  now->tv_nsec = ns % 1000000000;
  return 0;
}
