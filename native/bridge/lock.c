/* lock.c - `Lock` and `RLock`: locks that belong to a task; see sync.h.
 *
 * To a task, not to its OS thread, on which others run while it is parked. Outside of tasks a lock belongs to the
 * thread. Who releases it hands it to the oldest waiter, which makes itself the owner when it runs: until
 * then the lock is nobody's but not free.
 */
#include "sync.h"

#include "task.h"

struct owner {
  TaskObject *task;    /* NULL: none, but */
  unsigned long ident; /* the thread with this ident; 0: nobody */
};

typedef struct {
  PyObject_HEAD
  struct waiters waiters;
  struct owner owner; /* with a reference to the task */
  Py_ssize_t depth;   /* how often the owner has acquired it; 0: it is free */
} LockObject;

static bool is_reentrant(LockObject *self) {
  return Py_TYPE(self) == bridge_state_of(Py_TYPE(self))->rlock_type;
}

static const char *name_of(LockObject *self) {
  return is_reentrant(self) ? "RLock" : "Lock";
}

static const char *acquire_of(LockObject *self) {
  return is_reentrant(self) ? "RLock.acquire" : "Lock.acquire";
}

/* The caller, without a reference. False with an exception. */
static bool get_caller(LockObject *self, struct owner *caller) {
  *caller = (struct owner){.task = bridge_current_task(bridge_state_of(Py_TYPE(self)))};
  if (caller->task != NULL)
    return true;
  caller->ident = PyThread_get_thread_ident();
  return PyErr_Occurred() == NULL;
}

/* These four with the lock locked. */

static bool is_owner(LockObject *self, struct owner caller) {
  return self->owner.task == caller.task && self->owner.ident == caller.ident;
}

static void own(LockObject *self, struct owner caller) {
  self->owner = caller;
  Py_XINCREF((PyObject *)caller.task);
}

enum attempt { ACQUIRED, HELD, HELD_BY_CALLER };

static enum attempt try_to_acquire(LockObject *self, struct owner caller) {
  if (self->depth > 0 && !is_owner(self, caller))
    return HELD;
  if (self->depth > 0 && !is_reentrant(self))
    return HELD_BY_CALLER;
  if (self->depth++ == 0)
    own(self, caller);
  return ACQUIRED;
}

/* Returns the task that has owned it, whose reference is the caller's now; or NULL. */
static TaskObject *hand_over(LockObject *self) {
  TaskObject *task = self->owner.task;
  self->owner = (struct owner){0};
  self->depth = bridge_wake_one(&self->waiters, NULL);
  return task;
}

static PyObject *refuse_again(void) {
  PyErr_SetString(PyExc_RuntimeError, "attempt to re-acquire an already held Lock");
  return NULL;
}

PyDoc_STRVAR(
    acquire_doc,
    "acquire($self, /, timeout=None)\n--\n\n"
    "Acquire the lock, once those have had it who have waited longer.\n"
    "\n"
    "Raises `TimeoutError` after ``timeout`` seconds, and `RuntimeError` in the thread of an\n"
    "event loop, or if a `Lock` (not an `RLock`) is its caller's already.\n"
    "\n"
    "**Cancellation** ends the wait; the lock is not acquired then.");

static PyObject *acquire(LockObject *self, int64_t timeout_ns) {
  struct owner caller;
  if (bridge_check_wait("trio.Lock") < 0 || !get_caller(self, &caller))
    return NULL;
  struct waiter waiter;
  enum attempt attempt;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  attempt = try_to_acquire(self, caller);
  if (attempt == HELD)
    bridge_waiter_add(&self->waiters, &waiter);
  Py_END_CRITICAL_SECTION();
  if (attempt == HELD_BY_CALLER)
    return refuse_again();
  if (attempt == ACQUIRED)
    Py_RETURN_NONE;
  if (!bridge_wait_on((PyObject *)self, &waiter, acquire_of(self), timeout_ns))
    return NULL;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  own(self, caller);
  Py_END_CRITICAL_SECTION();
  Py_RETURN_NONE;
}

static PyObject *lock_acquire(LockObject *self, PyObject *const *args, Py_ssize_t nargs,
                              PyObject *keywords) {
  int64_t timeout_ns;
  if (!bridge_timeout_argument(acquire_of(self), args, nargs, keywords, &timeout_ns))
    return NULL;
  return acquire(self, timeout_ns);
}

PyDoc_STRVAR(
    acquire_nowait_doc,
    "acquire_nowait($self, /)\n--\n\n"
    "Acquire the lock if that is possible at once. From any thread.\n"
    "\n"
    "Raises `WouldBlock` if it is another's, and `RuntimeError` if a `Lock` (not an `RLock`)\n"
    "is its caller's already.");

