/* pinned.h - the tasks that one worker alone may run, newest and oldest first. For that worker's thread. */
#ifndef DROMON_CORE_PINNED_H
#define DROMON_CORE_PINNED_H

#include "atomic.h"

#include <dromon/dromon.h>
#include <stddef.h>

struct pinned {
  dromon_task *newest, *oldest; /* `next` is an older one, `previous` a newer one */
};

static inline void pinned_push(struct pinned *pinned, dromon_task *task, const void *home) {
  store_relaxed(&task->home,
                home); /* relaxed: for others it is not to be compared with their own */
  task->previous = NULL;
  task->next = pinned->newest;
  *(pinned->newest == NULL ? &pinned->oldest : &pinned->newest->previous) = task;
  pinned->newest = task;
}

static inline void pinned_remove(struct pinned *pinned, dromon_task *task) {
  *(task->previous == NULL ? &pinned->newest : &task->previous->next) = task->next;
  *(task->next == NULL ? &pinned->oldest : &task->next->previous) = task->previous;
}

static inline dromon_task *pinned_pop(struct pinned *pinned) {
  dromon_task *task = pinned->newest;
  if (task != NULL)
    pinned_remove(pinned, task);
  return task;
}

static inline dromon_task *pinned_pop_oldest(struct pinned *pinned) {
  dromon_task *task = pinned->oldest;
  if (task != NULL)
    pinned_remove(pinned, task);
  return task;
}

#endif
