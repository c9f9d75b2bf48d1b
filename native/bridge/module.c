/* module.c - the module `dromon._bridge`; see bridge.h. */
#include "bridge.h"

#include "green.h"
#include "isolated.h"
#include "parkable.h"
#include "sync.h"
#include "thread_state.h"

#include <stdarg.h>

PyDoc_STRVAR(worker_table_doc,
             "worker_table(enter, /)\n--\n\n"
             "Return the addresses for dromon_pool_config's `ops` and `ops_arg`, and what has to\n"
             "live until the pool is open: workers that run calls in the current interpreter.\n\n"
             "Each calls enter(index) first, which tells whether it may go on.");

static PyObject *worker_table(PyObject *Py_UNUSED(module), PyObject *enter) {
  PyObject *entrance = bridge_entrance_new(enter);
  if (entrance == NULL)
    return NULL;
  return Py_BuildValue("(NNN)", PyLong_FromVoidPtr((void *)(uintptr_t)&bridge_worker_ops),
                       PyLong_FromVoidPtr(PyCapsule_GetPointer(entrance, NULL)), entrance);
}

PyDoc_STRVAR(
    stall_hook_doc,
    "stall_hook(callback, /)\n--\n\n"
    "Return the addresses for dromon_pool_config's `on_stall` and `on_stall_arg`: to call\n"
    "callback(worker, began_ns, seconds), which must live as long as the pool.");

static PyObject *stall_hook(PyObject *Py_UNUSED(module), PyObject *callback) {
  return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)(uintptr_t)&bridge_on_stall),
                       PyLong_FromVoidPtr(callback));
}

PyDoc_STRVAR(
    saturation_hook_doc,
    "saturation_hook(callback, /)\n--\n\n"
    "Return the addresses for dromon_pool_config's `on_saturated` and `on_saturated_arg`: to call\n"
    "callback(waiting, seconds), which must live as long as the pool.");

static PyObject *saturation_hook(PyObject *Py_UNUSED(module), PyObject *callback) {
  return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)(uintptr_t)&bridge_on_saturated),
                       PyLong_FromVoidPtr(callback));
}

PyDoc_STRVAR(current_call_doc, "current_call()\n--\n\n"
                               "Return the Call that the calling thread runs, or None.");

static PyObject *current_call(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  CallObject *call = bridge_current_call();
  return Py_NewRef(call == NULL ? Py_None : (PyObject *)call);
}

PyDoc_STRVAR(
    isolated_table_doc,
    "isolated_table(enter, name, settings, initializer, tasks_most, /)\n--\n\n"
    "As worker_table(), for workers with an interpreter of their own; the third object has "
    "to live\nas long as the pool.\n\n"
    "`enter` has a method fail(index, error) for what the initializer, a Function or None,\n"
    "raised. `settings` is for dromon._isolated. After `tasks_most` calls, unless 0, an\n"
    "interpreter is emptied.");

static PyObject *isolated_table(PyObject *Py_UNUSED(module), PyObject *args) {
  PyObject *enter, *name, *settings, *initializer;
  unsigned long long tasks_most;
  if (!PyArg_ParseTuple(args, "OUSOK:isolated_table", &enter, &name, &settings, &initializer,
                        &tasks_most))
    return NULL;
  PyObject *isolation = bridge_isolation_new(enter, name, settings, initializer, tasks_most);
  if (isolation == NULL)
    return NULL;
  return Py_BuildValue("(NNN)", PyLong_FromVoidPtr((void *)(uintptr_t)&bridge_isolated_ops),
                       PyLong_FromVoidPtr(PyCapsule_GetPointer(isolation, NULL)), isolation);
}

PyDoc_STRVAR(ask_doc, "ask(function, arguments, is_async, /)\n--\n\n"
                      "For a call in an isolated worker: have function(*arguments) run in trio.");

static PyObject *ask(PyObject *Py_UNUSED(module), PyObject *args) {
  PyObject *function, *arguments;
  int is_async;
  if (!PyArg_ParseTuple(args, "OO!p:ask", &function, &PyTuple_Type, &arguments, &is_async))
    return NULL;
  return bridge_ask(function, arguments, is_async);
}

