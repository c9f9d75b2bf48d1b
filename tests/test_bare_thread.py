"""Bare threads through cffi: freestanding code, compiled here, beside Python."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import cffi
import pytest
from compiler import compile_library, needs_compiler

from dromon._native import ffi, lib

pytestmark = needs_compiler

DECLARATIONS = """
struct sum { const unsigned char *bytes; unsigned long count, result; };
void add_up(void *sum);
void spin(void *may_end);
"""

# Without libc: loops over memory that others may read and write meanwhile.
SOURCE = (
    DECLARATIONS
    + """
void add_up(void *argument) {
  struct sum *sum = argument;
  for (unsigned long i = 0; i < sum->count; i++)
    sum->result += sum->bytes[i];
}

void spin(void *may_end) {
  while (__atomic_load_n((int *)may_end, __ATOMIC_ACQUIRE) == 0)
    continue;
}
"""
)


class Freestanding:
    """The compiled functions, as `dromon._native` takes them."""

    def __init__(self, library: Path) -> None:
        self.ffi = cffi.FFI()
        self.ffi.cdef(DECLARATIONS)
        # At once: what the dynamic linker does at a first call is none of a bare thread's business.
        self.lib = self.ffi.dlopen(str(library), self.ffi.RTLD_NOW)

    def start(self, name: str, argument: Any, **options: int) -> Any:
        function = self.ffi.cast("uintptr_t", self.ffi.addressof(self.lib, name))
        config = ffi.new(
            "dromon_bare_config *",
            {
                "fn": ffi.cast("void (*)(void *)", int(function)),
                "arg": ffi.cast("void *", int(self.ffi.cast("uintptr_t", argument))),
                **options,
            },
        )
        thread = ffi.new("dromon_bare_thread **")
        assert lib.dromon_bare_start(config, thread) == 0
        return thread[0]


@pytest.fixture(scope="module")
def freestanding(tmp_path_factory: pytest.TempPathFactory) -> Freestanding:
    folder: Path = tmp_path_factory.mktemp("freestanding")
    flags = ["-ffreestanding", "-nostdlib", "-fno-stack-protector"]
    return Freestanding(compile_library(folder, SOURCE, *flags))


@pytest.mark.parametrize("spawn", ["AUTO", "CLONE3", "CLONE"])
def test_it_computes_what_python_computes(freestanding: Freestanding, spawn: str) -> None:
    wish = getattr(lib, f"DROMON_SPAWN_{spawn}")
    if spawn == "CLONE3" and (error := lib.dromon_clone3_probe()) < 0:
        pytest.skip(f"clone3 is refused here: {os.strerror(-error)}")
    content = bytes(range(256)) * 1000
    bytes_ = freestanding.ffi.from_buffer(content)
    sums = [
        freestanding.ffi.new("struct sum *", {"bytes": bytes_, "count": count})
        for count in (0, 1, 1000, len(content))
    ]
    threads = [
        freestanding.start("add_up", each, stack_size=16384, guard_size=4096, spawn=wish)
        for each in sums
    ]
    for thread in threads:
        assert lib.dromon_bare_join(thread, -1) == 0
    assert [each.result for each in sums] == [sum(content[: each.count]) for each in sums]


def test_a_join_times_out_while_it_runs_and_may_be_tried_again(
    freestanding: Freestanding,
) -> None:
    may_end = freestanding.ffi.new("int *", 0)
    thread = freestanding.start("spin", may_end)
    assert lib.dromon_bare_join(thread, 0) == -errno.ETIMEDOUT
    assert lib.dromon_bare_join(thread, 1_000_000) == -errno.ETIMEDOUT
    may_end[0] = 1
    assert lib.dromon_bare_join(thread, 60_000_000_000) == 0


def test_the_kernel_lists_it_and_python_does_not_know_it(freestanding: Freestanding) -> None:
    may_end = freestanding.ffi.new("int *", 0)
    known = threading.enumerate()
    thread = freestanding.start("spin", may_end)
    assert str(lib.dromon_bare_tid(thread)) in os.listdir("/proc/self/task")
    assert threading.enumerate() == known
    may_end[0] = 1
    assert lib.dromon_bare_join(thread, -1) == 0
