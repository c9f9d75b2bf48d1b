/* atomic.h - atomic operations whose memory order is in their name.
 *
 * Every access to shared memory in the core goes through these, so that the orders in use can be
 * found with grep and each can name its partner in a comment. They work on plain integers and
 * pointers (the GNU builtins), because the public header's structs have plain fields.
 *
 * There is no fence on purpose: ThreadSanitizer does not see fences. Where a thread must write one
 * word and then read another, a protocol of the core has both sides do a read-modify-write of one
 * word or, in the deque alone, makes the accesses to both words seq_cst.
 */
#ifndef DROMON_CORE_ATOMIC_H
#define DROMON_CORE_ATOMIC_H

#include <stdbool.h>
#include <stdint.h>

#define load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define load_seq_cst(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define store_seq_cst(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define exchange_acquire(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQUIRE)
#define exchange_acq_rel(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
#define fetch_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define fetch_add_acq_rel(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define fetch_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
#define fetch_sub_acq_rel(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define fetch_or_acq_rel(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)

/* Weak: may fail spuriously, for loops. On failure `*expected` is what was found. */
#define cas_weak_relaxed(p, expected, v)                                                           \
  __atomic_compare_exchange_n((p), (expected), (v), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#define cas_weak_release(p, expected, v)                                                           \
  __atomic_compare_exchange_n((p), (expected), (v), true, __ATOMIC_RELEASE, __ATOMIC_RELAXED)
#define cas_weak_acq_rel(p, expected, v)                                                           \
  __atomic_compare_exchange_n((p), (expected), (v), true, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
/* Strong: fails only if the value differs. */
#define cas_relaxed(p, expected, v)                                                                \
  __atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#define cas_acq_rel(p, expected, v)                                                                \
  __atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define cas_seq_cst(p, expected, v)                                                                \
  __atomic_compare_exchange_n((p), (expected), (v), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

/* Tells the processor that this is a loop that waits for another one. */
static inline void cpu_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb"); /* `yield` is no pause on processors without several threads per core */
#endif
}

/* Two words that different threads write stand this far apart: two cache lines, since the adjacent
 * line prefetcher of x86 fetches them in pairs. */
#define CACHE_LINES 128

#endif
