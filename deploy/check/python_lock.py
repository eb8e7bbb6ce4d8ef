#!/usr/bin/env python3
"""python_lock.py ADDRESS: two workers of one lock, on what protoc makes of rpc/proto and nothing else.

The first takes the lock and renews it, the second waits in line; a watch shows who leaves and who is
granted. It fails unless the second's token is higher, and the first one is refused afterwards.
"""
import queue
import sys
import threading
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from quorate.v1 import coordination_pb2, leases_pb2, leases_pb2_grpc, locks_pb2, locks_pb2_grpc
from quorate.v1 import types_pb2, watch_pb2_grpc

KEY = "reports/nightly"
PATIENCE_S = 30


def request_id(index):
    """A name for one acquisition: new, and minted after this log index was seen."""
    return types_pb2.RequestId(id=uuid.uuid4().bytes, not_before=index)


def asking(acquisition, who):
    """For the lock; the same again goes on waiting in the same place."""
    return locks_pb2.AcquireLockRequest(
        key=KEY,
        acquisition=acquisition,
        owner=types_pb2.Owner(owner_id=who),
        ttl_ms=60_000,
        wait_ttl_ms=60_000,
    )


def watch(channel, messages):
    """Follows the lock in a thread, and returns once the watch is registered."""
    request = coordination_pb2.WatchRequest(lock_prefix=KEY)
    stream = watch_pb2_grpc.WatchStub(channel).Watch(request)

    def follow():
        try:
            for message in stream:
                messages.put(message)
        except grpc.RpcError as error:
            messages.put(error)

    threading.Thread(target=follow, daemon=True).start()
    first = messages.get(timeout=PATIENCE_S)
    assert first.WhichOneof("message") == "registered_at", first
    return stream


def reason(error):
    """The stable word of a status, from its details."""
    for detail in rpc_status.from_call(error).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            assert info.domain == "quorate", info
            return info.reason
    return None


def hand_over(channel):
    """One lock, two workers."""
    locks = locks_pb2_grpc.LocksStub(channel)
    index = locks.Get(locks_pb2.GetLockRequest(key=KEY), timeout=PATIENCE_S).index
    first, second = request_id(index), request_id(index)
    messages = queue.Queue()
    stream = watch(channel, messages)

    held = locks.Acquire(asking(first, "first"), timeout=PATIENCE_S).granted
    assert held.fencing_token > 0, held
    waiting = locks.Acquire(asking(second, "second"), timeout=1)
    assert waiting.WhichOneof("result") == "waiting", waiting

    renew = locks_pb2.RenewLockRequest(key=KEY, acquisition_id=first.id)
    renewed = locks.Renew(renew, timeout=PATIENCE_S)
    assert renewed.fencing_token == held.fencing_token, renewed
    assert renewed.expires_at_ms >= held.expires_at_ms, (renewed, held)

    call = locks.Acquire.future(asking(second, "second"), timeout=PATIENCE_S)
    release = locks_pb2.ReleaseLockRequest(key=KEY, acquisition_id=first.id)
    assert locks.Release(release, timeout=PATIENCE_S).released == held.fencing_token
    granted = call.result().granted
    assert granted.fencing_token > held.fencing_token, (granted, held)

    seen = []
    while len(seen) < 3:
        entry = messages.get(timeout=PATIENCE_S).entry
        seen += [getattr(event, event.WhichOneof("event")) for event in entry.events]
    assert [(type(event).__name__, event.owner_id) for event in seen] == [
        ("LockGranted", "first"),
        ("LockLeft", "first"),
        ("LockGranted", "second"),
    ], seen
    assert seen[2].fencing_token == granted.fencing_token, seen

    try:
        locks.Renew(renew, timeout=PATIENCE_S)
        raise AssertionError("a hold that is over was renewed")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
        assert reason(error) == "FENCED", error
    again = locks.Release(release, timeout=PATIENCE_S)
    assert again.released == held.fencing_token, "a repeated release is answered the same"
    stream.cancel()
    return held.fencing_token, granted.fencing_token


def lease(channel):
    """Contention is a result, and a grant that was given back is free."""
    leases = leases_pb2_grpc.LeasesStub(channel)

    def claim(who):
        request = leases_pb2.ClaimLeaseRequest(
            key="k",
            owner=types_pb2.Owner(owner_id=who),
            lease_token=f"of {who}",
            ttl_ms=60_000,
        )
        return leases.Claim(request, timeout=PATIENCE_S)

    mine = claim("me").granted
    assert claim("me").granted == mine, "a repeated claim is the same grant"
    assert claim("you").busy == mine, "it says who has it"
    release = leases_pb2.ReleaseLeaseRequest(
        key="k", lease_token=mine.lease_token, fencing_token=mine.fencing_token
    )
    assert leases.Release(release, timeout=PATIENCE_S).released
    assert claim("you").granted.fencing_token > mine.fencing_token


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        tokens = hand_over(channel)
        lease(channel)
    print("a program in Python took, renewed, watched and released a lock: tokens %d, %d" % tokens)


main()
