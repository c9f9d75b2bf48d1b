"""A program: imports modules in a new interpreter with a GIL of its own, and reports on each.

Its arguments are a descriptor and the modules' names. For each it writes a line there, in order and
at once: null, or why the import failed, in JSON. It imports nothing of dromon's.
"""

from __future__ import annotations

import resource
import sys

IN_THE_INTERPRETER = """
import importlib, json, os

for name in {names!r}:
    try:
        importlib.import_module(name)
    except BaseException as error:
        # Packages wrap it in advice on how to install them.
        while error.__cause__ is not None:
            error = error.__cause__
        problem = f"{{type(error).__name__}}: {{error}}"[:1000]
    else:
        problem = None
    os.write({descriptor}, json.dumps(problem).encode() + b"\\n")
# How modules take the end of an interpreter is another question.
os._exit(0)
"""


def main(descriptor: int, names: list[str]) -> None:
    """Do it, and end the process."""
    # Those that crash shall leave no core files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    script = IN_THE_INTERPRETER.format(names=names, descriptor=descriptor)
    # What isolated interpreters refuse is what does not say that it supports a GIL of its own.
    if sys.version_info >= (3, 13):
        import _interpreters

        _interpreters.run_string(_interpreters.create("isolated"), script)
    else:
        import _xxsubinterpreters  # type: ignore[import-not-found]

        _xxsubinterpreters.run_string(_xxsubinterpreters.create(isolated=True), script)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
