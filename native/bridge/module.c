/* module.c - the module `dromon._bridge`; see bridge.h. */
#include "bridge.h"

#include "isolated.h"

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

static PyMethodDef module_methods[] = {
    {"ask", ask, METH_VARARGS, ask_doc},
    {"end_isolates", end_isolates, METH_NOARGS, end_isolates_doc},
    {"forget_isolates", forget_isolates, METH_NOARGS, forget_isolates_doc},
    {"hide_isolates", hide_isolates, METH_NOARGS, hide_isolates_doc},
    {"show_isolates", show_isolates, METH_NOARGS, show_isolates_doc},
    {"is_cancelled", is_cancelled, METH_NOARGS, is_cancelled_doc},
    {"isolated_table", isolated_table, METH_VARARGS, isolated_table_doc},
    {"current_call", current_call, METH_NOARGS, current_call_doc},
    {"is_main_interpreter", is_main_interpreter, METH_NOARGS, is_main_interpreter_doc},
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
      add_interrupted(module, state) < 0)
    return -1;
  if (add_type(module, &bridge_call_spec, &state->call_type) < 0 ||
      add_type(module, &bridge_port_spec, &state->port_type) < 0 ||
      add_type(module, &bridge_pool_spec, &state->pool_type) < 0 ||
      add_type(module, &bridge_worker_spec, &state->worker_type) < 0 ||
      add_type(module, &bridge_future_spec, &state->future_type) < 0 ||
      add_type(module, &bridge_function_spec, &state->function_type) < 0 ||
      add_type(module, &bridge_shared_buffer_spec, &state->shared_buffer_type) < 0 ||
      bridge_future_words_init(state) < 0)
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
  Py_VISIT(state->loaded);
  for (int i = 0; i < BRIDGE_KNOWN; i++)
    Py_VISIT(state->known[i].reference);
  Py_VISIT(state->interrupted);
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
  Py_CLEAR(state->loaded);
  for (int i = 0; i < BRIDGE_KNOWN; i++) {
    Py_CLEAR(state->known[i].reference);
    Py_CLEAR(state->known[i].portable);
  }
  for (int i = 0; i < BRIDGE_FUTURE_WORDS; i++)
    Py_CLEAR(state->future_words[i]);
  Py_CLEAR(state->interrupted);
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
