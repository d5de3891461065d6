"""The typed clients, blocking and asyncio: every test runs with both, against the fake daemon of another project."""

from __future__ import annotations

import asyncio
import io
import os
import pickle
import socket
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from both_clients import CLIENTS, Connect
from daemons import free_port
from fake_daemon import FakeDaemon
from receptorctl_support import Certificates, server_context

import receptor
import receptor.aio
from receptor import control

Run = Callable[[Callable[[Any], Awaitable[None]]], None]  # Any: a client of either kind


@pytest.fixture(params=CLIENTS, ids=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Connect:
    chosen: Connect = request.param
    return chosen


@pytest.fixture
def run(connect: Connect, fake_socket: str) -> Run:
    """Run a test with a client of the fake daemon."""

    def with_client(test: Callable[[Any], Awaitable[None]]) -> None:
        async def main() -> None:
            async with connect(fake_socket) as client:
                await test(client)

        asyncio.run(main())

    return with_client


async def text_of(output: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in output])


def test_the_mesh(run: Run) -> None:
    async def test(client: Any) -> None:
        assert client.node == "gamma"
        status = await client.status()
        assert (status.node, status.cpu_count) == ("gamma", 2)
        assert await client.version() == "1.4.9+git"
        assert (await client.ping("gamma")).from_node == "gamma"
        with pytest.raises(receptor.Unreachable) as caught:
            await client.ping("nosuch")
        assert (caught.value.code, caught.value.node) == ("no_route", "nosuch")
        assert [hop.from_node for hop in await client.traceroute("beta")] == ["gamma", "gamma"]
        assert await client.reload() == []
        assert (await client.command("status"))["NodeID"] == "gamma"

    run(test)


def test_what_another_project_does_not_offer_is_made_of_what_it_does(run: Run) -> None:
    async def test(client: Any) -> None:
        about = await client.about()
        assert (about.node, about.version, about.implementation, about.commands) == ("gamma", "1.4.9+git", "", None)
        mesh = await client.topology()
        assert [node.node for node in mesh.nodes] == ["alpha", "beta", "gamma", "rel", "tap"]
        assert [(edge.a, edge.b, edge.state) for edge in mesh.edges] == [("alpha", "beta", "ok")]
        assert [service.work.get("secure") for service in mesh.services if service.node == "beta"] == [True]

    run(test)


@pytest.mark.parametrize("command", ["links", "config", "metrics", "events", "exec", "reload"])
def test_what_another_project_cannot_do_is_said(run: Run, command: str) -> None:
    async def test(client: Any) -> None:
        with pytest.raises(control.NotOfferedError, match="^node gamma does not offer the command") as caught:
            if command == "events":
                async for _ in client.events():
                    pass
            elif command == "exec":
                await client.work.exec("beta", "ls")
            elif command == "reload":
                await client.reload(dry_run=True)
            else:
                await getattr(client, command)()
        assert caught.value.code == "not_offered"
        assert "another Receptor" in caught.value.hint
        assert (await client.ping("gamma")).from_node == "gamma"

    run(test)


def test_tracebacks_show_the_hint(run: Run) -> None:
    async def test(client: Any) -> None:
        for call in (client.links, lambda: client.work.get("nosuch00"), lambda: client.work.submit(None, "none", b"")):
            with pytest.raises(control.RefusedError) as caught:
                await call()
            error = pickle.loads(pickle.dumps(caught.value))
            assert error.hint
            assert error.hint not in str(error)
            shown = "".join(traceback.format_exception(error))
            assert shown.endswith(f": {error}\nhint: {error.hint}\n"), shown

    run(test)


