/* os.h - every system call of the core that libc has no safe wrapper for.
 *
 * Each is one primitive that returns 0 (or a value) or a negative errno. They are called by threads
 * that have a libc thread control block; what runs on a thread while it has none of its own is
 * written in assembly (arch/).
 */
#ifndef DROMON_CORE_OS_H
#define DROMON_CORE_OS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Sleeps while `*word == expected`, until a wake. Returns 0, -EAGAIN (it differed) or -EINTR; callers
 * re-check their condition in a loop whatever it was. */
int os_futex_wait(const uint32_t *word, uint32_t expected);

/* As os_futex_wait, and -ETIMEDOUT once os_now_ns() is past `deadline_ns`; UINT64_MAX: no deadline. */
int os_futex_wait_until(const uint32_t *word, uint32_t expected, uint64_t deadline_ns);

/* As os_futex_wait, for a word that the kernel itself clears and wakes at a thread's end: that wake
 * is keyed as shared, and a private wait would sleep for ever. */
int os_futex_wait_shared(const uint32_t *word, uint32_t expected);

/* Wakes `count` waiters at most. Only the address is used: the word's memory may already be gone. */
void os_futex_wake(const uint32_t *word, int count);

pid_t os_gettid(void);

/* Monotonic time in nanoseconds. */
uint64_t os_now_ns(void);

size_t os_page_size(void);

/* All of the calling thread. CPUs are a bit mask; reading gives the bytes that the kernel filled. */
int os_get_affinity(uint64_t *cpus, size_t bytes);
int os_set_affinity(const uint64_t *cpus, size_t bytes);
int os_set_scheduler(int policy);
int os_add_nice(int nice);
void os_get_name(char name[16]);
void os_set_name(const char *name);

/* Raw, since libc's own would hide two signals that it uses inside. */
void os_get_signal_mask(uint64_t *mask);
void os_set_signal_mask(const uint64_t *mask);

/* Sets the calling thread's clear-TID address (`set_tid_address`). */
void os_set_clear_tid(uint32_t *word);

/* Reads the calling thread's clear-TID address; -EINVAL where the kernel lacks the query. */
int os_get_clear_tid(uint32_t **word);

int os_get_robust_list(void **head, size_t *length);
int os_set_robust_list(void *head, size_t length);

int os_rseq_register(void *area, uint32_t length);
int os_rseq_unregister(void *area, uint32_t length);

#endif