PyDoc_STRVAR(is_cancelled_doc, "is_cancelled()\n--\n\n"
                               "For a call in an isolated worker: whether the task that waits for "
                               "it was cancelled.");

static PyObject *is_cancelled(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  return bridge_is_cancelled();
}

PyDoc_STRVAR(end_isolates_doc, "end_isolates()\n--\n\n"
                               "End all interpreters of isolated workers: the process ends.");

static PyObject *end_isolates(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  bridge_isolates_end();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(hide_isolates_doc, "hide_isolates()\n--\n\n"
                                "Before a fork: the child shall see no other interpreter.");

static PyObject *hide_isolates(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  bridge_isolates_hide();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(show_isolates_doc, "show_isolates()\n--\n\n"
                                "After a fork, in the parent.");

static PyObject *show_isolates(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  bridge_isolates_show();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(forget_isolates_doc, "forget_isolates()\n--\n\n"
                                  "In the child of a fork: the interpreters are the parent's.");

static PyObject *forget_isolates(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  bridge_isolates_forget();
  Py_RETURN_NONE;
}

PyDoc_STRVAR(is_main_interpreter_doc,
             "is_main_interpreter()\n--\n\n"
             "Return whether this is the interpreter that the process began with.");

static PyObject *is_main_interpreter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

PyDoc_STRVAR(parkable_doc,
             "parkable()\n--\n\n"
             "Return \"\", or why what the calling thread runs cannot be parked: it is in a "
             "\"greenlet\",\na \"finalizer\" or an \"import\".");

static PyObject *parkable(PyObject *module, PyObject *Py_UNUSED(ignored)) {
  static const char *const answers[] = {
      [PARKABLE] = "",
      [IN_GREENLET] = "greenlet",
      [IN_FINALIZER] = "finalizer",
      [IN_IMPORT] = "import",
  };
  return PyUnicode_FromString(answers[bridge_parkable(PyModule_GetState(module))]);
}

PyDoc_STRVAR(
    sleep_doc,
    "sleep($module, seconds, /)\n--\n\n"
    "Wait for so many seconds; the worker runs others meanwhile.\n\n"
    "On an ordinary thread it blocks. Raises `ValueError` for less than 0, `RuntimeError` in\n"
    "a trio task's thread.\n\n"
    "**Cancellation** ends it by `Cancelled`.");
PyDoc_STRVAR(
    checkpoint_doc,
    "checkpoint($module, /)\n--\n\n"
    "Let other green threads of the worker have a turn, if any can go on.\n\n"
    "**Cancellation**: raises `Cancelled` if it is due. Does nothing on an ordinary thread.");
PyDoc_STRVAR(current_task_doc,
             "current_task($module, /)\n--\n\n"
             "Return the `Task` that runs here; a call of the pool has one, too.\n\n"
             "Raises `RuntimeError` where no function of a pool runs.");
PyDoc_STRVAR(frame_of_doc, "frame_of(ident, /)\n--\n\n"
                           "Return the innermost frame of the thread of this interpreter with "
                           "this ident, or None.");

PyDoc_STRVAR(tasks_doc,
             "tasks($module, /)\n--\n\n"
             "Return a list of the green tasks of this interpreter that have not ended.");
PyDoc_STRVAR(
    open_channel_doc,
    "open_channel($module, /, max_buffer_size)\n--\n\n"
    "Return the two ends of a new channel, by which green threads and other threads hand each\n"
    "other values: a `SendChannel` and a `ReceiveChannel`.\n"
    "\n"
    "It keeps at most so many that nobody has received; `math.inf`: any number. With 0 a sender\n"
    "waits until its value is received.\n"
    "\n"
    "Raises `TypeError` or `ValueError` unless it is an int of 0 or more, or `math.inf`.");

static PyObject *open_channel(PyObject *module, PyObject *args, PyObject *keywords) {
  static char *names[] = {"max_buffer_size", NULL};
  PyObject *size;
  if (!PyArg_ParseTupleAndKeywords(args, keywords, "O:open_channel", names, &size))
    return NULL;
  return bridge_open_channel(PyModule_GetState(module), size);
}

PyDoc_STRVAR(
    run_items_doc,
    "run_items(function, star, context, items, results, end, /)\n--\n\n"
    "Call a function with each item that it takes from the left of a deque, in a copy of the\n"
    "context, and append what it returns to a list.\n\n"
    "Returns True once there are no more, `perf_counter` has reached `end`, or nobody wants the\n"
    "results of an isolated worker any longer. Returns False if the interpreter has something to\n"
    "do first, and is to be called again. Raises what the function raised.");

PyDoc_STRVAR(root_call_doc,
             "root_call($module, /)\n--\n\n"
             "Return the Call that runs here, or of which what runs here is a child; or None.");

static PyMethodDef module_methods[] = {
    {"ask", ask, METH_VARARGS, ask_doc},
    {"checkpoint", bridge_green_checkpoint, METH_NOARGS, checkpoint_doc},
    {"root_call", bridge_green_root_call, METH_NOARGS, root_call_doc},
    {"current_task", bridge_green_current_task, METH_NOARGS, current_task_doc},
    {"sleep", bridge_green_sleep, METH_O, sleep_doc},
    {"tasks", bridge_green_tasks, METH_NOARGS, tasks_doc},
    {"frame_of", bridge_green_frame_of, METH_O, frame_of_doc},
    {"end_isolates", end_isolates, METH_NOARGS, end_isolates_doc},
    {"forget_isolates", forget_isolates, METH_NOARGS, forget_isolates_doc},
    {"hide_isolates", hide_isolates, METH_NOARGS, hide_isolates_doc},
    {"show_isolates", show_isolates, METH_NOARGS, show_isolates_doc},
    {"is_cancelled", is_cancelled, METH_NOARGS, is_cancelled_doc},
    {"run_items", (PyCFunction)(void (*)(void))bridge_run_items, METH_FASTCALL, run_items_doc},
    {"isolated_table", isolated_table, METH_VARARGS, isolated_table_doc},
    {"current_call", current_call, METH_NOARGS, current_call_doc},
    {"is_main_interpreter", is_main_interpreter, METH_NOARGS, is_main_interpreter_doc},
    {"parkable", parkable, METH_NOARGS, parkable_doc},
    {"open_channel", (PyCFunction)(void (*)(void))open_channel, METH_VARARGS | METH_KEYWORDS,
     open_channel_doc},
    {"saturation_hook", saturation_hook, METH_O, saturation_hook_doc},
    {"stall_hook", stall_hook, METH_O, stall_hook_doc},
    {"worker_table", worker_table, METH_O, worker_table_doc},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot) {
  *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
  return *slot == NULL ? -1 : PyModule_AddType(module, *slot);
}

PyDoc_STRVAR(
    interrupted_doc,
    "Raised inside a running call that is interrupted, at whatever point its Python code is.\n\n"
    "Because the task that waits for it was cancelled (``interrupt_on_cancel=True``), or because\n"
    "its ``timeout`` is over. A `BaseException`, like `KeyboardInterrupt`: ``except Exception``\n"
    "lets it pass and ``finally`` blocks run. Let it pass, or raise it again when all is in\n"
    "order; a call that catches it and returns has a result like any other.");

static int add_interrupted(PyObject *module, bridge_state *state) {
  state->interrupted =
      PyErr_NewExceptionWithDoc("dromon.Interrupted", interrupted_doc, PyExc_BaseException, NULL);
  return PyModule_AddObjectRef(module, "Interrupted", state->interrupted);
}

PyDoc_STRVAR(
    cancelled_doc,
    "Raised where a green task waits when it is cancelled, once for each request.\n\n"
    "By `Task.cancel`, by a scope that is cancelled or has a failing child, or because the trio\n"
    "task that waits for the call was cancelled. ``finally`` blocks run, and may wait again. Let\n"
    "it pass, as `Interrupted`, of which it is a kind.");

static int add_cancelled(PyObject *module, bridge_state *state) {
  state->cancelled =
      PyErr_NewExceptionWithDoc("dromon.green.Cancelled", cancelled_doc, state->interrupted, NULL);
  return PyModule_AddObjectRef(module, "Cancelled", state->cancelled);
}

static int module_exec(PyObject *module) {
  bridge_state *state = PyModule_GetState(module);
  if (PyModule_AddIntConstant(module, "WAIT", BRIDGE_WAIT) < 0 ||
      PyModule_AddIntConstant(module, "ABANDON", BRIDGE_ABANDON) < 0 ||
      PyModule_AddIntConstant(module, "INTERRUPT", BRIDGE_INTERRUPT) < 0 ||
      PyModule_AddIntConstant(module, "LINE_UP", BRIDGE_LINE_UP) < 0 ||
      PyModule_AddIntConstant(module, "BLOCK", BRIDGE_BLOCK) < 0 ||
      PyModule_AddIntConstant(module, "REFUSE", BRIDGE_REFUSE) < 0 ||
      PyModule_AddIntConstant(module, "VALUE", ANSWER_VALUE) < 0 ||
      PyModule_AddIntConstant(module, "ERROR", ANSWER_ERROR) < 0 ||
      PyModule_AddIntConstant(module, "CANCELLED", ANSWER_CANCELLED) < 0 ||
      add_interrupted(module, state) < 0 || add_cancelled(module, state) < 0 ||
      bridge_nothing_init(state) < 0 || bridge_name_words_init(state) < 0)
    return -1;
  if (add_type(module, &bridge_call_spec, &state->call_type) < 0 ||
      add_type(module, &bridge_port_spec, &state->port_type) < 0 ||
      add_type(module, &bridge_pool_spec, &state->pool_type) < 0 ||
      add_type(module, &bridge_worker_spec, &state->worker_type) < 0 ||
      add_type(module, &bridge_future_spec, &state->future_type) < 0 ||
      add_type(module, &bridge_function_spec, &state->function_type) < 0 ||
      add_type(module, &bridge_shared_buffer_spec, &state->shared_buffer_type) < 0 ||
      add_type(module, &bridge_task_spec, &state->task_type) < 0 ||
      add_type(module, &bridge_scope_spec, &state->scope_type) < 0 ||
      add_type(module, &bridge_answer_spec, &state->answer_type) < 0 ||
      add_type(module, &bridge_event_spec, &state->event_type) < 0 ||
      add_type(module, &bridge_lock_spec, &state->lock_type) < 0 ||
      add_type(module, &bridge_rlock_spec, &state->rlock_type) < 0 ||
      add_type(module, &bridge_semaphore_spec, &state->semaphore_type) < 0 ||
      add_type(module, &bridge_promise_spec, &state->promise_type) < 0 ||
      add_type(module, &bridge_channel_spec, &state->channel_type) < 0 ||
      add_type(module, &bridge_send_channel_spec, &state->send_channel_type) < 0 ||
      add_type(module, &bridge_receive_channel_spec, &state->receive_channel_type) < 0 ||
      bridge_sync_init(module, state) < 0 || bridge_future_words_init(state) < 0 ||
      bridge_parkable_init(state) < 0)
    return -1;
  state->loaded = PyDict_New();
  if (state->loaded == NULL)
    return -1;
  return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
  bridge_state *state = PyModule_GetState(module);
  Py_VISIT(state->call_type);
  Py_VISIT(state->port_type);
  Py_VISIT(state->pool_type);
  Py_VISIT(state->worker_type);
  Py_VISIT(state->future_type);
  Py_VISIT(state->function_type);
  Py_VISIT(state->shared_buffer_type);
  Py_VISIT(state->task_type);
  Py_VISIT(state->scope_type);
  Py_VISIT(state->answer_type);
  Py_VISIT(state->event_type);
  Py_VISIT(state->lock_type);
  Py_VISIT(state->rlock_type);
  Py_VISIT(state->semaphore_type);
  Py_VISIT(state->promise_type);
  Py_VISIT(state->channel_type);
  Py_VISIT(state->send_channel_type);
  Py_VISIT(state->receive_channel_type);
  Py_VISIT(state->loaded);
  Py_VISIT(state->module_locks);
  for (int i = 0; i < BRIDGE_KNOWN; i++)
    Py_VISIT(state->known[i].reference);
  Py_VISIT(state->interrupted);
  Py_VISIT(state->cancelled);
  Py_VISIT(state->nothing);
  Py_VISIT(state->would_block);
  Py_VISIT(state->closed_resource);
  Py_VISIT(state->broken_resource);
  Py_VISIT(state->end_of_channel);
  return 0;
}

static int module_clear(PyObject *module) {
  bridge_state *state = PyModule_GetState(module);
  Py_CLEAR(state->call_type);
  Py_CLEAR(state->port_type);
  Py_CLEAR(state->pool_type);
  Py_CLEAR(state->worker_type);
  Py_CLEAR(state->future_type);
  Py_CLEAR(state->function_type);
  Py_CLEAR(state->shared_buffer_type);
  Py_CLEAR(state->task_type);
  Py_CLEAR(state->scope_type);
  Py_CLEAR(state->answer_type);
  Py_CLEAR(state->event_type);
  Py_CLEAR(state->lock_type);
  Py_CLEAR(state->rlock_type);
  Py_CLEAR(state->semaphore_type);
  Py_CLEAR(state->promise_type);
  Py_CLEAR(state->channel_type);
  Py_CLEAR(state->send_channel_type);
  Py_CLEAR(state->receive_channel_type);
  Py_CLEAR(state->loaded);
  Py_CLEAR(state->module_locks);
  for (int i = 0; i < BRIDGE_KNOWN; i++) {
    Py_CLEAR(state->known[i].reference);
    Py_CLEAR(state->known[i].portable);
  }
  for (int i = 0; i < BRIDGE_FUTURE_WORDS; i++)
    Py_CLEAR(state->future_words[i]);
  for (int i = 0; i < BRIDGE_GREENLET_WORDS; i++)
    Py_CLEAR(state->greenlet_words[i]);
  for (int i = 0; i < BRIDGE_NAME_WORDS; i++)
    Py_CLEAR(state->name_words[i]);
  Py_CLEAR(state->interrupted);
  Py_CLEAR(state->cancelled);
  Py_CLEAR(state->nothing);
  Py_CLEAR(state->would_block);
  Py_CLEAR(state->closed_resource);
  Py_CLEAR(state->broken_resource);
  Py_CLEAR(state->end_of_channel);
  return 0;
}

static void module_free(void *module) {
  module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "dromon._bridge",
    .m_doc = "Runs Python callables on the workers of libdromon.",
    .m_size = sizeof(bridge_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

bridge_state *bridge_state_of(PyTypeObject *defining_class) {
  return PyType_GetModuleState(defining_class);
}

bridge_state *bridge_current_state(void) {
  PyObject *module = PyImport_ImportModule("dromon._bridge");
  if (module == NULL)
    return NULL;
  bridge_state *state = PyModule_GetState(module);
  Py_DECREF(module); /* it lives as long as its interpreter */
  return state;
}

PyObject *bridge_call_python(const char *module, const char *name, const char *format, ...) {
  PyObject *imported = PyImport_ImportModule(module);
  PyObject *function = imported == NULL ? NULL : PyObject_GetAttrString(imported, name);
  PyObject *arguments = NULL, *result = NULL;
  if (function != NULL && format == NULL) {
    arguments = PyTuple_New(0);
  } else if (function != NULL) {
    va_list values;
    va_start(values, format);
    arguments = Py_VaBuildValue(format, values);
    va_end(values);
    if (arguments != NULL && !PyTuple_Check(arguments))
      arguments = Py_BuildValue("(N)", arguments);
  }
  if (arguments != NULL)
    result = PyObject_Call(function, arguments, NULL);
  Py_XDECREF(arguments);
  Py_XDECREF(function);
  Py_XDECREF(imported);
  return result;
}

PyMODINIT_FUNC PyInit__bridge(void);

PyMODINIT_FUNC PyInit__bridge(void) {
  return PyModuleDef_Init(&module_def);
}
