#!/usr/bin/env python3
"""python_client.py ADDRESS: a client on what protoc makes of rpc/proto, and nothing else.

Two workers share a lock: the first takes, renews and proclaims, the second waits in line, each finds where
it stands, and a watch shows who leaves and who is granted. Then a lease is claimed, given back and taken from
a dead holder, and its history says so; items of a queue are worked on, and a process reports, wakes somebody
and ends. It fails unless tokens grow, whoever lost a right is refused with the reason, and what is asked
again is answered the same.
"""
import contextlib
import queue
import sys
import threading
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from quorate.v1 import cluster_pb2, cluster_pb2_grpc, coordination_pb2
from quorate.v1 import leases_pb2, leases_pb2_grpc, locks_pb2, locks_pb2_grpc
from quorate.v1 import processes_pb2, processes_pb2_grpc, queues_pb2, queues_pb2_grpc
from quorate.v1 import types_pb2, watch_pb2, watch_pb2_grpc

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


@contextlib.contextmanager
def refused(code, word):
    """What is done inside must fail with this code and this reason."""
    try:
        yield
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert reason(error) == word, error
    else:
        raise AssertionError(f"not refused with {word}")


def stands(locks, acquisition):
    """Where an acquisition is: the word for it, and the member or how it ended."""
    request = locks_pb2.FindLockRequest(key=KEY, acquisition_id=acquisition.id)
    found = locks.Find(request, timeout=PATIENCE_S)
    word = found.WhichOneof("result")
    return word, getattr(found, word)


def proclaim(locks, held, note):
    """Another note on a hold: of the answer."""
    request = locks_pb2.ProclaimLockRequest(key=KEY, fencing_token=held.fencing_token, metadata=note)
    return locks.Proclaim(request, timeout=PATIENCE_S).holder.metadata


def hand_over(channel):
    """One lock, two workers."""
    locks = locks_pb2_grpc.LocksStub(channel)
    index = locks.Get(locks_pb2.GetLockRequest(key=KEY), timeout=PATIENCE_S).index
    first, second = request_id(index), request_id(index)
    messages = queue.Queue()
    stream = watch(channel, messages)

    assert stands(locks, first) == ("unknown", True)
    held = locks.Acquire(asking(first, "first"), timeout=PATIENCE_S).granted
    assert held.fencing_token > 0, held
    assert stands(locks, first) == ("granted", held)
    waiting = locks.Acquire(asking(second, "second"), timeout=1)
    assert waiting.WhichOneof("result") == "waiting", waiting
    assert stands(locks, second)[0] == "waiting", "its place is kept"

    renew = locks_pb2.RenewLockRequest(key=KEY, acquisition_id=first.id)
    renewed = locks.Renew(renew, timeout=PATIENCE_S)
    assert renewed.fencing_token == held.fencing_token, renewed
    assert renewed.expires_at_ms >= held.expires_at_ms, (renewed, held)
    assert proclaim(locks, held, b"at :80") == b"at :80"
    (holder,) = locks.Get(locks_pb2.GetLockRequest(key=KEY), timeout=PATIENCE_S).lock.holders
    assert holder.metadata == b"at :80", holder

    call = locks.Acquire.future(asking(second, "second"), timeout=PATIENCE_S)
    release = locks_pb2.ReleaseLockRequest(key=KEY, acquisition_id=first.id)
    assert locks.Release(release, timeout=PATIENCE_S).released == held.fencing_token
    granted = call.result().granted
    assert granted.fencing_token > held.fencing_token, (granted, held)
    assert stands(locks, second) == ("granted", granted)
    word, end = stands(locks, first)
    assert (word, end.reason) == ("over", locks_pb2.LockEnd.RELEASED), end

    seen = []
    while len(seen) < 4:
        entry = messages.get(timeout=PATIENCE_S).entry
        seen += [(event.WhichOneof("event"), event) for event in entry.events]
    assert [word for word, _ in seen] == [
        "lock_granted",
        "lock_proclaimed",
        "lock_left",
        "lock_granted",
    ], seen
    assert seen[2][1].lock_left.owner_id == "first", seen
    assert seen[3][1].lock_granted == watch_pb2.LockGranted(
        key=KEY,
        acquisition_id=second.id,
        owner_id="second",
        fencing_token=granted.fencing_token,
    ), seen

    with refused(grpc.StatusCode.FAILED_PRECONDITION, "FENCED"):
        proclaim(locks, held, b"too late")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "FENCED"):
        locks.Renew(renew, timeout=PATIENCE_S)
    again = locks.Release(release, timeout=PATIENCE_S)
    assert again.released == held.fencing_token, "a repeated release is answered the same"
    stream.cancel()
    return held.fencing_token, granted.fencing_token


