"""What `import dromon` is in an interpreter other than the main one, with a GIL of its own."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest
from child import check_child

import dromon
from dromon import _bridge

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share one GIL"
)

# An editable install would look for something to rebuild: these are the files of this process.
FIND_DROMON = f"""\
import sys
from importlib.machinery import PathFinder
from importlib.util import spec_from_file_location

FOLDER = {str(Path(dromon.__file__).parent)!r}


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "dromon":
            return spec_from_file_location(
                name, FOLDER + "/__init__.py", submodule_search_locations=[FOLDER]
            )
        if name == "dromon._bridge":
            return spec_from_file_location(name, {_bridge.__file__!r})
        if name.startswith("dromon."):
            return PathFinder.find_spec(name, path)


sys.meta_path.insert(0, Finder)
"""

IN_OTHER_INTERPRETER = """\
import sys

if sys.version_info >= (3, 13):
    import _interpreters as interpreters
    interpreter = interpreters.create("isolated")
else:
    import _xxsubinterpreters as interpreters
    interpreter = interpreters.create(isolated=True)
failed = interpreters.run_string(interpreter, {script!r})
if failed is not None:
    sys.exit(failed.errdisplay)
interpreters.destroy(interpreter)
"""


def check_isolated(script: str, expected: str = "") -> None:
    """Run a script in an interpreter with a GIL of its own, and assert what it printed."""
    script = FIND_DROMON + textwrap.dedent(script)
    check_child(IN_OTHER_INTERPRETER.format(script=script), expected)


@pytest.mark.parametrize(
    "module", ["dromon", "dromon.from_thread", "dromon.to_thread", "dromon._children"]
)
def test_an_import_loads_nothing_that_is_heavy_or_refuses_to(module: str) -> None:
    check_isolated(
        f"""
        heavy = {{
            "_cffi_backend", "asyncio", "attr", "attrs", "cffi", "concurrent", "importlib.metadata",
            "importlib.resources", "inspect", "logging", "outcome", "platform", "rich", "sniffio",
            "subprocess", "traceback", "trio", "typing",
        }}
        for name in list(sys.modules):  # site may have had them
            if name in heavy:
                del sys.modules[name]
        import {module}
        print(sorted(heavy & sys.modules.keys()))
        """,
        "[]",
    )


def test_it_knows_that_this_is_not_the_main_interpreter() -> None:
    assert _bridge.is_main_interpreter()
    check_isolated("import dromon._bridge as b; print(b.is_main_interpreter())", "False")


@pytest.mark.parametrize("module", ["dromon", "dromon.from_thread", "dromon.testing"])
def test_all_public_names_are_there(module: str) -> None:
    public = [name for name in vars(sys.modules[module]) if not name.startswith("_")]
    own = "dromon." if module == "dromon" else ""
    names = [name for name in public if own + name not in sys.modules]
    check_isolated(
        f"""
        import {module}
        print([name for name in {names!r} if not hasattr({module}, name)])
        """,
        "[]",
    )


def test_the_submodules_of_calls_are_there() -> None:
    check_isolated(
        """
        import dromon
        print(dromon.from_thread.__name__, dromon.to_thread.__name__, dromon.testing.__name__)
        """,
        "dromon.from_thread dromon.to_thread dromon.testing",
    )


def test_no_other_names_are_there() -> None:
    check_isolated("import dromon; print(hasattr(dromon, 'pool'))", "False")


def test_the_version_is_known() -> None:
    check_isolated("import dromon; print(dromon.__version__)", dromon.__version__)


def test_a_module_that_names_parts_of_dromon_can_be_imported() -> None:
    check_isolated(
        """
        import dromon
        from dromon import Executor, open_pool
        from dromon.to_thread import run_sync

        def call(pool: dromon.Pool | None, items: "dromon.MapResults[int]") -> dromon.Stall:
            with open_pool() as pool:
                return run_sync(len, items)

        class OwnExecutor(Executor):
            pass

        items: dromon.MapResults[int]
        print(call.__annotations__["pool"])
        """,
        "dromon.Pool | None",
    )


def test_what_dromon_raises_can_be_caught() -> None:
    check_isolated(
        """
        import dromon
        for error in dromon.ClosedPoolError, dromon.QueueFull, dromon.SpawnError:
            try:
                raise error
            except dromon.Interrupted:
                pass
            except error as caught:
                print(type(caught).__name__)
        """,
        "ClosedPoolError\nQueueFull\nSpawnError",
    )


@pytest.mark.parametrize("name", ["Pool", "open_pool", "Executor", "to_thread.run_sync"])
def test_what_needs_the_main_interpreter_says_so_when_it_is_called(name: str) -> None:
    check_isolated(
        f"""
        import dromon
        try:
            dromon.{name}(workers=1)
        except dromon.IsolationError as error:
            print(error.module, error)
        """,
        f"_cffi_backend dromon.{name} works in the main interpreter only, and this is another one;"
        " dromon.from_thread.run and run_sync call from an isolated worker into the main"
        " interpreter",
    )


def test_a_stand_in_travels_as_what_it_stands_for() -> None:
    check_isolated(
        """
        import dromon, pickle
        print(pickle.dumps(dromon.Pool, 0))
        """,
        repr(b"cdromon\nPool\np0\n."),
    )


def test_a_token_of_trio_is_refused() -> None:
    check_isolated(
        """
        from dromon import from_thread
        for run in from_thread.run, from_thread.run_sync:
            try:
                run(len, trio_token=object())
            except TypeError as error:
                print(error)
        """,
        "\n".join(
            2
            * [
                "trio_token must be None in an isolated worker: tokens cannot travel to another"
                " interpreter"
            ]
        ),
    )


@pytest.mark.parametrize("imported", ["before", "after"])
def test_processes_block_the_signals_that_they_are_to_block(imported: str) -> None:
    imports = ["import subprocess", "from dromon import _children"]
    if imported == "after":
        imports.reverse()
    check_isolated(
        f"""
        import signal
        sys.modules.pop("subprocess", None)  # site may have had it
        {imports[0]}
        {imports[1]}
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        _children.use_mask([signal.SIGUSR2])
        _children.add_worker()
        command = ["grep", "SigBlk", "/proc/self/status"]
        mask = int(subprocess.run(command, capture_output=True).stdout.split()[1], 16)
        print(mask == 1 << signal.SIGUSR2 - 1)
        """,
        "True",
    )
