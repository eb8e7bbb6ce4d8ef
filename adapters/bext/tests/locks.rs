//! What the suite cannot know: lock ids, bounds, errors and lost answers of this plugin.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use bext_plugin_api::locking::{LockHandle, LockingPlugin};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use quorate_bext::{LockId, QuorateLocks};
use quorate_client::{
    Answered, Client, ExecuteOptions, Executed, ReadOptions, Transport, WatchEvent, WatchWhat,
};
use quorate_rpc::NodeError;
use support::{Cluster, until};

const HOUR: u64 = 60 * 60 * 1_000;

fn over(cluster: &Cluster) -> QuorateLocks {
    let locks = QuorateLocks::over(cluster.client()).build();
    locks.expect("the options are right")
}

fn taken(locks: &QuorateLocks, key: &str) -> LockHandle {
    let handle = locks.try_lock(key, HOUR).expect("the cluster answers");
    handle.expect("nobody else wants this key")
}

fn assert_says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
}

#[test]
fn the_lock_id_is_the_acquisition_and_its_fencing_token() {
    let cluster = Cluster::embedded();
    let locks = over(&cluster);
    let first = taken(&locks, "job");
    let lock_id = LockId::of(&first).expect("the documented form");
    assert_eq!(cluster.holder_id("job"), Some(lock_id));
    locks.release(first).expect("released");
    assert_eq!(cluster.holder_id("job"), None);
    let second = LockId::of(&taken(&locks, "job")).expect("the documented form");
    assert!(second.fencing_token > lock_id.fencing_token);
}

#[test]
fn a_handle_is_good_on_any_host() {
    let cluster = Cluster::embedded();
    let handle = taken(&over(&cluster), "moved");
    // The host that took it is gone, without cleanup: the lock is not freed by that.
    let other = over(&cluster);
    assert_eq!(other.try_lock("moved", HOUR), Ok(None));
    other.renew(&handle).expect("renewed");
    other.release(handle).expect("released");
    taken(&other, "moved");
}

#[test]
fn a_renewal_takes_the_ttl_of_the_handle() {
    let cluster = Cluster::embedded();
    let locks = over(&cluster);
    let mut handle = taken(&locks, "longer");
    handle.ttl_ms = 2 * HOUR;
    locks.renew(&handle).expect("renewed");
    let holder = cluster.holder("longer").expect("it is held");
    assert_eq!(holder.ttl_ms, 2 * HOUR);
    handle.ttl_ms = 0;
    let error = locks.renew(&handle).expect_err("no TTL");
    assert_says(&error, &["renew", "ttl_ms", "1 to 86400000 ms", "0 ms"]);
}

#[test]
fn a_renewal_says_why_the_lock_is_lost() {
    let cluster = Cluster::embedded();
    let locks = over(&cluster);
    let old = taken(&locks, "lost");
    locks.release(old.clone()).expect("released");
    let error = locks.renew(&old).expect_err("it was released");
    assert_says(&error, &["quorate", "\"lost\"", "stale"]);

    let new = taken(&locks, "lost");
    let lock_id = LockId::of(&new).expect("the documented form");
    let forged = LockId {
        fencing_token: lock_id.fencing_token + 1,
        ..lock_id
    };
    let forged = LockHandle {
        lock_id: forged.to_string(),
        ..new
    };
    let error = locks.renew(&forged).expect_err("another token");
    assert_says(
        &error,
        &["fencing token", &lock_id.fencing_token.to_string()],
    );

    let foreign = LockHandle {
        lock_id: "4f8c7a52-52c1-4f0e-9d5e-7d3a1b2c3d4e".to_owned(),
        ..forged
    };
    let error = locks.renew(&foreign).expect_err("no lock id of ours");
    assert_says(
        &error,
        &["lock_id", "q1:<uuid>:<fencing token>", "4f8c7a52"],
    );
    locks.release(foreign).expect("a silent no-op");
    assert_eq!(cluster.holder_id("lost"), Some(lock_id));
}

