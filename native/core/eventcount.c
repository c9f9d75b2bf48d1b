/* eventcount.c - see eventcount.md, whose event names the comments here use. */
#include "eventcount.h"

#include "os.h"

#include <limits.h>

#define PERMIT ((uint64_t)1)
#define SLEEPER ((uint64_t)1 << 32)
#define SEARCHER ((uint64_t)1 << 48)

static uint32_t permits_of(uint64_t word) {
  return (uint32_t)word;
}

static uint64_t sleepers_of(uint64_t word) {
  return (word >> 32) & 0xffff;
}

static uint64_t searchers_of(uint64_t word) {
  return word >> 48;
}

/* The half of the word that the futex sleeps on. */
static const uint32_t *permits_word(const struct eventcount *eventcount) {
  _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "permits are the first four bytes");
  return (const uint32_t *)&eventcount->word;
}

void eventcount_init(struct eventcount *eventcount) {
  *eventcount = (struct eventcount){0};
}

static void wake(struct eventcount *eventcount, int count) {
  fetch_add_relaxed(&eventcount->wakes, 1);
  os_futex_wake(permits_word(eventcount), count);
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

void eventcount_sleep(struct eventcount *eventcount) {
  /* Acquire, pairs with the grant in eventcount_notify, as take_permit does. */
  uint64_t word = load_acquire(&eventcount->word);
  while (!take_permit(eventcount, &word)) {
    os_futex_wait(permits_word(eventcount), 0);
    word = load_acquire(&eventcount->word);
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
