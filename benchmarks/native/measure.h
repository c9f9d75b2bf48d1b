/* measure.h - what the benchmarks in C share.
 *
 * Each program goes round a number of times, measures each of its things once in every round, so that
 * a machine that gets slower or faster gives each the same share of it, and prints what it saw, one
 * "name<tab>nanoseconds" a line. benchmarks/native.py makes a table of it.
 */
#ifndef DROMON_BENCHMARKS_MEASURE_H
#define DROMON_BENCHMARKS_MEASURE_H

#include "atomic.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>

/* Ends the program, since a step of it failed. */
#define MUST(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                      \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

static inline void report(const char *name, double value) {
  printf("%s\t%.2f\n", name, value);
}

/* Reports what each of `count` took, of all that ran since `start`. */
static inline void report_each(const char *name, uint64_t start, uint64_t count) {
  report(name, (double)(os_now_ns() - start) / (double)count);
}

static inline int compare(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

/* Sorts `values`. */
static inline double median(double *values, unsigned count) {
  qsort(values, count, sizeof *values, compare);
  return values[count / 2];
}

enum { CPU_WORDS = 16 };

/* The CPUs that this program may use. */
static uint64_t all_cpus[CPU_WORDS];

/* The n-th of them, from 0; the last one if there are not so many. */
static inline void choose_cpu(unsigned n, uint64_t cpus[CPU_WORDS]) {
  unsigned chosen = 0;
  for (unsigned cpu = 0, seen = 0; cpu < CPU_WORDS * 64 && seen <= n; cpu++) {
    if ((all_cpus[cpu / 64] >> cpu % 64 & 1) == 0)
      continue;
    chosen = cpu;
    seen++;
  }
  for (unsigned word = 0; word < CPU_WORDS; word++)
    cpus[word] = word == chosen / 64 ? (uint64_t)1 << chosen % 64 : 0;
}

static inline void run_on(unsigned n) {
  uint64_t cpus[CPU_WORDS];
  choose_cpu(n, cpus);
  MUST(os_set_affinity(cpus, sizeof cpus) == 0);
}

static inline bool has_two_cpus(void) {
  unsigned count = 0;
  for (unsigned word = 0; word < CPU_WORDS; word++)
    count += (unsigned)__builtin_popcountll(all_cpus[word]);
  return count > 1;
}

/* First of all, on the main thread. Returns the rounds to go: the only argument. */
static inline unsigned begin(int argc, char **argv) {
  MUST(os_get_affinity(all_cpus, sizeof all_cpus) >= 0);
  return argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 1;
}

#endif