#[test]
fn arguments_out_of_bounds_are_refused_with_field_limit_and_actual() {
    let cluster = Cluster::embedded();
    let prefixed = QuorateLocks::over(cluster.client()).prefix("p/").build();
    let locks = prefixed.expect("the options are right");
    for (key, ttl_ms, words) in [
        (
            "",
            1,
            ["key", "must not be empty", "1 to 512 bytes", "0 bytes"],
        ),
        (
            &"x".repeat(511),
            1,
            ["key", "too long", "512 bytes", "513 bytes"],
        ),
        (
            "a\u{7}",
            1,
            ["key", "control", "printable", "U+0007 at byte 3"],
        ),
        (
            "a",
            0,
            ["ttl_ms", "out of range", "1 to 86400000 ms", "actual 0 ms"],
        ),
        (
            "a",
            86_400_001,
            ["ttl_ms", "out of range", "86400000 ms", "86400001 ms"],
        ),
    ] {
        let error = locks.try_lock(key, ttl_ms).expect_err("out of bounds");
        assert_says(&error, &words);
    }
    for (key, ttl_ms) in [("a", 86_400_000), (&"x".repeat(510), 1)] {
        let handle = locks.try_lock(key, ttl_ms).expect("within bounds");
        assert!(handle.is_some());
    }
    assert!(cluster.holder("p/a").is_some(), "the prefix is in the name");
}

#[test]
fn options_out_of_bounds_are_refused_when_the_plugin_is_built() {
    let connect = || QuorateLocks::connect(["127.0.0.1:1"]);
    for (builder, word) in [
        (connect().name(""), "name"),
        (connect().prefix("x".repeat(512)), "prefix"),
        (connect().prefix("a\nb"), "prefix"),
        (connect().owner(""), "owner"),
        (connect().timeout(Duration::ZERO), "timeout"),
        (connect().timeout(Duration::from_secs(601)), "timeout"),
        (QuorateLocks::connect(["not an address"]), "endpoint"),
        (QuorateLocks::connect::<&str>([]), "endpoints"),
    ] {
        let error = builder.build().expect_err(word).to_string();
        assert_says(&error, &[word, "limit", "actual"]);
    }
    let named = connect().name("locks-of-eu").build();
    assert_eq!(named.expect("the options are right").name(), "locks-of-eu");
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_that_says_where_to_look() {
    let timeout = Duration::from_millis(400);
    let built = QuorateLocks::connect(["127.0.0.1:1"])
        .timeout(timeout)
        .build();
    let locks = built.expect("the options are right");
    let began = Instant::now();
    let error = locks.try_lock("k", HOUR).expect_err("nobody is there");
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
    assert_says(&error, &["try_lock \"k\"", "127.0.0.1:1", "majority"]);
    let handle = LockHandle {
        key: "k".to_owned(),
        lock_id: LockId {
            id: [7; 16],
            fencing_token: 7,
        }
        .to_string(),
        ttl_ms: HOUR,
    };
    let error = locks.renew(&handle).expect_err("nobody is there");
    assert_says(&error, &["renew \"k\"", "127.0.0.1:1"]);
    let error = locks.release(handle).expect_err("nobody is there");
    assert_says(&error, &["release \"k\"", "127.0.0.1:1"]);
    locks.cleanup().expect("nothing is held");
}

/// What becomes of commands: they are done, done without a word, or refused; or the next one is
/// done without a word and all after it are refused.
const HEARS: u8 = 0;
const LOSES_ANSWERS: u8 = 1;
const IS_DOWN: u8 = 2;
const GOES_DOWN: u8 = 3;

/// A real node's transport whose faults are switched on and off.
#[derive(Clone)]
struct Faulty {
    node: Arc<dyn Transport>,
    state: Arc<AtomicU8>,
}

impl Faulty {
    fn of(cluster: &Cluster) -> Self {
        Self {
            node: Arc::clone(cluster.client().transport()),
            state: Arc::new(AtomicU8::new(HEARS)),
        }
    }

    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn plugin(&self, timeout: Duration) -> QuorateLocks {
        let built = QuorateLocks::over(Client::new(self.clone()))
            .timeout(timeout)
            .build();
        built.expect("the options are right")
    }
}

impl Transport for Faulty {
    fn execute(
        &self,
        command: Bytes,
        options: ExecuteOptions,
    ) -> BoxFuture<'_, Result<Executed, NodeError>> {
        async move {
            match self.state.load(Ordering::SeqCst) {
                HEARS => self.node.execute(command, options).await,
                IS_DOWN => Err(NodeError::Unavailable {
                    message: "switched off".to_owned(),
                    retry_after_ms: 1,
                    leader: None,
                }),
                state => {
                    if state == GOES_DOWN {
                        self.set(IS_DOWN);
                    }
                    let _lost = self.node.execute(command, options).await;
                    std::future::pending().await
                }
            }
        }
        .boxed()
    }

    fn read(
        &self,
        query: Bytes,
        options: ReadOptions,
    ) -> BoxFuture<'_, Result<Answered, NodeError>> {
        self.node.read(query, options)
    }

    fn watch(
        &self,
        what: WatchWhat,
        from_index: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, WatchEvent>, NodeError>> {
        self.node.watch(what, from_index)
    }

    fn seen_index(&self) -> u64 {
        self.node.seen_index()
    }
}

