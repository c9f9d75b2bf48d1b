/* green.c - what is left of `dromon.green` when tasks, scopes and what they wait for are taken away: sleep,
 * checkpoint, and the answers that calls wait for.
 */
#include "green.h"

#include "fiber.h"
#include "parkable.h"
#include "task.h"
#include "thread_state.h"

static PyObject *sleep_for(int64_t timeout_ns) {
  struct waiters nobody = {0};
  struct waiter waiter;
  bridge_waiter_add(&nobody, &waiter);
  enum wait_result result = bridge_wait(&waiter, NULL, "sleep", timeout_ns, WAIT_ORDINARY);
  return result == WAIT_FAILED ? NULL : Py_NewRef(Py_None);
}

PyObject *bridge_green_sleep(PyObject *Py_UNUSED(module), PyObject *seconds) {
  int64_t timeout_ns;
  if (seconds == Py_None) {
    PyErr_SetString(PyExc_TypeError, "seconds must be a number, not None");
    return NULL;
  }
  if (!bridge_timeout("seconds", seconds, &timeout_ns) || bridge_check_wait("trio.sleep") < 0)
    return NULL;
  return sleep_for(timeout_ns);
}

PyObject *bridge_green_checkpoint(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  struct bridge_fiber *fiber = bridge_current_fiber();
  if (bridge_check_wait("trio.lowlevel.checkpoint") < 0)
    return NULL;
  if (fiber == NULL || fiber->task == NULL || bridge_parkable(fiber->state) != PARKABLE)
    Py_RETURN_NONE;
  Py_BEGIN_CRITICAL_SECTION(fiber->task->lock);
  bridge_task_pause(fiber->task, "checkpoint", NULL);
  Py_END_CRITICAL_SECTION();
  bridge_fiber_detach(fiber);
  dromon_yield();
  bridge_fiber_attach(fiber);
  Py_BEGIN_CRITICAL_SECTION(fiber->task->lock);
  bridge_task_go_on(fiber->task);
  Py_END_CRITICAL_SECTION();
  return bridge_task_deliver(fiber->state, fiber->task) < 0 ? NULL : Py_NewRef(Py_None);
}

PyObject *bridge_green_current_task(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  TaskObject *task = bridge_current_task(PyModule_GetState(module));
  if (task == NULL && !PyErr_Occurred())
    PyErr_SetString(PyExc_RuntimeError, "this is no green task: no function on a dromon worker");
  return Py_XNewRef((PyObject *)task);
}

PyObject *bridge_green_root_call(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  const struct bridge_fiber *fiber = bridge_current_fiber();
  CallObject *call = NULL;
  if (fiber != NULL && fiber->isolated == NULL) /* else it is an object of another interpreter */
    call = fiber->task == NULL ? fiber->call : fiber->task->root->call;
  return Py_NewRef(call == NULL ? Py_None : (PyObject *)call);
}

PyObject *bridge_green_tasks(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  return bridge_task_list(PyModule_GetState(module));
}

PyObject *bridge_green_frame_of(PyObject *Py_UNUSED(module), PyObject *ident) {
  unsigned long number = PyLong_AsUnsignedLong(ident);
  PyObject *frame = PyErr_Occurred() ? NULL : bridge_frame_of_ident(number);
  if (frame == NULL && PyErr_Occurred())
    return NULL;
  return frame == NULL ? Py_NewRef(Py_None) : frame;
}

/* ---- Answers -------------------------------------------------------------------------------- */

typedef struct {
  PyObject_HEAD
  bool is_given;
  PyObject *value; /* until somebody gets it */
  struct waiters waiters;
} AnswerObject;

static PyObject *answer_new(PyTypeObject *type, PyObject *Py_UNUSED(args),
                            PyObject *Py_UNUSED(kwargs)) {
  return type->tp_alloc(type, 0);
}

PyDoc_STRVAR(put_doc, "put($self, value, /)\n--\n\nGive the answer, once. From any thread.");

static PyObject *answer_put(AnswerObject *self, PyObject *value) {
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  self->is_given = true;
  self->value = Py_NewRef(value);
  bridge_wake_all(&self->waiters);
  Py_END_CRITICAL_SECTION();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(get_doc,
             "get($self, shielded, /)\n--\n\n"
             "Wait for the answer, on a worker. Unless `shielded` raises Cancelled if the task\n"
             "that waits is cancelled; the answer may be waited for again then. Returns None if\n"
             "it was got before: an interrupt may come right after it.");

static bool has_value(AnswerObject *self) {
  bool is_there;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_there = self->value != NULL;
  Py_END_CRITICAL_SECTION();
  return is_there;
}

/* Waits until it is there: 0, or -1 with an exception. */
static int await_answer(AnswerObject *self, bool is_shielded) {
  bridge_state *state = bridge_state_of(Py_TYPE(self));
  TaskObject *task = bridge_current_task(state);
  struct waiter waiter;
  if (task == NULL)
    return -1;
  if (has_value(self)) /* a cancellation that came with it is for the next wait */
    return 0;
  if (!is_shielded && bridge_task_deliver(state, task) < 0)
    return -1;
  bool is_there;
  Py_BEGIN_CRITICAL_SECTION((PyObject *)self);
  is_there = self->is_given;
  if (!is_there)
    bridge_waiter_add(&self->waiters, &waiter);
  Py_END_CRITICAL_SECTION();
  if (is_there)
    return 0;
  enum wait_mode mode = is_shielded ? WAIT_SHIELDED : WAIT_ORDINARY;
  return bridge_wait(&waiter, (PyObject *)self, "from_thread", -1, mode) == WAIT_WOKEN ? 0 : -1;
}

static PyObject *answer_get(AnswerObject *self, PyObject *shielded) {
  if (await_answer(self, PyObject_IsTrue(shielded)) < 0)
    return NULL;
  PyObject *value = self->value; /* moved out: what it leads to may lead here */
  self->value = NULL;
  return value == NULL ? Py_NewRef(Py_None) : value;
}

static int answer_traverse(AnswerObject *self, visitproc visit, void *arg) {
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(self->value);
  return 0;
}

static int answer_clear(AnswerObject *self) {
  Py_CLEAR(self->value);
  return 0;
}

static void answer_dealloc(AnswerObject *self) {
  PyTypeObject *type = Py_TYPE(self);
  PyObject_GC_UnTrack(self);
  answer_clear(self);
  type->tp_free((PyObject *)self);
  Py_DECREF(type);
}

static PyMethodDef answer_methods[] = {
    {"put", (PyCFunction)answer_put, METH_O, put_doc},
    {"get", (PyCFunction)answer_get, METH_O, get_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot answer_slots[] = {
    {Py_tp_doc, "Answer()\n--\n\nWhat one thread waits for, and another one gives."},
    {Py_tp_new, answer_new},
    {Py_tp_methods, answer_methods},
    {Py_tp_traverse, answer_traverse},
    {Py_tp_clear, answer_clear},
    {Py_tp_dealloc, answer_dealloc},
    {0, NULL},
};

PyType_Spec bridge_answer_spec = {
    .name = "dromon._bridge.Answer",
    .basicsize = sizeof(AnswerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = answer_slots,
};
