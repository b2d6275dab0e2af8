"""How the processes of a training find each other: all go on together, or all end with one reason."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from checks.tracking import free_port
from repix.errors import UserError
from repix.training import roll_call
from repix.training.gang import Place

PARTS = dict.fromkeys(("cell", "params", "inputs", "code"), "a")


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(roll_call, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(roll_call, "SAY_SECONDS", 0.5)
    monkeypatch.setattr(roll_call, "LEAVING_SECONDS", 2.0)


def outcome(place: Place, parts: dict[str, str] = PARTS) -> str:
    """Return the address that a process got, or why it ended."""
    try:
        return roll_call.call(place, parts)
    except UserError as error:
        assert str(error).isprintable()
        return str(error)


def together(processes: int, *others: tuple, delay: float = 0.0) -> list[str]:
    """Return what became of the leader and of the others, which are given as their numbers and parts."""
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(len(others) + 1) as pool:
        called = [pool.submit(outcome, Place(number, many, address), parts) for number, many, parts in others]
        time.sleep(delay)
        leader = pool.submit(outcome, Place(0, processes, address))
        return [one.result(20) for one in (leader, *called)]


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_all_go_on_when_all_have_come_whoever_is_first(delay, capsys):
    assert together(3, (1, 3, PARTS), (2, 3, PARTS), delay=delay) == ["127.0.0.1"] * 3
    said = capsys.readouterr().err
    assert "waiting for 2 more at 127.0.0.1:" in said
    assert not delay or "waiting for the leader at 127.0.0.1:" in said


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([(1, 3, PARTS), (1, 3, PARTS)], "REPIX_PROCESS=1: two processes have this number; give each its own"),
        ([(1, 2, PARTS)], "process 1 was started with 2, and the leader with 3; give all the same"),
        ([(3, 4, PARTS)], "process 3 was started with 4, and the leader with 3; give all the same"),
        (
            [(1, 3, PARTS | {"code": "b"})],
            "process 1 trains something else than the leader (code): bring all to the same commit, and start",
        ),
        (
            [(2, 3, PARTS | {"inputs": "b", "params": "b"})],
            "process 2 trains something else than the leader (params, inputs): bring all to the same params.yaml, "
            "data (`dvc pull`), and start them again",
        ),
        ([(1, 3, {})], "process 1 trains something else than the leader (cell, params, inputs, code): "),
    ],
)
def test_who_does_not_fit_ends_all_with_one_reason(others, said):
    found = together(3, *others)
    assert len(set(found)) == 1 and said in found[0]


def test_who_does_not_come_is_named_to_all_that_came(monkeypatch):
    monkeypatch.setattr(roll_call, "COME_SECONDS", 2.0)
    found = together(4, (2, 4, PARTS))
    assert len(set(found)) == 1 and "REPIX_PROCESS 1, 3 of REPIX_PROCESSES=4 did not come to 127.0.0.1:" in found[0]
    assert found[0].endswith("within 2 s: start all of them")


def test_a_leader_of_nobody_waits_for_nobody(capsys):
    assert together(1) == ["127.0.0.1"] and not capsys.readouterr().err


def connected(address: str) -> socket.socket:
    """Return a connection to the leader, once it listens."""
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise AssertionError("nobody listens")


def hello(**changes) -> bytes:
    return json.dumps({"process": 1, "processes": 2, "parts": PARTS} | changes).encode() + b"\n"


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\n",
        b"[" * 4000 + b"\n",
        b"x" * 100_000,
        hello(process=0),
        hello(process="1"),
        hello(process=True),
        hello(process=5),
        hello(parts=None),
        hello(more=1),
        hello() + b"more",
        b'{"process": 1, "processes": ' + b"9" * 4000 + b', "parts": {}}\n',
        b"",
        None,
    ],
)
def test_what_a_stranger_says_is_heard_by_nobody(words):
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(outcome, Place(0, 2, address))
        with connected(address) as stranger:
            assert stranger.recv(100) == roll_call.GREETING
            if words is None:
                stranger.shutdown(socket.SHUT_WR)
            else:
                stranger.sendall(words)
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(100) == b""  # at once, or, where it says nothing, soon
        other = pool.submit(outcome, Place(1, 2, address))
        assert [leader.result(20), other.result(20)] == ["127.0.0.1"] * 2


def test_many_strangers_keep_nobody_out(monkeypatch):
    monkeypatch.setattr(roll_call, "STRANGERS", 5)
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(outcome, Place(0, 2, address))
        strangers = [connected(address) for _ in range(20)]
        other = pool.submit(outcome, Place(1, 2, address))
        assert [leader.result(20), other.result(20)] == ["127.0.0.1"] * 2
        for stranger in strangers:
            stranger.close()


def test_one_that_is_killed_while_it_waits_may_come_again():
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(3) as pool:
        leader = pool.submit(outcome, Place(0, 3, address))
        killed = connected(address)
        assert killed.recv(100) == roll_call.GREETING
        killed.sendall(hello(processes=3))
        time.sleep(0.2)
        killed.close()
        time.sleep(0.2)
        others = [pool.submit(outcome, Place(number, 3, address)) for number in (1, 2)]
        assert [one.result(20) for one in (leader, *others)] == ["127.0.0.1"] * 3


@pytest.mark.parametrize("says", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b"HTTP/1.1 400\r\n\r\n", b"", None])
def test_another_program_at_the_address_is_one_line(says, capsys):
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        kept = []

        def serve():
            while True:
                try:
                    connection, _ = door.accept()
                except OSError:
                    return
                kept.append(connection)
                if says is not None:
                    connection.sendall(says)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        found = outcome(Place(1, 2, f"127.0.0.1:{port}"))
        door.shutdown(socket.SHUT_RDWR)
    assert found.startswith(f"REPIX_COORDINATOR: 127.0.0.1:{port}: who listens there is no leader that waits")
    assert capsys.readouterr().err.count("waiting for the leader") == 1


def test_a_leader_that_goes_away_is_waited_for(capsys):
    address = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor(2) as pool, roll_call.listening("127.0.0.1", int(address.split(":")[1])) as door:
        other = pool.submit(outcome, Place(1, 2, address))
        connection, _ = door.accept()
        connection.sendall(roll_call.GREETING)
        assert json.loads(connection.recv(1000))["parts"] == PARTS
        connection.close()
        door.close()
        time.sleep(0.2)
        assert outcome(Place(0, 2, address)) == other.result(20) == "127.0.0.1"
    assert "the leader went away" in capsys.readouterr().err


def test_a_name_that_nobody_knows_is_waited_for_and_then_one_line(monkeypatch):
    monkeypatch.setattr(roll_call, "COME_SECONDS", 0.1)
    found = outcome(Place(1, 2, "no-such-host.invalid:8476"))
    assert found.startswith("REPIX_COORDINATOR: no-such-host.invalid:8476: ") and found.endswith("; for 0 s")


def test_the_reason_of_a_leader_shows_nothing_that_a_terminal_obeys():
    port = free_port()
    with ThreadPoolExecutor(1) as pool, roll_call.listening("127.0.0.1", port) as door:
        other = pool.submit(outcome, Place(1, 2, f"127.0.0.1:{port}"))
        connection, _ = door.accept()
        with connection:
            connection.sendall(roll_call.GREETING)
            connection.recv(1000)
            connection.sendall(b"no \x1b[2J\xffgone\n")
            assert other.result(20) == "\\x1b[2J\N{REPLACEMENT CHARACTER}gone"


def test_an_address_at_which_nobody_can_listen_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = outcome(Place(0, 2, f"127.0.0.1:{port}"))
        assert said.startswith(f"REPIX_COORDINATOR: cannot listen at 127.0.0.1:{port} (Address already")
    for host in ("192.0.2.1", "no-such-host.invalid"):
        assert f"cannot listen at {host}:8476 " in outcome(Place(0, 1, f"{host}:8476"))