class Unseekable(io.RawIOBase):
    """A file of which nobody knows the size."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(buffer)


@pytest.mark.parametrize(
    "payload",
    [
        b"in\xffput",
        bytearray(b"in\xffput"),
        io.BytesIO(b"in\xffput"),
        Unseekable(b"in\xffput"),
        [b"in", b"\xffput"],
    ],
    ids=["bytes", "bytearray", "file", "unseekable file", "iterable"],
)
def test_payloads(run: Run, payload: Any) -> None:
    async def test(client: Any) -> None:
        if isinstance(payload, io.BytesIO):
            payload.seek(0)
        source = Unseekable(b"in\xffput") if isinstance(payload, Unseekable) else payload
        async with client.work.submit(None, "cat", source) as unit:
            assert await text_of(unit.stdout()) == b"in\xffput"
            assert await text_of(unit.stdout(offset=3)) == b"put"

    run(test)


def test_a_service_that_wants_tls_is_told_what_to_name() -> None:
    refused = control.RefusedError("CRYPTO_ERROR 0x12a (local): insecure connection to secure service")
    assert "--tls-client" in refused.hint


def test_a_certificate_without_its_key_is_said_to_be_that(certificates: Certificates) -> None:
    options = control.TLSOptions(certificates.path("ca.crt"), cert=certificates.path("alpha-client.crt"))
    with pytest.raises(control.OptionsError, match="could not load the TLS files") as refused:
        options.context()
    assert refused.value.hint.endswith("alpha-client.crt holds no key: name the file that does with --key")


def test_what_is_no_payload_makes_no_unit(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        with pytest.raises((TypeError, receptor.ConfigError), match="payload.* bytes, .*NoneType$"):
            await client.work.submit(None, "cat", None)

    before = dict(fake.units)
    run(test)
    assert fake.units == before


def test_an_asynchronous_payload(fake_socket: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"one ", b"two"):
            await asyncio.sleep(0)
            yield chunk

    async def main() -> None:
        async with receptor.aio.connect(fake_socket) as client:
            unit = await client.work.submit("localhost", "upper", chunks())
            assert await text_of(unit.stdout()) == b"ONE TWO"
            await unit.release()

    asyncio.run(main())


def test_a_unit_from_start_to_end(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        seen: list[str] = []
        unit = await client.work.submit(None, "sh", params={"params": "'echo out; exit 4'"}, on_created=seen.append)
        assert unit.started
        assert unit.result == "Job Started"
        assert seen == [unit.id]
        with pytest.raises(receptor.WorkFailed) as caught:
            await unit.wait()
        assert caught.value.result.exit_code == 4
        result = await unit.wait(check=False)
        assert (result.unit, result.detail, result.stdout_size) == (unit.id, "exit status 4", 4)
        assert (await unit.status()).state is receptor.WorkState.FAILED
        assert list(await client.work.list()) == [unit.id]
        assert await (await client.work.get(unit.id)).release()
        for gone in (unit.status, unit.cancel, unit.release):
            with pytest.raises(receptor.UnitNotFound) as missing:
                await gone()
            assert missing.value.code == "unit_unknown"
        with pytest.raises(receptor.UnitNotFound):
            await client.work.get("nosuch")

    run(test)


def test_a_unit_that_is_cancelled(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        async with client.work.submit(None, "sh", params={"params": "'exec sleep 60'"}) as unit:
            with pytest.raises(receptor.MeshTimeout, match="is not complete after"):
                await unit.wait(timeout_s=0.05)
            with pytest.raises(receptor.MeshTimeout):
                async for _ in unit.stdout(timeout_s=0.05):
                    pass
            assert await unit.cancel()
            with pytest.raises(receptor.WorkCancelled):
                await unit.wait(timeout_s=60)
        assert fake.units == {}

    run(test)


def test_a_detached_unit_stays(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        async with client.work.submit(None, "cat", b"x") as unit:
            unit.detach()
        assert list(fake.units) == [unit.id]

    run(test)


def test_units_of_both_clients_are_the_units_of_nodes() -> None:
    assert issubclass(control.ClientUnit, receptor.Unit)
    assert issubclass(receptor.work.NodeUnit, receptor.Unit)
    assert issubclass(receptor.aio.Client(".").work.unit("x").__class__, receptor.aio.Unit)


def test_output_goes_on_at_the_exact_byte(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        fake.cut_results = [3, 0, 5]
        program = "'for i in $(seq 200); do echo line $i; done'"
        async with client.work.submit(None, "sh", params={"params": program}) as unit:
            output = await text_of(unit.stdout())
        assert output == b"".join(b"line %d\n" % n for n in range(1, 201))
        assert [line.split()[-1] for line in fake.requests if "results" in line][:4] == ["0", "3", "3", "8"]

    run(test)


def test_output_that_never_comes_is_an_error(run: Run, fake: FakeDaemon) -> None:
    async def test(client: Any) -> None:
        fake.cut_results = [2, 0, 0]
        async with client.work.submit(None, "sh", params={"params": "'echo out'"}) as unit:
            with pytest.raises(control.DisconnectedError, match="after 2 bytes, before the unit was complete"):
                await text_of(unit.stdout())

    run(test)


@pytest.mark.parametrize(
    "error",
    [
        lambda: OSError("the disk is gone"),
        lambda: control.DisconnectedError("another daemon is gone"),  # As from the output of one of its units.
        lambda: control.RefusedError("another daemon is gone"),
    ],
)
def test_a_payload_that_breaks_off_is_a_reset(run: Run, fake: FakeDaemon, error: Callable[[], Exception]) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half of the input"
        raise error()

    async def test(client: Any) -> None:
        with pytest.raises(type(error()), match="is gone$"):
            await client.work.submit(None, "cat", broken())

    run(test)
    [unit] = fake.units.values()
    unit.wait_complete()
    assert (unit.state, fake.uploads_broken) == (3, 1), "the daemon took half a payload for a whole one"


def test_a_file_that_has_nothing_yet_is_not_at_its_end(run: Run, fake: FakeDaemon) -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)

    async def test(client: Any) -> None:
        with open(out, "rb") as file, open(into, "wb", buffering=0) as far:
            far.write(b"half")
            with pytest.raises(receptor.ConfigError, match="nothing to read now"):
                await client.work.submit(None, "cat", file)

    run(test)
    [unit] = fake.units.values()
    unit.wait_complete()
    assert (unit.state, fake.uploads_broken) == (3, 1), "the daemon took half a payload for a whole one"


@pytest.mark.parametrize("wrong", [-1, float("nan"), 1e300, "1"])
def test_what_is_no_time_to_wait(run: Run, connect: Connect, fake_socket: str, wrong: Any) -> None:
    async def test(client: Any) -> None:
        for wait in (client.status, client.work.unit("x").wait):
            with pytest.raises(receptor.ConfigError, match="timeout_s="):
                await wait(timeout_s=wrong)
        with pytest.raises(receptor.ConfigError, match="timeout_s="):
            async with connect(fake_socket, timeout_s=wrong):
                pass

    run(test)


def test_another_node_through_this_one(run: Run) -> None:
    async def test(client: Any) -> None:
        async with client.at("beta") as beta:
            assert list(await beta.work.list()) == ["IGv3kQiU"]
            assert beta.node == "beta"
        with pytest.raises(receptor.Unreachable):
            await client.at("nosuch").work.list()
        assert (await client.status()).node == "gamma"

    run(test)


def test_refusals_have_codes(run: Run) -> None:
    async def test(client: Any) -> None:
        with pytest.raises(
            receptor.WorkTypeError, match="(?m)^Failed to start work unit: unknown work type nosuch$"
        ) as caught:
            await client.work.submit(None, "nosuch", b"")
        assert caught.value.code == "work_type"
        with pytest.raises(ValueError, match="cannot be used in a request"):
            await client.ping("a b")
        with pytest.raises(ValueError, match="want 0 or more bytes"):
            await text_of(client.work.unit("x").stdout(offset=-1))

    run(test)


def test_a_service(fake_socket: str) -> None:
    async def main() -> None:
        async with receptor.aio.connect(fake_socket) as client, client.connect("beta", "echo") as stream:
            await stream.write(b"hello\n")
            assert await stream.read(timeout_s=60) == b"HELLO\n"
            with pytest.raises(receptor.MeshTimeout):
                await stream.read(timeout_s=0.01)
            stream.end()
            assert await stream.read(timeout_s=60) == b""

    asyncio.run(main())
    with receptor.connect(fake_socket) as client, client.connect("beta", "echo") as sock:
        sock.sendall(b"hello\n")
        assert sock.recv(100) == b"HELLO\n"


@pytest.mark.parametrize("client_cert", [False, True])
def test_tls(connect: Connect, fake: FakeDaemon, certificates: Certificates, client_cert: bool) -> None:
    port = fake.listen_tcp(server_context(certificates, client_cert=client_cert))
    tls = control.TLSOptions(
        certificates.path("ca.crt"),
        certificates.path("alpha-client.key") if client_cert else None,
        certificates.path("alpha-client.crt") if client_cert else None,
    )

    async def main() -> None:
        async with connect(f"tls://localhost:{port}", tls=tls) as client:
            async with client.work.submit(None, "cat", b"x" * 3_000_000) as unit:
                assert len(await text_of(unit.stdout())) == 3_000_000
        with pytest.raises(control.ConnectError) as caught:
            await connect(f"tls://localhost:{port}")
        assert "its CA with --rootcas" in caught.value.hint

    asyncio.run(main())


def test_nobody_listens(connect: Connect, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale"))
    port = free_port()

    async def main() -> None:
        with pytest.raises(control.ConnectError, match="no daemon listens on it: it stopped without removing the file"):
            await connect(str(tmp_path / "stale"))
        (tmp_path / "file").touch()
        with pytest.raises(control.ConnectError, match="It is not a socket: take the filename of control-service"):
            await connect(str(tmp_path / "file"))
        with pytest.raises(control.AddressError, match="^Socket path does not exist"):
            await connect(str(tmp_path / "none"))
        with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as waiting:
            busy.bind(str(tmp_path / "busy"))
            busy.listen(0)
            waiting.connect(str(tmp_path / "busy"))
            with pytest.raises(control.ConnectError, match="The daemon does not accept connections at the moment"):
                await connect(str(tmp_path / "busy"))
        with pytest.raises(
            control.ConnectError, match=f"(?m)^Could not connect to host 127.0.0.1 port {port}$"
        ) as caught:
            await connect(f"tcp://127.0.0.1:{port}")
        assert "nobody listens on that port" in caught.value.hint
        with pytest.raises(control.ConnectError, match="(?m)^Could not connect to host no_such_host port 1$"):
            await connect("tcp://no_such_host:1")
        for wrong in ("bogus:xx", None, 7):
            with pytest.raises(control.AddressError, match=f"(?m)^Invalid socket address {wrong}$"):
                await connect(wrong)

    asyncio.run(main())


def test_an_address_can_be_a_path(connect: Connect, tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(control.AddressError, match=f"^Socket path does not exist: {tmp_path}/a:b"):
            await connect(tmp_path / "a:b")

    asyncio.run(main())


def test_a_daemon_that_says_nothing(connect: Connect, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        async def main() -> None:
            with pytest.raises(control.ControlTimeout, match="within 0.05 s"):
                await connect(str(tmp_path / "s"), timeout_s=0.05)

        asyncio.run(main())


def test_a_new_daemon_at_the_address_is_found(connect: Connect, tmp_path: Path) -> None:
    async def main(first: FakeDaemon, path: Path) -> None:
        async with connect(str(path)) as client:
            assert (await client.ping("gamma")).from_node == "gamma"
            first.__exit__()
            path.unlink()
            with FakeDaemon() as second:
                second.listen_unix(path)
                assert (await client.ping("gamma")).from_node == "gamma"

    path = tmp_path / "s"
    with FakeDaemon() as first:
        first.listen_unix(path)
        asyncio.run(main(first, path))


# What the asyncio client does beyond.


def test_many_tasks_share_a_client(fake: FakeDaemon, fake_socket: str) -> None:
    async def one(client: receptor.aio.Client, number: int) -> bytes:
        async with client.work.submit(None, "cat", b"%d" % number) as unit:
            await unit.wait()
            return await text_of(unit.stdout())

    async def main() -> None:
        async with receptor.aio.connect(fake_socket) as client:
            assert await asyncio.gather(*(one(client, n) for n in range(20))) == [b"%d" % n for n in range(20)]
        assert fake.units == {}

    asyncio.run(main())


def test_a_cancelled_task_leaves_nothing_behind(fake: FakeDaemon, fake_socket: str) -> None:
    async def main() -> None:
        async with receptor.aio.connect(fake_socket) as client:
            unit = await client.work.submit(None, "sh", params={"params": "'exec sleep 60'"})
            output = unit.stdout()
            tasks = [asyncio.create_task(unit.wait()), asyncio.create_task(output.read())]
            while not any("results" in line for line in fake.requests) or '"wait"' not in "".join(fake.requests):
                await asyncio.sleep(0)  # until both are under way
            for task in tasks:
                task.cancel()
            assert [type(e) for e in await asyncio.gather(*tasks, return_exceptions=True)] == [
                asyncio.CancelledError
            ] * 2
            assert (await client.ping("gamma")).from_node == "gamma"
            output.close()
            await unit.release()

            async def endless() -> AsyncIterator[bytes]:
                yield b"half"
                await asyncio.Event().wait()

            opening = client.work.submit(None, "cat", endless())
            submit = asyncio.ensure_future(asyncio.wait_for(_opened(opening), 60))
            made = await asyncio.to_thread(fake.next_unit)
            made = await asyncio.to_thread(fake.next_unit)
            await asyncio.to_thread(made.wait, lambda: bool(made.stdin))
            submit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submit
            await asyncio.to_thread(made.wait_complete)
            assert made.detail.startswith("Error reading input data")

    asyncio.run(main())


async def _opened(opening: Any) -> Any:
    return await opening


def test_threads_share_a_blocking_client(fake_socket: str) -> None:
    results: list[bytes] = []
    with receptor.connect(fake_socket) as client:

        def work(number: int) -> None:
            with client.work.submit(None, "cat", b"%d" % number) as unit:
                unit.wait()
                results.append(b"".join(unit.stdout()))

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(results) == sorted(b"%d" % n for n in range(16))
