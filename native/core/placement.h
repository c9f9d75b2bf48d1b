/* placement.h - where the kernel runs a worker, and what it keeps for that thread alone.
 *
 * The kernel has a CPU affinity, a nice value, a scheduling policy, a name and a signal mask for each
 * thread. A pool sets them for its workers, and a task may change them, on purpose or through a library
 * that it calls; the next task must not find them changed.
 */
#ifndef DROMON_CORE_PLACEMENT_H
#define DROMON_CORE_PLACEMENT_H

#include <dromon/dromon.h>
#include <stddef.h>

/* A copy that outlives the caller's. -EINVAL (no CPU words), -ENOMEM. */
int placement_copy(const dromon_placement *placement, uint32_t workers, dromon_placement *copy);
void placement_free(dromon_placement *copy);

/* Places the calling thread as worker `worker`. A negative errno of the system call that failed:
 * -EINVAL if the worker may use none of the CPUs, -EACCES or -EPERM for a nice value or a policy. */
int placement_apply(const dromon_placement *placement, uint32_t worker);

enum { PLACEMENT_CPU_WORDS = 128 }; /* 8,192 CPUs, the most that Linux can be built for */

/* What a task may change and the next one must find as it was. */
struct own_state {
  uint64_t cpus[PLACEMENT_CPU_WORDS];
  size_t cpu_bytes;
  uint64_t signal_mask;
  char name[16];
};

/* Of the calling thread. Restoring undoes a change from outside (taskset) as well, since it looks the
 * same; what the kernel does not give back (a CPU that was taken from the control group) is not asked
 * for again. */
void own_state_note(struct own_state *state);

/* What a task may have changed, but for the name. */
void own_state_restore(struct own_state *state);

/* Gives the calling thread a name; NULL: its own, if it has another. */
void own_name_set(const struct own_state *state, const char *name);

/* All of it, after a task that took so many nanoseconds. Reading takes three system calls, of which each
 * is left out where the task was too short to have made the one that changes what it reads; that of the
 * name, which is for people to read, is left out a little longer. */
void own_state_restore_after(struct own_state *state, uint64_t task_ns);

#endif
