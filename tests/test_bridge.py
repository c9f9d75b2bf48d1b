"""The extension module on its own: where it loads, and what it refuses."""

from __future__ import annotations

import gc
import sys
import sysconfig
import threading
import time
import weakref
from collections.abc import Callable

import pytest
import trio
from child import check_child

import dromon
from dromon import _bridge, _port
from dromon._port import new_port, on_own_port


def submit(
    pool: dromon.Pool, port: _bridge.Port, function: Callable[..., object], *args: object
) -> _bridge.Call:
    task = trio.lowlevel.current_task()
    call = pool._bridge.call(function, args, _bridge.WAIT, None, task)
    assert call.submit(port, task)
    return call


@pytest.mark.skipif(
    sys.version_info < (3, 12), reason="before Python 3.12 all interpreters share one GIL"
)
def test_it_loads_in_interpreters_with_a_gil_of_their_own() -> None:
    check_child(
        """
        import importlib.machinery, sys
        try:
            import _interpreters as interpreters
            create, run = interpreters.create, interpreters.run_string
        except ImportError:
            import _xxsubinterpreters as interpreters
            create, run = lambda: interpreters.create(isolated=True), interpreters.run_string
        from dromon import _bridge

        script = f'''if True:
            import importlib.machinery, importlib.util
            # By its path: the package around it needs trio and cffi, and cffi refuses.
            loader = importlib.machinery.ExtensionFileLoader("dromon._bridge", {_bridge.__file__!r})
            spec = importlib.util.spec_from_file_location("dromon._bridge", loader=loader)
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            port = module.Port(1, 2, 3)
            assert port.take(10) == []
            port.close()
        '''
        for _ in range(3):
            interpreter = create()
            problem = run(interpreter, script)
            assert problem is None, problem
            interpreters.destroy(interpreter)
        """
    )


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this build of Python has a GIL"
)
def test_it_does_not_switch_the_gil_on() -> None:
    check_child(
        """
        import sys
        from dromon import _bridge
        assert not sys._is_gil_enabled()
        """
    )


def test_a_call_is_made_by_a_pool_alone() -> None:
    with pytest.raises(TypeError, match="cannot create"):
        _bridge.Call()


def test_a_pool_needs_an_address() -> None:
    with pytest.raises(ValueError, match="address must not be 0"):
        _bridge.Pool(0)
    with pytest.raises(TypeError):
        _bridge.Pool("here")  # type: ignore[arg-type]


async def test_a_call_says_what_it_needs() -> None:
    async with dromon.open_pool(1) as pool:
        call = pool._bridge.call
        with pytest.raises(TypeError, match=r"call\(\) needs a function"):
            call(int)  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"call\(\) needs a function"):
            call(int, 2, 3, 4, 5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"submit\(\) needs a Port"):
            call(int, (), _bridge.WAIT, None, None).submit(1, None)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="not submitted"):
            call(int, (), _bridge.WAIT, None, None).abort(pytest.fail)


async def test_a_call_is_submitted_once() -> None:
    async with dromon.open_pool(1) as pool:
        port = new_port()
        call = submit(pool, port, int)
        with pytest.raises(TypeError, match="once"):
            call.submit(port, None)
        port.close()


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="this build of Python has no GIL"
)
async def test_submit_does_not_give_up_the_gil() -> None:
    """Another thread wants it all the time, and would take it at the first chance."""
    counter, stop = 0, False

    def count() -> None:
        nonlocal counter
        while not stop:
            counter += 1
            time.sleep(0)  # gives it up, or who waits for it would wait for the interval below

    async with dromon.open_pool(2) as pool:
        port = new_port()
        thread = threading.Thread(target=count)
        interval = sys.getswitchinterval()
        thread.start()
        sys.setswitchinterval(1000)  # from here on it changes hands only where it is given up
        try:
            asked = counter  # a request from before is served first
            while counter < asked + 2:
                time.sleep(0)  # noqa: ASYNC251
            gc.disable()  # what it finalises may give up the GIL
            before = counter
            for _ in range(5000):
                submit(pool, port, int)
            after = counter
        finally:
            gc.enable()
            stop = True
            sys.setswitchinterval(interval)
        assert after == before
        await trio.to_thread.run_sync(thread.join)
    port.close()


async def test_the_outcome_of_a_call_can_be_had_once() -> None:
    port = new_port()
    async with dromon.open_pool(1) as pool:
        call = submit(pool, port, int, "7")
        await trio.lowlevel.wait_readable(port.fileno())
    assert port.take(10) == [call]
    assert call.unwrap() == 7
    with pytest.raises(RuntimeError, match="no outcome"):
        call.unwrap()
    port.close()


async def test_take_gives_no_more_calls_than_asked_for_and_keeps_the_rest() -> None:
    port = new_port()
    async with dromon.open_pool(1) as pool:
        calls = [submit(pool, port, int) for _ in range(10)]
    taken: list[_bridge.Call] = []
    while len(taken) < 10:
        more = port.take(3)
        assert len(more) <= 3
        taken += more
    assert taken == calls  # one worker: in order
    port.close()


async def test_what_is_posted_to_a_port_is_delivered_with_its_callback_as_waiter() -> None:
    port = new_port()
    thread = threading.Thread(target=port.post, args=(list,))
    thread.start()
    await trio.lowlevel.wait_readable(port.fileno())
    (message,) = port.take(10)
    assert message.waiter is list
    assert port.waiting == 0  # nobody waits for it
    await trio.to_thread.run_sync(thread.join)
    port.close()


async def test_what_is_posted_to_a_closed_port_is_dropped() -> None:
    class Callback:
        def __call__(self) -> None:
            raise AssertionError("called")

    port = new_port()
    port.close()
    callback = Callback()
    watched = weakref.ref(callback)
    port.post(callback)
    del callback
    assert watched() is None
    assert port.take(10) == []


# ---- Looks before the loop sleeps ----------------------------------------------------------------


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[trio.abc.Instrument]:
    """The instruments that were made to look."""
    made: list[trio.abc.Instrument] = []

    class Noted(_port._Look):
        def __init__(self, port: _bridge.Port) -> None:
            super().__init__(port)
            made.append(self)

    monkeypatch.setattr(_port, "_Look", Noted)
    return made


def test_a_run_has_one_look_however_many_calls_it_makes(looks: list[trio.abc.Instrument]) -> None:
    async def main() -> None:
        for _ in range(3):
            await dromon.to_thread.run_sync(int)

    trio.run(main)
    assert len(looks) == 1


def test_a_port_that_ends_before_its_run_takes_its_look_along(
    looks: list[trio.abc.Instrument],
) -> None:
    async def nothing(port: _bridge.Port) -> None:
        await trio.lowlevel.checkpoint()

    async def main() -> None:
        await on_own_port(nothing)
        (look,) = looks
        with pytest.raises(KeyError):
            trio.lowlevel.remove_instrument(look)

    trio.run(main)


def test_a_look_is_short_however_long_the_call_takes() -> None:
    async def main() -> None:
        release = threading.Event()
        port = new_port()
        async with dromon.open_pool(workers=1) as pool:
            submit(pool, port, release.wait)
            began = time.monotonic()
            port.look(60.0)
            took = time.monotonic() - began
            release.set()
        port.close()
        assert took < 1

    trio.run(main)


def test_a_look_refuses_what_is_no_time() -> None:
    async def main() -> None:
        port = new_port()
        with pytest.raises(TypeError):
            port.look("soon")  # type: ignore[arg-type]
        port.close()

    trio.run(main)