static PyObject *lock_acquire_nowait(LockObject *self, PyObject *Py_UNUSED(ignored)) {
  struct owner caller;
  if (!get_caller(self, &caller))
    return NULL;
  enum attempt attempt;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  attempt = try_to_acquire(self, caller);
  Py_END_CRITICAL_SECTION();
  if (attempt == HELD_BY_CALLER)
    return refuse_again();
  if (attempt == ACQUIRED)
    Py_RETURN_NONE;
  PyErr_Format(bridge_state_of(Py_TYPE(self))->would_block, "the %s is held", name_of(self));
  return NULL;
}

PyDoc_STRVAR(
    release_doc,
    "release($self, /)\n--\n\n"
    "Release the lock, which goes to who has waited longest.\n"
    "\n"
    "An `RLock`: once for each time that it was acquired. Raises `RuntimeError` if it is not\n"
    "its caller's.");

static PyObject *lock_release(LockObject *self, PyObject *Py_UNUSED(ignored)) {
  struct owner caller;
  if (!get_caller(self, &caller))
    return NULL;
  TaskObject *former = NULL;
  bool owned;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  owned = is_owner(self, caller);
  if (owned && --self->depth == 0)
    former = hand_over(self);
  Py_END_CRITICAL_SECTION();
  Py_XDECREF((PyObject *)former);
  if (owned)
    Py_RETURN_NONE;
  return PyErr_Format(PyExc_RuntimeError, "can't release a %s you don't own", name_of(self));
}

PyDoc_STRVAR(locked_doc, "locked($self, /)\n--\n\n"
                         "Return whether somebody holds the lock.");

static PyObject *lock_locked(LockObject *self, PyObject *Py_UNUSED(ignored)) {
  bool locked;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  locked = self->depth > 0;
  Py_END_CRITICAL_SECTION();
  return PyBool_FromLong(locked);
}

static PyObject *get_owner(LockObject *self, void *Py_UNUSED(closure)) {
  struct owner owner;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  owner = self->owner;
  Py_XINCREF((PyObject *)owner.task);
  Py_END_CRITICAL_SECTION();
  if (owner.task != NULL)
    return (PyObject *)owner.task;
  if (owner.ident != 0)
    return PyLong_FromUnsignedLong(owner.ident);
  Py_RETURN_NONE;
}

static PyGetSetDef lock_properties[] = {
    {"owner", (getter)get_owner, NULL,
     "The `Task` that holds it, or else the ident of the thread that does; None if nobody does.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyObject *lock_enter(LockObject *self, PyObject *Py_UNUSED(ignored)) {
  return acquire(self, -1);
}

static PyObject *lock_exit(LockObject *self, PyObject *const *Py_UNUSED(args),
                           Py_ssize_t Py_UNUSED(nargs)) {
  return lock_release(self, NULL);
}

static int lock_traverse(LockObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT((PyObject *)self->owner.task);
  return 0;
}

static int lock_clear(LockObject *self) {
  PyObject *task = (PyObject *)self->owner.task;
  self->owner.task = NULL;
  Py_XDECREF(task);
  return 0;
}

static void lock_dealloc(LockObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  lock_clear(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyMethodDef lock_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))lock_acquire, METH_FASTCALL | METH_KEYWORDS,
     acquire_doc},
    {"acquire_nowait", (PyCFunction)lock_acquire_nowait, METH_NOARGS, acquire_nowait_doc},
    {"release", (PyCFunction)lock_release, METH_NOARGS, release_doc},
    {"locked", (PyCFunction)lock_locked, METH_NOARGS, locked_doc},
    {"__enter__", (PyCFunction)lock_enter, METH_NOARGS, NULL},
    {"__exit__", (PyCFunction)(void (*)(void))lock_exit, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(lock_doc, "Lock()\n--\n\n"
                       "A lock that belongs to the task, or else to the thread, that has acquired "
                       "it.");

PyDoc_STRVAR(rlock_doc,
             "RLock()\n--\n\n"
             "A `Lock` that its owner can acquire again; it has to be released as often.");

#define SLOTS                                                                                      \
  {Py_tp_methods, lock_methods}, {Py_tp_getset, lock_properties}, {Py_tp_traverse, lock_traverse}, \
      {Py_tp_clear, lock_clear}, {                                                                 \
    Py_tp_dealloc, lock_dealloc                                                                    \
  }

static PyType_Slot lock_slots[] = {{Py_tp_doc, (void *)lock_doc}, SLOTS, {0, NULL}};
static PyType_Slot rlock_slots[] = {{Py_tp_doc, (void *)rlock_doc}, SLOTS, {0, NULL}};

PyType_Spec bridge_lock_spec = {
    .name = "dromon.green.Lock",
    .basicsize = sizeof(LockObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = lock_slots,
};

PyType_Spec bridge_rlock_spec = {
    .name = "dromon.green.RLock",
    .basicsize = sizeof(LockObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = rlock_slots,
};
