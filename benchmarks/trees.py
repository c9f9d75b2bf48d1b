"""Trees of calls that wait for their children, in a module that workers import fast.

Each function has a depth, and returns the number of leaves.
"""

from __future__ import annotations

from concurrent.futures import Executor

from dromon import green


def leaf() -> int:
    return 1


def serial(depth: int) -> int:
    """By plain recursion."""
    return serial(depth - 1) + serial(depth - 1) if depth else leaf()


def of_green_threads(depth: int) -> int:
    if depth == 0:
        return leaf()
    with green.open_scope() as scope:
        children = [scope.spawn(of_green_threads, depth - 1) for _ in range(2)]
        leaves = [child.result() for child in children]
    return sum(leaves)


def of_green_maps(depth: int) -> int:
    return sum(green.map(of_green_maps, [depth - 1] * 2)) if depth else leaf()


def of_futures(executor: Executor, depth: int) -> int:
    if depth == 0:
        return leaf()
    children = [executor.submit(of_futures, executor, depth - 1) for _ in range(2)]
    return sum(child.result() for child in children)


def of_parallels(depth: int) -> int:
    from joblib import Parallel, delayed

    if depth == 0:
        return leaf()
    return sum(Parallel(n_jobs=2)(delayed(of_parallels)(depth - 1) for _ in range(2)))


def of_dask(depth: int) -> int:
    from distributed import worker_client

    if depth == 0:
        return leaf()
    with worker_client() as client:
        return sum(client.gather(client.map(of_dask, [depth - 1] * 2, pure=False)))
