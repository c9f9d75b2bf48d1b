/* sync.c - see sync.h. */
#include "sync.h"

PyDoc_STRVAR(would_block_doc, "Raised by an operation named ``..._nowait`` that would have to "
                              "wait.");

PyDoc_STRVAR(closed_resource_doc,
             "Raised by an operation on an end of a channel that was closed before or meanwhile.");

PyDoc_STRVAR(broken_resource_doc,
             "Raised by sending into a channel whose receiving ends are all closed.");

PyDoc_STRVAR(end_of_channel_doc, "Raised by receiving from a channel whose sending ends are all "
                                 "closed, once it is empty.");

int bridge_sync_init(PyObject *module, bridge_state *state) {
  const struct {
    const char *name, *doc;
    PyObject **slot;
  } errors[] = {
      {"WouldBlock", would_block_doc, &state->would_block},
      {"ClosedResourceError", closed_resource_doc, &state->closed_resource},
      {"BrokenResourceError", broken_resource_doc, &state->broken_resource},
      {"EndOfChannel", end_of_channel_doc, &state->end_of_channel},
  };
  for (size_t i = 0; i < Py_ARRAY_LENGTH(errors); i++) {
    char name[64];
    PyOS_snprintf(name, sizeof name, "dromon.green.%s", errors[i].name);
    PyObject *error = PyErr_NewExceptionWithDoc(name, errors[i].doc, NULL, NULL);
    *errors[i].slot = error;
    if (error == NULL || PyModule_AddObjectRef(module, errors[i].name, error) < 0)
      return -1;
  }
  return 0;
}

bool bridge_timeout_argument(const char *function, PyObject *const *args, Py_ssize_t nargs,
                             PyObject *keywords, int64_t *timeout_ns) {
  Py_ssize_t named = keywords == NULL ? 0 : PyTuple_GET_SIZE(keywords);
  if (named > 0) {
    PyObject *name = PyTuple_GET_ITEM(keywords, 0);
    if (PyUnicode_CompareWithASCIIString(name, "timeout") != 0) {
      PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", function, name);
      return false;
    }
  }
  if (nargs + named > 1) {
    PyErr_Format(PyExc_TypeError, "%s() got more arguments than it takes", function);
    return false;
  }
  return bridge_timeout("timeout", nargs + named == 1 ? args[0] : NULL, timeout_ns);
}

bool bridge_wait_on(PyObject *owner, struct waiter *waiter, const char *doing, int64_t timeout_ns) {
  enum wait_result result = bridge_wait(waiter, owner, doing, timeout_ns, WAIT_ORDINARY);
  if (result == WAIT_TIMED_OUT)
    PyErr_Format(PyExc_TimeoutError, "%s() timed out", doing);
  return result == WAIT_WOKEN;
}
