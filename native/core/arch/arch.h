/* arch.h - what each processor provides in assembly (one file per processor in this folder).
 *
 * Two sorts of thread (thread.h, bare_thread.h), each by two system calls: clone3, and clone for where
 * clone3 is refused. Both take the same struct. Of it clone knows `flags`, `stack` and `stack_size`
 * (it is given the stack's top), `parent_tid`, `child_tid` and `tls`, in an order of registers that
 * differs between processors; the rest must be 0.
 *
 * And the switch from one stack to another, which is no system call.
 */
#ifndef DROMON_CORE_ARCH_H
#define DROMON_CORE_ARCH_H

#include <stddef.h>

struct clone_args; /* <linux/sched.h> */

/* Moves the caller's execution to a new kernel thread.
 *
 * Makes a thread from `args` (for clone3 of `size` bytes), which runs fn(arg) on the stack that `args`
 * gives, while the calling thread leaves by a raw `exit` system call, at once and without touching its
 * stack. When fn returns, the *new* thread returns 0 from this very call, on the caller's stack: to
 * the calling function nothing happened but that its thread has another kernel id.
 *
 * If the thread cannot be made, returns a negative errno on the calling thread.
 *
 * fn must neither return nor write to the caller's frames before the kernel has cleared the caller's
 * clear-TID word: until then the caller still stands on them. */
int arch_clone3_transfer(struct clone_args *args, size_t size, void (*fn)(void *), void *arg);
int arch_clone_transfer(struct clone_args *args, void (*fn)(void *), void *arg);

/* What a bare thread begins with: the top of the stack that `args` gives (stack + stack_size, a
 * multiple of 16) points to it. */
struct arch_bare {
  void (*fn)(void *);
  void *arg;
};

/* Makes a thread that runs fn(arg) of the `struct arch_bare` at its stack's top and then leaves by the
 * `exit` system call. It comes back to no code of its creator's, and a debugger's backtrace ends at
 * its entry. Returns its kernel id, or a negative errno. */
int arch_clone3_bare(struct clone_args *args, size_t size);
int arch_clone_bare(struct clone_args *args);

/* Leaves the calling stack and goes on with another one: saves what a function must keep (on x86-64 rbx,
 * rbp, r12 to r15, mxcsr and the x87 control word; on aarch64 x19 to x30, d8 to d15 and fpcr) and stores
 * the stack pointer in *from, then continues `to`: a value that arch_switch has stored or arch_prepare has
 * returned, each of which can be continued once. It returns when somebody continues what is in *from,
 * which must be done by the same thread: compilers keep addresses of thread-locals across calls.
 *
 * What belongs to the thread and not to the stack (thread-locals, errno, the signal mask, the state of the
 * C++ runtime: cxx.h) stays as it is. With shadow stacks (CET, GCS) it must not be called: the return would
 * fault.
 *
 * The sanitizers keep a picture of the running stack, so a caller has to tell them of each switch:
 * AddressSanitizer by __sanitizer_start_switch_fiber before, and by __sanitizer_finish_switch_fiber as the
 * first thing that happens on the other stack (also where a prepared one begins); ThreadSanitizer by
 * __tsan_switch_to_fiber right before, from a function that is not instrumented between the two. */
void arch_switch(void **from, void *to);

/* Makes a stack that ends at `stack_top` such that the first arch_switch to what this returns calls
 * fn(arg) there, with the floating-point settings that a process starts with. fn must not return: it would
 * trap. A debugger's backtrace ends below fn. */
void *arch_prepare(void *stack_top, void (*fn)(void *), void *arg);

#endif
