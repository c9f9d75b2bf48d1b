/* os.h - every system call of the core that libc has no safe wrapper for.
 *
 * Each is one primitive that returns 0 (or a value) or a negative errno. They are called by threads
 * that have a libc thread control block; what runs on a thread while it has none of its own is
 * written in assembly (arch/).
 */
#ifndef DROMON_CORE_OS_H
#define DROMON_CORE_OS_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Sleeps while `*word == expected`, until a wake. Returns 0, -EAGAIN (it differed) or -EINTR; callers
 * re-check their condition in a loop whatever it was. */
int os_futex_wait(const uint32_t *word, uint32_t expected);

#define OS_NO_DEADLINE UINT64_MAX

/* As os_futex_wait, and -ETIMEDOUT once os_now_ns() is past `deadline_ns`; OS_NO_DEADLINE: never. */
int os_futex_wait_until(const uint32_t *word, uint32_t expected, uint64_t deadline_ns);

/* As os_futex_wait_until, and os_futex_wake_bits wakes it if it has one of these bits, of which there is
 * one at least. */
int os_futex_wait_bits(const uint32_t *word, uint32_t expected, uint32_t bits,
                       uint64_t deadline_ns);

/* As os_futex_wait, for a word that the kernel itself clears and wakes at a thread's end: that wake
 * is keyed as shared, and a private wait would sleep for ever. -ETIMEDOUT once os_now_ns() has reached
 * `deadline_ns`. */
int os_futex_wait_shared(const uint32_t *word, uint32_t expected, uint64_t deadline_ns);

/* Wakes `count` waiters at most, whatever their bits. Only the address is used: the word's memory may
 * already be gone. */
void os_futex_wake(const uint32_t *word, int count);

/* Wakes all who wait with one of these bits, or with no bits of their own. */
void os_futex_wake_bits(const uint32_t *word, uint32_t bits);

/* Lets other threads that want this processor run first. */
void os_yield(void);

pid_t os_gettid(void);

/* Monotonic time in nanoseconds. */
uint64_t os_now_ns(void);

/* The time that is so many nanoseconds from now; OS_NO_DEADLINE if they are below 0. */
uint64_t os_deadline_after(int64_t timeout_ns);

size_t os_page_size(void);

/* All of the calling thread. CPUs are a bit mask; reading gives the bytes that the kernel filled. */
int os_get_affinity(uint64_t *cpus, size_t bytes);
int os_set_affinity(const uint64_t *cpus, size_t bytes);
int os_set_scheduler(int policy);
int os_add_nice(int nice);
void os_get_name(char name[16]);
void os_set_name(const char *name);

/* Sets of signals as the kernel has them: bit n - 1 is signal n. */
#define OS_SIGNAL(n) ((uint64_t)1 << ((n) - 1))
/* What tells a thread of its own fault. */
#define OS_FAULT_SIGNALS                                                                           \
  (OS_SIGNAL(SIGSEGV) | OS_SIGNAL(SIGBUS) | OS_SIGNAL(SIGFPE) | OS_SIGNAL(SIGILL) |                \
   OS_SIGNAL(SIGABRT) | OS_SIGNAL(SIGTRAP) | OS_SIGNAL(SIGSYS))
/* What glibc keeps for its own use, between threads that it knows. Its functions leave these two out
 * of every set that they are given, hence the next one. */
#define OS_LIBC_SIGNALS (OS_SIGNAL(32) | OS_SIGNAL(33))

/* Blocks these signals, and no other, in the calling thread. Returns what was blocked before. */
uint64_t os_set_blocked_signals(uint64_t signals);

uint64_t os_get_blocked_signals(void);

/* Whether the processor keeps a second stack of the calling thread's return addresses, of which a switch from
 * one stack to another knows nothing. */
bool os_has_shadow_stack(void);

/* What the kernel itself puts on a signal stack, on this processor. 0: it does not tell, and it is less
 * than 2 KiB. */
size_t os_signal_frame_size(void);

/* clone3 with arguments that make nothing; what makes a thread is in assembly. */
int os_clone3(const void *args, size_t size);

/* Sets the calling thread's clear-TID address (`set_tid_address`). */
void os_set_clear_tid(uint32_t *word);

/* Reads the calling thread's clear-TID address; -EINVAL where the kernel lacks the query. */
int os_get_clear_tid(uint32_t **word);

int os_get_robust_list(void **head, size_t *length);
int os_set_robust_list(void *head, size_t length);

int os_rseq_register(void *area, uint32_t length);
int os_rseq_unregister(void *area, uint32_t length);

#endif
