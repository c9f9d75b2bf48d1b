/* waiting.c - the calls of a pool that no worker has begun, oldest first: who waits, for the warning of
 * a pool that is saturated. And those that were abandoned while they ran, to be ended with the pool.
 *
 * Intrusive lists in the `Pool`, changed with the GIL held or, where there is none, in a critical
 * section of that object. Whoever takes a call out of the first is who moved its task on: the worker that
 * began it, or the submitter that withdrew it. Of a call in another interpreter it is who takes that from
 * its port, or its end. Native calls are not in it, since they begin without the
 * GIL, nor is the call that closes the pool.
 */
#include "bridge.h"

static void append(struct call_list *list, CallObject *call) {
  call->list = list;
  call->newer = NULL;
  call->older = list->newest;
  *(list->newest == NULL ? &list->oldest : &list->newest->newer) = call;
  list->newest = call;
  list->count++;
}

static void take_out(CallObject *call) {
  struct call_list *list = call->list;
  if (list == NULL)
    return;
  *(call->older == NULL ? &list->oldest : &call->older->newer) = call->newer;
  *(call->newer == NULL ? &list->newest : &call->newer->older) = call->older;
  list->count--;
  call->list = NULL;
}

void bridge_waiting_add(CallObject *call) {
  PoolObject *pool = call->pool;
  Py_BEGIN_CRITICAL_SECTION(pool);
  append(&pool->waiting, call);
  Py_END_CRITICAL_SECTION();
}

void bridge_waiting_remove(CallObject *call) {
  Py_BEGIN_CRITICAL_SECTION(call->pool);
  take_out(call);
  Py_END_CRITICAL_SECTION();
}

/* ---- Those that were abandoned -------------------------------------------------------------- */

void bridge_waiting_abandon(CallObject *call) {
  PoolObject *pool = call->pool;
  Py_BEGIN_CRITICAL_SECTION(pool);
  take_out(call); /* one in another interpreter is still in the list of those that wait */
  append(&pool->abandoned, call);
  Py_END_CRITICAL_SECTION();
}

int bridge_waiting_end_abandoned(PoolObject *pool) {
  PyObject *calls = PyList_New(0); /* to cancel one may let other threads in */
  int result = calls == NULL ? -1 : 0;
  Py_BEGIN_CRITICAL_SECTION(pool);
  for (CallObject *call = pool->abandoned.oldest; call != NULL && result == 0; call = call->newer)
    result = PyList_Append(calls, (PyObject *)call);
  Py_END_CRITICAL_SECTION();
  for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(calls); i++)
    result = bridge_call_cancel((CallObject *)PyList_GET_ITEM(calls, i));
  Py_XDECREF(calls);
  return result;
}

/* ---- Those that wait ------------------------------------------------------------------------ */

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
  for (CallObject *call = pool->waiting.oldest; call != NULL && count < most; call = call->newer) {
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
  count = pool->waiting.count;
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
