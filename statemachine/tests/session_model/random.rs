//! Random turns: few sessions, lanes, nodes and blobs, so that they meet often, and leases that are
//! mostly live.

use proptest::prelude::*;
use quorate_statemachine::limits::{BLOB_RETENTION_MS, REQUEST_RETENTION_MS};

use crate::turns::{
    ATTACHMENTS, Act, BLOBS, Choice, Claim, Commit, Content, Delta, Execution, Expected, INPUTS,
    LANES, Mode, NODES, NewNode, Part, Passes, Pick, Request, SESSIONS, SOURCES, Settles, Staged,
    Stamped, Step, TURNS, Target, Turn, What, Wrong,
};

pub fn turns() -> impl Strategy<Value = Vec<Turn>> {
    prop::collection::vec(turn(act().boxed()), 1..100)
}

/// With crowds, so that the sweep is behind for some entries, and with graphs and piles of blobs
/// that take it several.
pub fn crowded_turns() -> impl Strategy<Value = Vec<Turn>> {
    let crowd = (30..60usize, 1..300u64);
    let crowd = crowd.prop_map(|(count, ttl_ms)| Act::Crowd { count, ttl_ms });
    let many = prop_oneof![
        2 => (20..60u8).prop_map(What::PutMany),
        1 => (200..400u16).prop_map(What::StageMany),
    ];
    let many = (0..SESSIONS, many).prop_map(|(session, what)| Step {
        session,
        stale: false,
        lane: 0,
        willing: true,
        what,
    });
    let act = prop_oneof![12 => act(), 1 => crowd, 1 => many.prop_map(Act::One)].boxed();
    prop::collection::vec(turn(act), 1..80)
}

fn turn(act: BoxedStrategy<Act>) -> impl Strategy<Value = Turn> {
    let passes = prop_oneof![
        80 => (0..3u64).prop_map(Passes::On),
        14 => (3..200u64).prop_map(Passes::On),
        3 => (1_000..10_000u64).prop_map(Passes::On),
        1 => (REQUEST_RETENTION_MS..2 * REQUEST_RETENTION_MS).prop_map(Passes::On),
        1 => (BLOB_RETENTION_MS - 2..BLOB_RETENTION_MS + 2).prop_map(Passes::On),
        1 => (1..5_000u64).prop_map(Passes::Back),
        3 => any::<bool>().prop_map(|before| Passes::ToNext { before }),
    ];
    let request = prop_oneof![
        14 => Just(Request::None),
        6 => Just(Request::Fresh),
        1 => Just(Request::Old),
    ];
    (passes, request, act).prop_map(|(passes, request, act)| Turn {
        passes,
        request,
        act,
    })
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Tick),
        30 => step().prop_map(Act::One),
        4 => prop::collection::vec(step(), 2..5).prop_map(Act::Composite),
        1 => pile().prop_map(Act::Composite),
        4 => (0..1_000usize).prop_map(Act::Again),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let session = prop_oneof![4 => Just(0u8), 1 => 1..SESSIONS];
    let lane = prop_oneof![4 => Just(0u8), 1 => 1..LANES];
    let rarely = || prop::bool::weighted(0.03);
    let willing = prop::bool::weighted(0.92);
    (session, rarely(), lane, willing, what()).prop_map(|(session, stale, lane, willing, what)| {
        Step {
            session,
            stale,
            lane,
            willing,
            what,
        }
    })
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        14 => commit().prop_map(|commit| What::Commit(Box::new(commit))),
        12 => of_work(),
        12 => of_inputs(),
        8 => of_graphs(),
        5 => of_blobs(),
        3 => of_attachments(),
        4 => of_leases(),
        3 => of_session(),
    ]
}

fn of_session() -> impl Strategy<Value = What> {
    prop_oneof![
        2 => prop::option::of(0..9u8).prop_map(What::Open),
        2 => (0..9u8).prop_map(What::PutNote),
        1 => Just(What::Delete),
    ]
}

fn of_leases() -> impl Strategy<Value = What> {
    let claim =
        (0..3u8, ttl(), any::<bool>()).prop_map(|(owner, ttl_ms, fresh)| What::ClaimLease {
            owner,
            ttl_ms,
            fresh,
        });
    prop_oneof![
        4 => claim,
        2 => ttl().prop_map(What::RenewLease),
        1 => Just(What::ReleaseLease),
        1 => Just(What::RevokeLease),
    ]
}

