"""Applications that hang: the process ends all the same, in time or at once."""

import signal
import time
from pathlib import Path

from asgi.client import get
from asgi.process import StartServer, run


def test_a_second_interrupt_ends_a_loop_that_hangs(start_server: StartServer) -> None:
    server = start_server()
    mark = server.out.mark()
    with server.connect() as client:
        client.send(get("/block?seconds=30"))
        server.out.wait_for("blocking", since=mark)
        before = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGINT)
        while server.process.poll() is None and time.monotonic() < before + 5:
            # Two signals that arrive together are one: asked again until heard.
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        assert server.process.wait(5) == 130
    assert "second SIGINT" in server.log.text


def test_threads_of_an_application_that_cannot_be_imported_do_not_keep_the_process(
    tmp_path: Path,
) -> None:
    (tmp_path / "broken.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), name='left').start()\n"
        "raise RuntimeError('broken')\n"
    )
    done = run("broken:app", "--port", "0", cwd=tmp_path)
    assert done.returncode == 3
    assert "RuntimeError: broken" in done.stderr


def test_stopping_the_loop_is_a_wish_to_stop(tmp_path: Path) -> None:
    (tmp_path / "stops.py").write_text(
        "import asyncio\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        asyncio.get_running_loop().call_later(0.2, asyncio.get_running_loop().stop)\n"
        "        await receive()\n"
        "        print('shut down', flush=True)\n"
        "        await send({'type': 'lifespan.shutdown.complete'})\n"
    )
    done = run("stops:app", "--port", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the application stopped the event loop" in done.stderr
    assert "shut down" in done.stdout