def lease(channel):
    """Contention is a result, a grant that was given back is free, and one of the dead can be taken."""
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
    dead = claim("you").granted
    assert dead.fencing_token > mine.fencing_token, (dead, mine)

    reclaim = leases_pb2.ReclaimLeaseRequest(
        key="k",
        observed=leases_pb2.ObservedLease(
            owner=dead.owner, lease_token=dead.lease_token, fencing_token=dead.fencing_token
        ),
        owner=types_pb2.Owner(owner_id="heir"),
        lease_token="of heir",
        ttl_ms=60_000,
    )
    taken = leases.Reclaim(reclaim, timeout=PATIENCE_S).granted
    assert taken.fencing_token > dead.fencing_token, (taken, dead)
    again = leases.Reclaim(reclaim, timeout=PATIENCE_S).granted
    assert again == taken, "a repeated reclaim is the same grant"
    reclaim.lease_token = "of another"
    with refused(grpc.StatusCode.ABORTED, "CONFLICT"):
        leases.Reclaim(reclaim, timeout=PATIENCE_S)
    told = leases.History(leases_pb2.LeaseHistoryRequest(key="k"), timeout=PATIENCE_S)
    ended = watch_pb2.LeaseEnded
    assert [(grant.fencing_token, grant.reason, grant.by) for grant in told.ended] == [
        (mine.fencing_token, ended.RELEASED, ""),
        (dead.fencing_token, ended.RECLAIMED, "heir"),
    ], told
    assert told.live == taken and told.ended_count == 2, told


def work(channel):
    """Items are pushed once, claimed, and settled by their claim alone."""
    queues = queues_pb2_grpc.QueuesStub(channel)

    def push(dedupe_key):
        request = queues_pb2.PushItemRequest(
            queue="mail", payload=b"hello " + dedupe_key.encode(), dedupe_key=dedupe_key
        )
        return queues.Push(request, timeout=PATIENCE_S)

    def claim(wait_ms=0):
        request = queues_pb2.ClaimItemsRequest(
            queue="mail", owner=types_pb2.Owner(owner_id="me"), ttl_ms=60_000, wait_ms=wait_ms
        )
        return list(queues.Claim(request, timeout=PATIENCE_S).items)

    def settle(item, attempt, **outcome):
        request = queues_pb2.SettleItemRequest(
            queue="mail",
            item_id=item.item_id,
            fencing_token=item.claim.fencing_token,
            request_id=attempt,
            **outcome,
        )
        return queues.Settle(request, timeout=PATIENCE_S)

    settled = queues_pb2.SettleItemReply
    first = push("a")
    again = push("a")
    assert again.item_id == first.item_id and again.duplicate, "a repeated push is one item"
    (item,) = claim()
    assert item.payload == b"hello a", item
    assert claim() == [], "nobody else gets it"
    retry = queues_pb2.SettleItemRequest.Retry(note="once more")
    assert settle(item, None, retry=retry).settled == settled.RETRIED
    (retried,) = claim(wait_ms=10_000)
    assert retried.item_id == item.item_id and retried.attempts == 2, retried
    assert retried.claim.fencing_token > item.claim.fencing_token, (retried, item)

    done = queues_pb2.SettleItemRequest.Done()
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "FENCED"):
        settle(item, None, done=done)
    attempt = request_id(again.index)
    answers = [settle(retried, attempt, done=done).settled for _ in range(2)]
    assert answers == [settled.DONE, settled.DONE], "a repeated request is answered the same"
    with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
        settle(retried, None, done=done)

    waiting = queues.Claim.future(
        queues_pb2.ClaimItemsRequest(
            queue="mail", owner=types_pb2.Owner(owner_id="me"), ttl_ms=60_000, wait_ms=PATIENCE_S * 1000
        ),
        timeout=PATIENCE_S,
    )
    push("b")
    (item,) = waiting.result().items
    dead = queues_pb2.SettleItemRequest.Dead(note="no such address")
    assert settle(item, None, dead=dead).settled == settled.DEAD
    stats = queues.Stats(queues_pb2.QueueStatsRequest(prefix="mail"), timeout=PATIENCE_S).queues
    assert [(row.ready, row.dead, row.done) for row in stats] == [(0, 1, 1)], stats


