/* search.h - how long to look for something before sleeping until it comes.
 *
 * To be woken costs tens of microseconds where the processor has gone idle meanwhile, and costs who
 * wakes a system call. So a worker that runs dry first looks again for a while; so do a loop that
 * waits for results, and either of them when it waits for the GIL. That only pays if it comes soon: each search
 * that found something doubles the length of the next one, up to the longest; each that did not halves
 * it. Who has come down to nothing tries again now and then, as long as it may: what comes after each
 * return takes as long to come as that way back.
 *
 * Who looks yields its processor. If others want it, who neither wait for it nor are waited for, it comes back
 * after milliseconds: then sleeping is better, of which the kernel wakes it at once. So one that took
 * much longer than it should is the last for some time: for twice as long after each, until as many others
 * have gone well.
 */
#ifndef DROMON_CORE_SEARCH_H
#define DROMON_CORE_SEARCH_H

#include <stdbool.h>
#include <stdint.h>

struct search {
  uint32_t longest_ns; /* 0: never */
  uint32_t length_ns;
  uint32_t skipped;  /* since it has come down to nothing */
  uint32_t patience; /* it is tried again after so many */
  uint32_t calm;     /* searches since one that took too long */
};

void search_init(struct search *search, uint32_t longest_ns);

/* How long to look now, in nanoseconds; 0: park at once. */
uint32_t search_begin(struct search *search);

/* After each one that was not 0, and took so long. */
void search_end(struct search *search, bool found, uint64_t took_ns);

#endif
