/* eventcount.c - see eventcount.md, whose event names the comments here use. */
#include "eventcount.h"

#include "os.h"

#include <dromon/dromon.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>

#define PERMIT ((uint64_t)1)
#define PERMITS ((uint64_t)0x7ff) /* the field */
#define CALL ((uint64_t)1 << 11)
#define CALLS ((uint64_t)0xfffff800) /* the field */
#define SLEEPER ((uint64_t)1 << 32)
#define SEARCHER ((uint64_t)1 << 48)

static uint32_t permits_of(uint64_t word) {
  return (uint32_t)(word & PERMITS);
}

static uint64_t sleepers_of(uint64_t word) {
  return (word >> 32) & 0xffff;
}

static uint64_t searchers_of(uint64_t word) {
  return word >> 48;
}

/* The half of the word that the futex sleeps on: permits and calls. */
static const uint32_t *futex_half(const struct eventcount *eventcount) {
  _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "they are the first four bytes");
  _Static_assert(DROMON_WORKERS_MAX <= PERMITS, "each worker may have a permit");
  return (const uint32_t *)&eventcount->word;
}

void eventcount_init(struct eventcount *eventcount) {
  *eventcount = (struct eventcount){0};
}

static void wake(struct eventcount *eventcount, int count) {
  fetch_add_relaxed(&eventcount->wakes, 1);
  os_futex_wake(futex_half(eventcount), count);
}

bool eventcount_notify(struct eventcount *eventcount) {
  /* Adding 0 is a write all the same: a plain load would not order Publish before it against a
   * worker's Announce and Recheck. acq_rel, pairs with eventcount_announce. */
  uint64_t word = fetch_add_acq_rel(&eventcount->word, 0);
  while (searchers_of(word) == 0 && sleepers_of(word) > 0) {
    if (cas_weak_acq_rel(&eventcount->word, &word, word - SLEEPER + PERMIT + SEARCHER)) {
      wake(eventcount, 1);
      return true;
    }
  }
  return sleepers_of(word) > 0;
}

void eventcount_notify_all(struct eventcount *eventcount) {
  /* acq_rel, all three, as in eventcount_notify. */
  uint64_t word = fetch_add_acq_rel(&eventcount->word, 0);
  uint64_t sleepers;
  while ((sleepers = sleepers_of(word)) > 0) {
    uint64_t granted = word + sleepers * (PERMIT + SEARCHER - SLEEPER);
    if (cas_weak_acq_rel(&eventcount->word, &word, granted)) {
      wake(eventcount, INT_MAX);
      return;
    }
  }
}

bool eventcount_search(struct eventcount *eventcount, uint32_t most) {
  /* Relaxed: a first guess for the loop. acq_rel below, as every change of the word. */
  uint64_t word = load_relaxed(&eventcount->word);
  while (searchers_of(word) < most) {
    if (cas_weak_acq_rel(&eventcount->word, &word, word + SEARCHER))
      return true;
  }
  return false;
}

void eventcount_announce(struct eventcount *eventcount, bool searching) {
  /* acq_rel, pairs with eventcount_notify (either order, see eventcount.md). */
  fetch_add_acq_rel(&eventcount->word, searching ? SLEEPER - SEARCHER : SLEEPER);
}

/* Consumes a permit if there is one; its granter has already counted the taker as a searcher. */
static bool take_permit(struct eventcount *eventcount, uint64_t *word) {
  while (permits_of(*word) > 0) {
    /* acq_rel, pairs with the grant in eventcount_notify. */
    if (cas_weak_acq_rel(&eventcount->word, word, *word - PERMIT))
      return true;
  }
  return false;
}

void eventcount_retract(struct eventcount *eventcount) {
  /* Relaxed: a first guess for the loop. acq_rel below, as every change of the word, so that it
   * continues the release sequence that proof step 1 needs. */
  uint64_t word = load_relaxed(&eventcount->word);
  for (;;) {
    if (sleepers_of(word) > 0) {
      if (cas_weak_acq_rel(&eventcount->word, &word, word - SLEEPER + SEARCHER))
        return;
    } else if (take_permit(eventcount, &word)) {
      return;
    }
  }
}

/* By which a worker is called. Others with the same bit only look, and sleep again. */
static uint32_t bit_of(uint32_t index) {
  return (uint32_t)1 << index % 32;
}

void eventcount_sleep(struct eventcount *eventcount, uint32_t index, void *const *called,
                      uint64_t deadline_ns) {
  /* Acquire, pairs with the grant in eventcount_notify, as take_permit does, and with
   * eventcount_call. */
  uint64_t word = load_acquire(&eventcount->word);
  int result = 0;
  /* A permit first: the wake that brought us here may be the one that was made for it. */
  while (!take_permit(eventcount, &word)) {
    /* Acquire, pairs with the push that came before Call: what hangs there is visible. */
    if (result == -ETIMEDOUT || load_acquire(called) != NULL) {
      eventcount_retract(eventcount);
      return;
    }
    result = os_futex_wait_bits(futex_half(eventcount), (uint32_t)word, bit_of(index), deadline_ns);
    word = load_acquire(&eventcount->word); /* as above */
  }
}

void eventcount_call(struct eventcount *eventcount, uint32_t index) {
  /* Relaxed: a first guess for the loop. acq_rel below, pairs with eventcount_announce and
   * eventcount_sleep (either order, see eventcount.md). */
  uint64_t word = load_relaxed(&eventcount->word);
  while (!cas_weak_acq_rel(&eventcount->word, &word, (word & ~CALLS) | ((word + CALL) & CALLS))) {
  }
  if (sleepers_of(word) + permits_of(word) > 0) { /* else nobody is between Announce and work */
    fetch_add_relaxed(&eventcount->wakes, 1);
    os_futex_wake_bits(futex_half(eventcount), bit_of(index));
  }
}

bool eventcount_found(struct eventcount *eventcount) {
  /* acq_rel: every Notify that left its task to us came before this write, so the caller's look at
   * the queue sees that task. */
  return searchers_of(fetch_sub_acq_rel(&eventcount->word, SEARCHER)) == 1;
}

uint32_t eventcount_observe(struct eventcount *eventcount) {
  /* Adding 0 as in eventcount_notify. acq_rel, pairs with it. */
  return (uint32_t)sleepers_of(fetch_add_acq_rel(&eventcount->word, 0));
}

uint32_t eventcount_sleepers(const struct eventcount *eventcount) {
  return (uint32_t)sleepers_of(load_relaxed(&eventcount->word));
}

uint64_t eventcount_wakes(const struct eventcount *eventcount) {
  return load_relaxed(&eventcount->wakes);
}
