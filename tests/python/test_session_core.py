"""The session protocol, byte by byte, without sockets."""

import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import pytest

import receptor
from receptor import _session
from receptor._session import Descriptor, Op, Reply, Session, Whose
from receptor.errors import _BY_CODE, from_wire
from receptor.types import UnitStatus, event_from_json


def frame(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return struct.pack(">I", len(body)) + body


def pipe_end() -> tuple[Descriptor, int]:
    """A descriptor, and the other end of its pipe to see whether it is open."""
    reader, writer = os.pipe()
    return Descriptor(writer), reader


def is_closed(reader: int) -> bool:
    os.set_blocking(reader, False)
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False
    finally:
        os.close(reader)


def test_a_request_is_a_frame() -> None:
    session = Session()
    number, data = session.request("ping", {"node": "edge"})
    assert number == 1
    assert data == b'\x00\x00\x00\'{"id":1,"op":"ping","node":"edge"}'.replace(b"'", bytes([len(data) - 4]))
    assert session.request("status", {})[0] == 2


def test_replies_come_in_any_order_and_any_pieces() -> None:
    session = Session()
    first, _ = session.request("status", {})
    second, _ = session.request("status", {})
    data = frame({"id": second, "ok": {"n": 2}}) + frame({"id": first, "ok": {"n": 1}, "later": "addition"})
    got: list[Reply] = []
    for byte in data:
        got += [item for item in session.receive(bytes([byte])) if isinstance(item, Reply)]
    assert [(reply.id, reply.result()) for reply in got] == [(second, {"n": 2}), (first, {"n": 1})]


def test_the_greeting() -> None:
    session = Session()
    assert (
        session.receive(frame({"ev": "hello", "protocol": 1, "version": "1.2", "mode": "x", "features": ["f"]})) == []
    )
    assert session.hello == _session.Hello("1.2", "x", frozenset({"f"}))
    with pytest.raises(receptor.ProtocolError, match="install parts of one version"):
        Session().receive(frame({"ev": "hello", "protocol": 2}))


def test_the_nth_descriptor_belongs_to_the_nth_frame_that_announces_one() -> None:
    session = Session()
    ids = [session.request("stream.connect", {})[0] for _ in range(3)]
    (one, one_end), (two, two_end) = pipe_end(), pipe_end()
    items = session.receive(frame({"id": ids[2], "fd": True, "ok": {}})[:5], [one])
    assert items == []
    rest = frame({"id": ids[2], "fd": True, "ok": {}})[5:] + frame({"id": ids[1], "ok": {}})
    items = session.receive(rest + frame({"id": ids[0], "fd": True, "ok": {}}), [two])
    replies = [item for item in items if isinstance(item, Reply)]
    assert [reply.fd for reply in replies] == [one, None, two]
    with pytest.raises(receptor.ProtocolError, match="should have brought a descriptor"):
        replies[1].descriptor()
    del items, replies, one, two
    assert is_closed(one_end)
    assert is_closed(two_end)


def test_a_late_descriptor_is_closed() -> None:
    session = Session()
    number, _ = session.request("stream.connect", {})
    cancel = session.abandon(number)
    assert json.loads(cancel[4:]) == {"op": "cancel", "target": number}
    assert session.abandon(number) == b""
    late, end = pipe_end()
    assert session.receive(frame({"id": number, "fd": True, "ok": {}}), [late]) == []
    assert is_closed(end)


def test_what_was_done_for_nobody_is_undone() -> None:
    session = Session()
    number, _ = session.request("forward.add", {})
    refused, _ = session.request("forward.add", {})

    def undo(ok: dict[str, Any]) -> Op[None]:
        return Op("proxy.remove", {"proxy": ok["proxy"]}, lambda _: None)

    for request in (number, refused):
        session.abandon(request, undo)
    assert session.receive(frame({"id": refused, "err": {"code": "cancelled", "msg": "cancelled"}})) == []
    assert session.amends() == b""
    assert session.receive(frame({"id": number, "ok": {"proxy": 7}})) == []
    request = json.loads(session.amends()[4:])
    assert (request["op"], request["proxy"]) == ("proxy.remove", 7)
    assert session.receive(frame({"id": request["id"], "ok": {}})) == []
    assert session.amends() == b""


def test_nothing_is_abandoned_after_its_reply() -> None:
    session = Session()
    number, _ = session.request("status", {})
    session.receive(frame({"id": number, "ok": {}}))
    assert session.abandon(number) == b""


def test_closing_a_session_closes_what_was_on_its_way() -> None:
    session = Session()
    waiting, end = pipe_end()
    session.receive(b"\x00\x00", [waiting])
    session.close()
    assert is_closed(end)


def test_a_descriptor_is_taken_once() -> None:
    descriptor, end = pipe_end()
    os.close(descriptor.detach())
    with pytest.raises(receptor.ProtocolError):
        descriptor.detach()
    descriptor.close()
    assert is_closed(end)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x00\x00\x00\x00", "frame of 0 bytes"),
        (b"\x01\x00\x00\x01", "frame of 16777217 bytes"),
        (b"\x00\x00\x00\x01{", "not JSON"),
        (b"\x00\x00\x00\x02\xff\xff", "not JSON"),
        (frame([1]), "a JSON list"),
        (frame({"id": 9, "ok": {}}), "request 9, which was not made"),
        (frame({"id": 1}), 'neither "ok" nor "err"'),
        (frame({"id": 1, "fd": True, "ok": {}}), "none came"),
        (b"\x00\x10\x00\x00" + b"[" * (1 << 20), "not JSON"),
    ],
)
def test_what_breaks_the_protocol_is_told(data: bytes, text: str) -> None:
    session = Session()
    session.request("status", {})
    with pytest.raises(receptor.ProtocolError, match=text):
        session.receive(data)


