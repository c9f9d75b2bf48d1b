"""dromon beside its peers, on the same work, in one run: ``python -m benchmarks``.

A *question* (`questions`) is a set of *loads* that are measured for each of its *contenders*
(`contenders`). Each contender lives in a process of its own (`process`), and they take turns in
random order (`measure`); the values go into a file of pyperf's format, tables (`report`) and a page
with plots (`page`).

How the costs of dromon itself grow with workers and tasks is measured by ``python -m
benchmarks.scaling``, and what that comes to with more workers than there are CPUs is computed by
``python -m benchmarks.simulation``.
"""
