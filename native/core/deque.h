/* deque.h - a worker's own queue of fixed capacity, from which other workers steal, without locks.
 *
 * The deque of Chase and Lev (SPAA 2005, doi 10.1145/1073970.1073974) in C11 (Le, Pop, Cohen and
 * Zappa Nardelli, PPoPP 2013, doi 10.1145/2442516.2442524). Values stand between two positions:
 * `bottom`, which only the owner writes, and `top`, which only ever grows. The owner pushes and pops
 * at the bottom, thieves steal at the top. Positions count without end, and a value of position p is
 * in slot p modulo capacity.
 *
 *      owner, push                    owner, pop                     thief
 *      Fill     slot = value          Reserve  bottom - 1            Aim   look at top
 *      Publish  bottom + 1            Look     at top                Look  at bottom: nothing there?
 *                                     Read     the slot              Read  the slot
 *                                     Take     only of the last one: Take  top + 1, if it is still
 *                                              as a thief                  as at Aim; else again
 *                                     Restore  bottom + 1, if Look or
 *                                              Take found nothing left
 *
 * Guarantees: every pushed pointer is taken exactly once. The owner's pop takes the newest, a steal
 * the oldest. No call waits: who goes round again does so because another one took something.
 *
 * Why. All changes of `top` are Takes, compare-and-swaps that read different values of it: of those
 * who Read position p, one Takes it. What remains is a pop that Takes nothing, since it saw at Look
 * that p is not the last one: top < p.
 *  1. No thief takes p too. Its Aim would have to find top == p, its Look bottom > p. Reserve and both
 *     Looks, Aim and all Takes are seq_cst, so they are in one order: Reserve, the owner's Look, the
 *     Take that makes top == p (the Look did not see it), Aim (which sees it), the thief's Look. So
 *     that Look finds what Reserve wrote or what came later: bottom > p only if p was pushed anew.
 *     (Acquire and release would let Reserve be seen after the owner's Look, and p be taken twice.)
 *  2. A thief's Take of p succeeds only for the value that it Read. Publish is a release, the thief's
 *     Look an acquire: it sees what was Filled before, and what the value points to. Could the slot
 *     have been Filled anew since? For p + capacity only after push has seen top > p, and then Take
 *     fails. For p only after the owner has popped p: by a Take, and then that of the thief fails; or
 *     without one, and then by 1 the thief's Look was later and found the new Publish.
 *     Read comes before Take because after it the slot is the owner's: push's look at top (acquire)
 *     sees the Take (release), and so Fill comes after Read.
 *  3. Restore may be relaxed: whoever Looks at it with an older Aim fails to Take.
 *  4. Publish need not be seq_cst: who misses it sees fewer values than there are, which is no harm
 *     to what it takes. But a thief that was told must not miss it: if the pusher writes a word by
 *     read-modify-write after the push, and the thief writes it by read-modify-write later, then
 *     Publish happens before the thief's Look (eventcount.md, "No wake-up is lost", 1).
 *
 * NULL is true: a steal gives it when its Look found bottom at or below the top of its Aim, and top
 * has only grown since. At that moment the deque was empty, or its last value was Reserved: in the
 * hands of the owner, or of a thief that is faster.
 */
#ifndef DROMON_CORE_DEQUE_H
#define DROMON_CORE_DEQUE_H

#include "atomic.h"

#include <stdint.h>

struct deque {
  void **slots;
  uint64_t mask; /* capacity - 1 */
  _Alignas(CACHE_LINES) uint64_t bottom;
  _Alignas(CACHE_LINES) uint64_t top;
};

/* `capacity`: a power of two. -EINVAL or -ENOMEM. */
int deque_init(struct deque *deque, uint64_t capacity);
void deque_destroy(struct deque *deque);

/* By the owner. False if the deque is full. `value` is not NULL. */
bool deque_push(struct deque *deque, void *value);

/* By the owner. The newest value; NULL if there is none. */
void *deque_pop(struct deque *deque);

/* By the owner. What deque_pop gives, unless it gives NULL. */
void *deque_newest(const struct deque *deque);

/* By anybody, the owner too. The oldest value; NULL if there is none. */
void *deque_steal(struct deque *deque);

/* How many values are between the two positions right now. */
uint64_t deque_count(const struct deque *deque);

#endif
