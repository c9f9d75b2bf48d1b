/* module.c - the module `dromon._bridge`; see bridge.h. */
#include "bridge.h"

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

PyDoc_STRVAR(is_main_interpreter_doc,
             "is_main_interpreter()\n--\n\n"
             "Return whether this is the interpreter that the process began with.");

static PyObject *is_main_interpreter(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  return PyBool_FromLong(PyInterpreterState_Get() == PyInterpreterState_Main());
}

static PyMethodDef module_methods[] = {
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
      add_interrupted(module, state) < 0)
    return -1;
  if (add_type(module, &bridge_call_spec, &state->call_type) < 0 ||
      add_type(module, &bridge_port_spec, &state->port_type) < 0 ||
      add_type(module, &bridge_pool_spec, &state->pool_type) < 0 ||
      add_type(module, &bridge_worker_spec, &state->worker_type) < 0 ||
      add_type(module, &bridge_future_spec, &state->future_type) < 0 ||
      bridge_future_words_init(state) < 0)
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

PyMODINIT_FUNC PyInit__bridge(void);

PyMODINIT_FUNC PyInit__bridge(void) {
  return PyModuleDef_Init(&module_def);
}