def test_descriptors_without_frames_are_bounded() -> None:
    ends = [pipe_end() for _ in range(_session.MAX_PENDING_DESCRIPTORS + 1)]
    session = Session()
    with pytest.raises(receptor.ProtocolError, match="without their frames"):
        session.receive(b"", [descriptor for descriptor, _ in ends])
    session.close()
    assert {is_closed(end) for _, end in ends} == {True}


def test_a_request_that_is_too_large_is_refused_here() -> None:
    session = Session()
    with pytest.raises(receptor.PayloadTooLarge):
        session.request("ping", {"node": "x" * (16 << 20)})
    assert session.request("status", {})[0] == 1


def test_the_end_says_why() -> None:
    session = Session()
    assert str(session.eof()) == "the node is closed"
    session.receive(frame({"ev": "closed", "err": {"code": "in_use", "msg": "another node"}}))
    error = session.eof()
    assert isinstance(error, receptor.ClosedError)
    assert isinstance(error.__cause__, receptor.AddressInUse)
    assert str(error) == "the node ended: another node"
    torn = Session()
    torn.receive(b"\x00\x00\x00\x09{")
    assert isinstance(torn.eof(), receptor.ProtocolError)


def test_the_end_names_the_node() -> None:
    whose = Whose()
    whose.id = "a"
    session = Session(whose)
    assert str(session.eof()) == "node 'a' is closed"
    session.receive(frame({"ev": "closed", "err": {"code": "in_use", "msg": "another node"}}))
    assert str(session.eof()) == "node 'a' ended: another node"
    assert session.eof().node == "a"


@pytest.mark.parametrize(
    ("code", "kind", "builtin"),
    [
        ("bad_request", receptor.ConfigError, ValueError),
        ("config", receptor.ConfigError, ValueError),
        ("closed", receptor.ClosedError, Exception),
        ("timeout", receptor.MeshTimeout, TimeoutError),
        ("no_route", receptor.Unreachable, ConnectionError),
        ("service_unknown", receptor.Unreachable, OSError),
        ("expired", receptor.Unreachable, OSError),
        ("firewall", receptor.Unreachable, OSError),
        ("refused", receptor.Unreachable, OSError),
        ("reset", receptor.StreamResetError, ConnectionResetError),
        ("too_large", receptor.PayloadTooLarge, ValueError),
        ("in_use", receptor.AddressInUse, OSError),
        ("unit_unknown", receptor.UnitNotFound, LookupError),
        ("work_type", receptor.WorkTypeError, ValueError),
        ("work", receptor.WorkError, Exception),
        ("internal", receptor.ReceptorError, Exception),
        ("of_a_newer_node", receptor.ReceptorError, Exception),
    ],
)
def test_codes_are_exceptions(code: str, kind: type[receptor.ReceptorError], builtin: type[Exception]) -> None:
    error = from_wire({"code": code, "msg": "what happened", "node": "edge"})
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.code, error.node, str(error)) == (code, "edge", "what happened")


def test_the_protocol_page_says_what_codes_become() -> None:
    page = Path(__file__).parents[2].joinpath("go", "session", "README.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page.partition("## Error codes")[2], re.M)
    assert {code for code, _ in rows} == set(_BY_CODE)
    for code, becomes in rows:
        named = re.findall(r"`(\w+)`", becomes)
        if named:  # The last one: what others it goes through comes before.
            assert type(from_wire({"code": code})).__name__ == named[-1], code


@pytest.mark.parametrize(
    ("raw", "event"),
    [
        ({"ev": "peer", "kind": "up", "node": "b", "cost": 2}, receptor.PeerUp("b", 2.0)),
        ({"ev": "peer", "kind": "down", "node": "b", "cost": 1, "reason": "eof"}, receptor.PeerDown("b", 1.0, "eof")),
        ({"ev": "route", "table": {"c": "b"}}, receptor.RoutesChanged({"c": "b"})),
        ({"ev": "service", "kind": "seen", "node": "b", "service": "s"}, receptor.ServiceSeen("b", "s")),
        ({"ev": "service", "kind": "gone", "node": "b", "service": "s"}, receptor.ServiceGone("b", "s")),
        ({"ev": "lost", "n": 12}, receptor.EventsLost(12)),
        ({"ev": "of a newer node"}, None),
    ],
)
def test_events(raw: dict[str, Any], event: receptor.Event | None) -> None:
    assert event_from_json(raw) == event


def test_values_survive_what_is_missing_or_new() -> None:
    status = receptor.Status.from_json({"NodeID": "a", "Connections": None, "Added": 1})
    assert (status.node, status.connections, status.raw["Added"]) == ("a", (), 1)
    unit = UnitStatus.from_json("u", {"State": 7})
    assert unit.state is receptor.WorkState.UNKNOWN
    assert not unit.complete
    ad = receptor.Advertisement.from_json({"Time": "2026-11-21T20:56:30.352625983Z", "ConnType": 9, "Tags": None})
    assert ad.time is not None
    assert ad.time.tzinfo is not None
    assert ad.type == 9