fn of_blobs() -> impl Strategy<Value = What> {
    let put = (some(BLOBS, 1..4), prop::bool::weighted(0.1));
    prop_oneof![
        4 => put.prop_map(|(blobs, other_bytes)| What::PutBlobs { blobs, other_bytes }),
        1 => Just(What::Collect),
    ]
}

fn of_graphs() -> impl Strategy<Value = What> {
    prop_oneof![
        3 => (staged(), nodes()).prop_map(|(graph, nodes)| What::Stage { graph, nodes }),
        4 => some(NODES, 1..5).prop_map(What::Tombstone),
        3 => Just(What::Vacuum),
    ]
}

fn of_attachments() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => (0..ATTACHMENTS, 0..3u64).prop_map(|(id, intent_at)| {
            What::NoteAttachment { id, intent_at }
        }),
        1 => some(ATTACHMENTS, 1..4).prop_map(What::CommitAttachments),
        1 => (0..ATTACHMENTS).prop_map(What::ForgetAttachment),
    ]
}

fn push_work() -> impl Strategy<Value = What> {
    let source = prop::option::of(0..SOURCES);
    let group = prop_oneof![1 => Just(None), 8 => Just(Some(0u8)), 1 => Just(Some(1))];
    let delay = prop_oneof![4 => Just(0u64), 1 => 1..300u64, 1 => 1_000..9_000u64];
    let classes = (prop::bool::weighted(0.2), prop::bool::weighted(0.8));
    (source, classes, group, delay, content()).prop_map(
        |(source, (command, anytime), group, delay_ms, body)| What::PushWork {
            source,
            command,
            anytime,
            group,
            delay_ms,
            body,
        },
    )
}

/// Work that may be taken together.
fn pile() -> impl Strategy<Value = Vec<Step>> {
    let step = |what| Step {
        session: 0,
        stale: false,
        lane: 0,
        willing: true,
        what,
    };
    prop::collection::vec(push_work().prop_map(step), 2..6)
}

fn of_work() -> impl Strategy<Value = What> {
    prop_oneof![
        9 => push_work(),
        8 => (claim(), choice()).prop_map(|(claim, choice)| What::ClaimWork(claim, choice)),
        2 => (pick(), ttl()).prop_map(|(of, ttl_ms)| What::RenewWork(of, ttl_ms)),
        2 => pick().prop_map(What::AbandonWork),
        1 => (0..9usize).prop_map(What::CancelWork),
    ]
}

fn of_inputs() -> impl Strategy<Value = What> {
    let push = (
        0..INPUTS,
        prop::option::weighted(0.3, 0..SOURCES),
        mode(),
        content(),
    );
    let push = push.prop_map(|(id, source, mode, body)| What::PushInput {
        id,
        source,
        mode,
        body,
    });
    prop_oneof![
        7 => push,
        6 => (claim(), mode(), 1..4u32).prop_map(|(claim, mode, max)| {
            What::ClaimInputs(claim, mode, max)
        }),
        2 => pick().prop_map(What::AbandonInputs),
        1 => prop::collection::vec(target(), 1..4).prop_map(What::CancelInputs),
        1 => target().prop_map(What::CancelInputsFrom),
    ]
}

fn commit() -> impl Strategy<Value = Commit> {
    let turn = prop_oneof![
        3 => Just(Stamped::None),
        7 => Just(Stamped::Fresh),
        2 => (0..99usize).prop_map(Stamped::Again),
        1 => (0..99usize).prop_map(Stamped::OtherHash),
    ];
    let expected = prop_oneof![
        4 => Just(Expected::Any),
        14 => Just(Expected::Right),
        1 => (1..3u64).prop_map(Expected::Wrong),
    ];
    let which = (prop::bool::weighted(0.95), turn, execution(), expected);
    let settles = || prop::collection::vec(settles(), 0..3);
    let counter = (0..3u8, prop::collection::vec(-3..4i64, 1..4));
    let release = prop::option::weighted(0.15, execution());
    let head = (
        delta(),
        prop::option::of(0..NODES),
        content(),
        some(BLOBS, 0..4),
        prop::collection::vec(counter, 0..3),
    );
    let rest = (
        prop::option::weighted(0.5, 0..TURNS),
        prop_oneof![4 => Just(Vec::new()), 1 => some(ATTACHMENTS, 1..3)],
        0..9u8,
        release,
    );
    (which, head, settles(), settles(), rest).prop_map(|(which, head, work, inputs, rest)| Commit {
        own_lane: which.0,
        turn: which.1,
        execution: which.2,
        expected: which.3,
        graph: head.0,
        leaf: head.1,
        state: head.2,
        roots: head.3,
        usage: head.4,
        work,
        inputs,
        interrupted: rest.0,
        attachments: rest.1,
        result: rest.2,
        release: rest.3,
    })
}

