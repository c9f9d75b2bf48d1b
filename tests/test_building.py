"""C and C++ programs that use the core: what get_include and get_library are for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from child import check_child
from compiler import COMPILER

import dromon

# Runs 1,000 native tasks, and prints the sum of what they were given.
PROGRAM = r"""
#include <dromon/dromon.h>
#include <stdio.h>
#include <string.h>

enum { TASKS = 1000 };

struct job {
  dromon_native_task native; /* first, so that a task is its job */
  int number;
};

static struct job jobs[TASKS];

static int run(void *arg) {
  return ((struct job *)arg)->number;
}

int main(void) {
  dromon_pool_config config;
  dromon_pool *pool;
  dromon_port *port;
  int back = 0, sum = 0;
  memset(&config, 0, sizeof config);
  config.workers = 2;
  if (dromon_port_open(&port) < 0 || dromon_pool_open(&config, &pool) < 0)
    return 1;
  for (int i = 0; i < TASKS; i++) {
    jobs[i].number = i;
    dromon_native_task_init(&jobs[i].native, run, &jobs[i], port);
    if (dromon_pool_submit(pool, &jobs[i].native.task) < 0)
      return 2;
  }
  while (back < TASKS) {
    if (dromon_port_wait(port, -1) < 0)
      return 3;
    for (dromon_task *task = dromon_port_take(port); task != NULL; task = task->next) {
      sum += ((dromon_native_task *)task)->status;
      back++;
    }
  }
  if (dromon_pool_close(pool, NULL) < 0 || dromon_pool_join(pool) < 0)
    return 4;
  dromon_pool_unref(pool);
  dromon_port_unref(port);
  printf("%d\n", sum);
  return 0;
}
"""


def test_the_header_and_the_library_are_where_they_are_said_to_be() -> None:
    assert Path(dromon.get_include(), "dromon", "dromon.h").is_file()
    assert Path(dromon.get_library()).name == "libdromon.so"
    assert Path(dromon.get_library()).is_file()


def test_the_library_is_the_one_that_the_package_has_loaded() -> None:
    """Of two cores in one process, each would have its own idea of which thread is a worker."""
    loaded = {
        line.split(maxsplit=5)[5].strip()
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith("libdromon.so")
    }
    assert loaded == {os.path.realpath(dromon.get_library())}


@pytest.mark.parametrize("language", ["c11", "c++11", "c++20"])
def test_a_program_of_its_own_compiles_without_a_warning_and_runs_1000_native_tasks(
    tmp_path: Path, language: str
) -> None:
    compiler = COMPILER if language == "c11" else shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip(f"no compiler of {language} is installed")
    source = tmp_path / ("program.c" if language == "c11" else "program.cc")
    source.write_text(PROGRAM)
    program = tmp_path / "program"
    library = dromon.get_library()
    warnings = [f"-std={language}", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    link = [library, f"-Wl,-rpath,{Path(library).parent}"]
    command = [compiler, *warnings, f"-I{dromon.get_include()}", source, *link, "-o", program]
    subprocess.run(command, check=True, timeout=60)
    result = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "499500\n", "")


def test_a_module_that_is_linked_to_the_library_finds_it_loaded() -> None:
    """So an extension module needs no run path, as long as dromon is imported first."""
    check_child(
        """
        import ctypes, dromon
        # By its name alone, as the dynamic linker looks for what a module was linked to.
        print(ctypes.CDLL("libdromon.so").dromon_clone3_probe() in (0, -38, -1))
        """,
        "True",
    )