def report(channel):
    """A process reports, is waited for, wakes whoever reads, and ends."""
    processes = processes_pb2_grpc.ProcessesStub(channel)
    register = processes_pb2.RegisterProcessRequest(
        id="job/1",
        definition=b"send the mail",
        wake_target=processes_pb2.WakeTarget(session="chat", target=b"lane 1"),
    )
    assert [processes.Register(register, timeout=PATIENCE_S).existed for _ in range(2)] == [False, True]

    def append(event_type, key="", **more):
        request = processes_pb2.AppendEventRequest(
            id="job/1", event_type=event_type, key=key, payload=b"of " + event_type.encode(), **more
        )
        return processes.Append(request, timeout=PATIENCE_S)

    def read(**only):
        request = processes_pb2.ProcessEventsRequest(id="job/1", **only)
        events = processes.Events(request, timeout=PATIENCE_S).events
        return [(event.sequence, event.event_type) for event in events]

    wakes = processes_pb2.PendingWakes()
    waiting = processes.AwaitEvent.future(
        processes_pb2.AwaitEventRequest(id="job/1", pending_wakes=wakes), timeout=PATIENCE_S
    )
    assert append("started", key="start").sequence == 1
    assert append("started", key="start").duplicate, "a repeated event is one event"
    append("question", wakes=True)
    woken = waiting.result().event
    assert (woken.sequence, woken.payload) == (2, b"of question"), woken
    assert read() == [(1, "started"), (2, "question")]
    assert read(pending_wakes=wakes) == [(2, "question")]
    ack = processes_pb2.AckWakeRequest(id="job/1", sequence=woken.sequence)
    assert [processes.AckWake(ack, timeout=PATIENCE_S).was_pending for _ in range(2)] == [True, False]
    assert read(pending_wakes=wakes) == []

    grant = processes_pb2.ProcessGrant(scope="lane 1", session="chat", process_id="job/1")
    processes.PutGrant(processes_pb2.PutGrantRequest(grant=grant), timeout=PATIENCE_S)
    rows = processes.GrantsTo(processes_pb2.GrantsToRequest(scope="lane 1"), timeout=PATIENCE_S).rows
    assert [(row.grant.process_id, row.process.definition) for row in rows] == [
        ("job/1", b"send the mail")
    ], rows

    ending = processes.AwaitEnd.future(
        processes_pb2.AwaitEndRequest(id="job/1"), timeout=PATIENCE_S
    )
    complete = processes_pb2.CompleteProcessRequest(
        id="job/1", state=processes_pb2.PROCESS_STATE_SUCCEEDED, outcome=b"sent"
    )
    answers = [processes.Complete(complete, timeout=PATIENCE_S).existed for _ in range(2)]
    assert answers == [False, True], answers
    assert ending.result().process.outcome == b"sent"
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "ENDED"):
        append("late")


def look(channel):
    """What an operator sees: a node that is well, and the members with their leader."""
    cluster = cluster_pb2_grpc.ClusterStub(channel)
    status = cluster.Status(cluster_pb2.StatusRequest(), timeout=PATIENCE_S)
    assert status.healthy and status.role == "leader", status
    listed = cluster.Members(cluster_pb2.MembersRequest(), timeout=PATIENCE_S)
    assert listed.cluster_id == status.cluster_id, listed
    assert [(member.id, member.voter, member.leader) for member in listed.members] == [
        (status.id, True, True)
    ], listed


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        tokens = hand_over(channel)
        lease(channel)
        work(channel)
        report(channel)
        look(channel)
    print("a program in Python took, renewed, watched and released a lock: tokens %d, %d" % tokens)
    print("it reclaimed a lease, settled items of a queue, and a process of it woke, reported and ended")


main()
