/* waiting.c - the calls of a pool that no worker has begun, oldest first: who waits, for the warning of
 * a pool that is saturated.
 *
 * An intrusive list in the `Pool`, changed with the GIL held or, where there is none, in a critical
 * section of that object. Whoever takes a call out of it is who moved its task on: the worker that
 * began it, or the submitter that withdrew it. Of a call in another interpreter it is who takes that from
 * its port, or its end. Native calls are not in it, since they begin without the
 * GIL, nor is the call that closes the pool.
 */
#include "bridge.h"

void bridge_waiting_add(CallObject *call) {
  PoolObject *pool = call->pool;
  Py_BEGIN_CRITICAL_SECTION(pool);
  call->waits = true;
  call->waits_before = NULL;
  call->waits_after = pool->newest_waiting;
  if (pool->newest_waiting == NULL)
    pool->oldest_waiting = call;
  else
    pool->newest_waiting->waits_before = call;
  pool->newest_waiting = call;
  pool->waiting_count++;
  Py_END_CRITICAL_SECTION();
}

static void unlink_waiting(PoolObject *pool, CallObject *call) {
  if (call->waits_after == NULL)
    pool->oldest_waiting = call->waits_before;
  else
    call->waits_after->waits_before = call->waits_before;
  if (call->waits_before == NULL)
    pool->newest_waiting = call->waits_after;
  else
    call->waits_before->waits_after = call->waits_after;
  pool->waiting_count--;
}

void bridge_waiting_remove(CallObject *call) {
  PoolObject *pool = call->pool;
  Py_BEGIN_CRITICAL_SECTION(pool);
  if (call->waits)
    unlink_waiting(pool, call);
  call->waits = false;
  Py_END_CRITICAL_SECTION();
}

/* What a waiting call will run, and the future that gets its outcome, or NULL; all are counted. */
struct waiting {
  PyObject *function;
  PyObject *arguments;
  PyObject *future;
};

/* Copies at most `most`, and returns how many. Allocates nothing: that could let other threads in. */
static Py_ssize_t copy_waiting(PoolObject *pool, struct waiting *copies, Py_ssize_t most) {
  Py_ssize_t count = 0;
  Py_BEGIN_CRITICAL_SECTION(pool);
  for (CallObject *call = pool->oldest_waiting; call != NULL && count < most;
       call = call->waits_before) {
    /* Who begins a call in another interpreter cannot take it out of here: its submitter will. */
    if (dromon_task_read_state(&call->native.task) != DROMON_TASK_QUEUED)
      continue;
    copies[count].function = Py_NewRef(call->function);
    copies[count].arguments = Py_NewRef(call->arguments);
    copies[count].future = Py_XNewRef((PyObject *)call->future);
    count++;
  }
  Py_END_CRITICAL_SECTION();
  return count;
}

static Py_ssize_t count_waiting(PoolObject *pool) {
  Py_ssize_t count;
  Py_BEGIN_CRITICAL_SECTION(pool);
  count = pool->waiting_count;
  Py_END_CRITICAL_SECTION();
  return count;
}

/* A list of what `describe` makes of each, where that is not NULL; new references all. */
static PyObject *list_waiting(PoolObject *pool, PyObject *(*describe)(const struct waiting *)) {
  Py_ssize_t count = count_waiting(pool);
  struct waiting *copies = PyMem_New(struct waiting, count);
  if (copies == NULL)
    return PyErr_NoMemory();
  count = copy_waiting(pool, copies, count);
  PyObject *list = PyList_New(0);
  for (Py_ssize_t i = 0; i < count; i++) {
    PyObject *each = list == NULL ? NULL : describe(&copies[i]);
    if ((each != NULL && PyList_Append(list, each) < 0) || PyErr_Occurred())
      Py_CLEAR(list);
    Py_XDECREF(each);
    Py_DECREF(copies[i].function);
    Py_DECREF(copies[i].arguments);
    Py_XDECREF(copies[i].future);
  }
  PyMem_Free(copies);
  return list;
}

static PyObject *pair_of(const struct waiting *waiting) {
  return PyTuple_Pack(2, waiting->function, waiting->arguments);
}

static PyObject *future_of(const struct waiting *waiting) {
  return Py_XNewRef(waiting->future);
}

PyObject *bridge_waiting_list(PoolObject *pool) {
  return list_waiting(pool, pair_of);
}

PyObject *bridge_waiting_futures(PoolObject *pool) {
  return list_waiting(pool, future_of);
}