#[test]
fn a_try_whose_answer_was_lost_leaves_no_lock_behind() {
    let cluster = Cluster::embedded();
    let faulty = Faulty::of(&cluster);
    let locks = faulty.plugin(Duration::from_millis(300));
    faulty.set(LOSES_ANSWERS);
    let error = locks.try_lock("lost", HOUR).expect_err("no answer");
    assert_says(&error, &["try_lock \"lost\"", "unknown"]);
    faulty.set(HEARS);
    until("the release in the background", || {
        cluster.holder("lost").is_none().then_some(())
    });
    taken(&locks, "lost");
}

#[test]
fn a_plugin_that_is_dropped_in_doubt_still_frees_what_it_may_hold() {
    let cluster = Cluster::embedded();
    let faulty = Faulty::of(&cluster);
    let locks = faulty.plugin(Duration::from_secs(2));
    faulty.set(GOES_DOWN);
    locks.try_lock("lost", HOUR).expect_err("no answer");
    // The release that began in the background is refused, and goes on being tried.
    assert!(
        cluster.holder("lost").is_some(),
        "it was granted all the same"
    );
    drop(locks);
    faulty.set(HEARS);
    until("the release in the background", || {
        cluster.holder("lost").is_none().then_some(())
    });
}

#[test]
fn a_cleanup_that_is_not_heard_says_how_much_is_left_and_can_be_repeated() {
    let cluster = Cluster::embedded();
    let faulty = Faulty::of(&cluster);
    let locks = faulty.plugin(Duration::from_millis(300));
    for number in 0..30 {
        taken(&locks, &format!("held-{number}"));
    }
    let released = taken(&locks, "released");
    locks.release(released).expect("released");
    faulty.set(IS_DOWN);
    let error = locks.cleanup().expect_err("nobody hears it");
    assert_says(&error, &["cleanup", "30 of 30", "switched off", "again"]);
    faulty.set(HEARS);
    locks.cleanup().expect("heard");
    assert!((0..30).all(|number| cluster.holder(&format!("held-{number}")).is_none()));
    let handle = taken(&locks, "after");
    locks.renew(&handle).expect("the plugin can be used again");
}

#[test]
fn a_release_that_was_not_heard_is_made_up_for_by_cleanup() {
    let cluster = Cluster::embedded();
    let faulty = Faulty::of(&cluster);
    let locks = faulty.plugin(Duration::from_millis(300));
    let handle = taken(&locks, "k");
    faulty.set(IS_DOWN);
    let error = locks.release(handle).expect_err("nobody hears it");
    assert_says(&error, &["release \"k\"", "switched off", "majority"]);
    faulty.set(HEARS);
    locks.cleanup().expect("heard");
    assert!(cluster.holder("k").is_none());
}
