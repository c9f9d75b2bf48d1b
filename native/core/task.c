/* task.c - the states of a task; the drawing of them is in dromon.h.
 *
 * The submitter and at most one worker race for a task's state; each transition is one
 * compare-and-swap, so exactly one of two that exclude each other succeeds. acq_rel: who loses sees
 * what the winner wrote before.
 */
#include "task.h"

#include "atomic.h"

#include <errno.h>

static bool move(dromon_task *task, uint32_t from, uint32_t to) {
  return cas_acq_rel(&task->state, &from, to);
}

void dromon_task_init(dromon_task *task) {
  *task = (dromon_task){.state = DROMON_TASK_QUEUED}; /* published by the queue's own release */
}

void dromon_native_task_init(dromon_native_task *native, int (*fn)(void *), void *arg,
                             dromon_port *port) {
  *native = (dromon_native_task){.fn = fn, .arg = arg, .port = port};
  dromon_task_init(&native->task);
  native->task.native = 1;
}

bool task_start(dromon_task *task) {
  return move(task, DROMON_TASK_QUEUED, DROMON_TASK_RUNNING);
}

int dromon_task_finish(dromon_task *task) {
  return move(task, DROMON_TASK_RUNNING, DROMON_TASK_DONE) ? 0 : -ECANCELED;
}

uint32_t dromon_task_read_state(const dromon_task *task) {
  return load_relaxed(&task->state); /* relaxed: it may be another one right after */
}

int dromon_task_is_withdrawn(const dromon_task *task) {
  /* Relaxed: a submitter withdraws before a worker comes across the task, or never (task_start). */
  uint32_t state = load_relaxed(&task->state);
  return state == DROMON_TASK_WITHDRAWN || state == DROMON_TASK_TAKEN_BACK;
}

bool task_withdraw(dromon_task *task) {
  return move(task, DROMON_TASK_QUEUED, DROMON_TASK_WITHDRAWN);
}

bool task_take_back(dromon_task *task) {
  return move(task, DROMON_TASK_QUEUED, DROMON_TASK_TAKEN_BACK);
}

int dromon_task_abandon(dromon_task *task) {
  return move(task, DROMON_TASK_RUNNING, DROMON_TASK_ABANDONED) ? 0 : -EALREADY;
}