fn delta() -> impl Strategy<Value = Delta> {
    let stale = prop_oneof![4 => Just(0u8), 1 => 1..4u8];
    prop_oneof![
        6 => nodes().prop_map(Delta::Append),
        4 => (stale, nodes()).prop_map(|(stale, nodes)| Delta::Extend { stale, nodes }),
        3 => (staged(), nodes()).prop_map(|(by, nodes)| Delta::Replace { by, nodes }),
    ]
}

fn staged() -> impl Strategy<Value = Staged> {
    prop_oneof![
        4 => Just(Staged::New),
        8 => (0..9usize).prop_map(Staged::One),
        1 => (0..9usize).prop_map(Staged::Wrong),
    ]
}

fn settles() -> impl Strategy<Value = Settles> {
    let part = prop_oneof![
        12 => Just(Part::Held),
        2 => Just(Part::First),
        1 => Just(Part::All),
        1 => Just(Part::Twice),
    ];
    let wrong = prop_oneof![
        20 => Just(Wrong::Nothing),
        1 => Just(Wrong::FencingToken),
        1 => Just(Wrong::LeaseToken),
    ];
    let of = (prop::bool::weighted(0.95), 0..99usize, wrong);
    (of, part).prop_map(|((held, nth, wrong), part)| Settles {
        of: Pick { held, nth, wrong },
        part,
    })
}

fn pick() -> impl Strategy<Value = Pick> {
    let wrong = prop_oneof![
        10 => Just(Wrong::Nothing),
        1 => Just(Wrong::FencingToken),
        1 => Just(Wrong::LeaseToken),
    ];
    let held = prop::bool::weighted(0.8);
    (held, 0..99usize, wrong).prop_map(|(held, nth, wrong)| Pick { held, nth, wrong })
}

fn claim() -> impl Strategy<Value = Claim> {
    let dead = prop::bool::weighted(0.25);
    (execution(), 0..3u8, ttl(), dead).prop_map(|(execution, owner, ttl_ms, dead)| Claim {
        execution,
        owner,
        ttl_ms,
        dead,
    })
}

fn choice() -> impl Strategy<Value = Choice> {
    let running = || prop::bool::weighted(0.5);
    let wrong = prop::bool::weighted(0.2);
    prop_oneof![
        2 => Just(Choice::Command),
        6 => (running(), 1..5u32).prop_map(|(running, max)| Choice::Turn { running, max }),
        2 => (running(), 1..4u32, wrong).prop_map(|(running, max, wrong)| {
            Choice::Exactly { running, max, wrong }
        }),
    ]
}

fn execution() -> impl Strategy<Value = Execution> {
    prop_oneof![
        34 => Just(Execution::Live),
        2 => (0..9usize).prop_map(Execution::Former),
        1 => Just(Execution::OtherOwner),
        1 => Just(Execution::OtherToken),
        1 => Just(Execution::OtherLane),
        1 => Just(Execution::None),
    ]
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![
        3 => (0..TURNS, 0..3u8).prop_map(|(turn, rank)| Mode::Running { turn, rank }),
        2 => Just(Mode::Next),
    ]
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![
        6 => (0..99usize).prop_map(Target::Known),
        1 => (0..INPUTS).prop_map(Target::Id),
        2 => (0..SOURCES).prop_map(Target::Source),
    ]
}

fn content() -> impl Strategy<Value = Content> {
    let blobs = (some(BLOBS, 1..4), prop::bool::weighted(0.03));
    prop_oneof![
        3 => (0..9u8).prop_map(Content::Inline),
        2 => blobs.prop_map(|(blobs, wrong_length)| Content::Blobs { blobs, wrong_length }),
    ]
}

fn nodes() -> impl Strategy<Value = Vec<NewNode>> {
    let node = (0..NODES, prop::option::of(0..NODES), content());
    let node = node.prop_map(|(id, parent, body)| NewNode { id, parent, body });
    prop::collection::vec(node, 0..4)
}

fn some(of: u8, count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..of, count)
}

fn ttl() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => Just(0u64),
        3 => 1..50u64,
        4 => 50..5_000u64,
        8 => Just(60_000u64),
        4 => Just(20_000_000u64),
    ]
}
