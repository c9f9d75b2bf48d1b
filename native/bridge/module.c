/* module.c - the module `dromon._bridge`; see bridge.h. */
#include "bridge.h"

PyDoc_STRVAR(worker_table_doc, "worker_table()\n--\n\n"
                               "Return the addresses for dromon_pool_config's `ops` and `ops_arg`: "
                               "workers that run calls\nin the current interpreter.");

static PyObject *worker_table(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored)) {
  return Py_BuildValue("(NN)", PyLong_FromVoidPtr((void *)(uintptr_t)&bridge_worker_ops),
                       PyLong_FromVoidPtr(PyInterpreterState_Get()));
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

static PyMethodDef module_methods[] = {
    {"stall_hook", stall_hook, METH_O, stall_hook_doc},
    {"worker_table", worker_table, METH_NOARGS, worker_table_doc},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **slot) {
  *slot = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
  return *slot == NULL ? -1 : PyModule_AddType(module, *slot);
}

static int module_exec(PyObject *module) {
  bridge_state *state = PyModule_GetState(module);
  if (add_type(module, &bridge_call_spec, &state->call_type) < 0 ||
      add_type(module, &bridge_port_spec, &state->port_type) < 0 ||
      add_type(module, &bridge_pool_spec, &state->pool_type) < 0)
    return -1;
  return 0;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
  bridge_state *state = PyModule_GetState(module);
  Py_VISIT(state->call_type);
  Py_VISIT(state->port_type);
  Py_VISIT(state->pool_type);
  return 0;
}

static int module_clear(PyObject *module) {
  bridge_state *state = PyModule_GetState(module);
  Py_CLEAR(state->call_type);
  Py_CLEAR(state->port_type);
  Py_CLEAR(state->pool_type);
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
