/* measure.h - what the benchmarks in C share.
 *
 * What they see they print, one "name<tab>value" a line. queues, handoff, threads and tasks measure once
 * the one of their things that their argument names: "ns" is what one of them takes; of a thing that
 * cannot be had on this machine they print nothing. workers and queued measure once all that they have.
 * benchmarks/programs.py runs them.
 */
#ifndef DROMON_BENCHMARKS_MEASURE_H
#define DROMON_BENCHMARKS_MEASURE_H

#include "atomic.h"
#include "os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Ends the program, since a step of it failed. */
#define MUST(condition)                                                                            \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);                      \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

static inline void report(const char *name, double value) {
  printf("%s\t%.6g\n", name, value);
}

/* Reports what each of `count` took, of all that ran since `start`. */
static inline void report_each(const char *name, uint64_t start, uint64_t count) {
  report(name, (double)(os_now_ns() - start) / (double)count);
}

static inline int compare(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return (difference > 0) - (difference < 0);
}

/* The median, which the few do not disturb in which somebody else had the processor. Sorts `values`. */
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

static inline bool has_cpu(unsigned n) {
  unsigned count = 0;
  for (unsigned word = 0; word < CPU_WORDS; word++)
    count += (unsigned)__builtin_popcountll(all_cpus[word]);
  return n < count;
}

/* What is to be measured: the only argument. */
static const char *asked;
static bool is_known;

/* First of all, on the main thread. */
static inline void begin(int argc, char **argv) {
  MUST(argc == 2);
  asked = argv[1];
  MUST(os_get_affinity(all_cpus, sizeof all_cpus) >= 0);
}

/* Before a thing is measured: whether it is that one. */
static inline bool is_asked(const char *name) {
  bool is_this = strcmp(asked, name) == 0;
  is_known = is_known || is_this;
  return is_this;
}

/* What main() returns at last. */
static inline int end(void) {
  if (!is_known)
    fprintf(stderr, "nothing is called \"%s\" here\n", asked);
  return is_known ? 0 : 2;
}

#endif
