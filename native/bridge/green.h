/* green.h - the module's functions for green threads; see green.c. */
#ifndef DROMON_BRIDGE_GREEN_H
#define DROMON_BRIDGE_GREEN_H

#include "bridge.h"

PyObject *bridge_green_sleep(PyObject *module, PyObject *seconds);
PyObject *bridge_green_checkpoint(PyObject *module, PyObject *ignored);
PyObject *bridge_green_current_task(PyObject *module, PyObject *ignored);
PyObject *bridge_green_root_call(PyObject *module, PyObject *ignored);
PyObject *bridge_green_tasks(PyObject *module, PyObject *ignored);
PyObject *bridge_green_frame_of(PyObject *module, PyObject *ident);

extern PyType_Spec bridge_answer_spec;

#endif
