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

/* As os_futex_wait, for a word that the kernel itself clears and wakes at a thread's end: that wake
 * is keyed as shared, and a private wait would sleep for ever. */
int os_futex_wait_shared(const uint32_t *word, uint32_t expected);

/* Wakes `count` waiters at most. Only the address is used: the word's memory may already be gone. */
void os_futex_wake(const uint32_t *word, int count);

pid_t os_gettid(void);

/* Monotonic time in nanoseconds. */
uint64_t os_now_ns(void);

size_t os_page_size(void);

/* Sets the calling thread's clear-TID address (`set_tid_address`). */
void os_set_clear_tid(uint32_t *word);

/* Reads the calling thread's clear-TID address; -EINVAL where the kernel lacks the query. */
int os_get_clear_tid(uint32_t **word);

int os_get_robust_list(void **head, size_t *length);
int os_set_robust_list(void *head, size_t length);

int os_rseq_register(void *area, uint32_t length);
int os_rseq_unregister(void *area, uint32_t length);

#endif
