/* placement.h - where the kernel runs a worker, and what it keeps for that thread alone.
 *
 * The kernel has a CPU affinity, a nice value, a scheduling policy, a name and a signal mask for each
 * thread. A pool sets them for its workers, and a task may change them, on purpose or through a library
 * that it calls; the next task must not find them changed.
 */
#ifndef DROMON_CORE_PLACEMENT_H
#define DROMON_CORE_PLACEMENT_H

#include <dromon/dromon.h>
#include <stdbool.h>
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
  char shown[16];      /* the name that the thread was given last */
  bool shown_is_known; /* no task may have given it another one since */
};

/* Of the calling thread. Restoring undoes a change from outside (taskset) as well, since it looks the
 * same; what the kernel does not give back (a CPU that was taken from the control group) is not asked
 * for again. */
void own_state_note(struct own_state *state);

/* After a task that took so many nanoseconds (UINT64_MAX: it is not known). Reading takes a system call
 * for each part, which is left out where the task was too short to have made the one that changes it; for
 * the name, which is for people to read, a little longer. The name itself is restored by own_name_set. */
void own_state_restore(struct own_state *state, uint64_t task_ns);

/* Gives the calling thread a name; NULL: its own. */
void own_name_set(struct own_state *state, const char *name);

#endif
