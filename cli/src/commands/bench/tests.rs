//! Every test runs against the real state machine.

use quorate_client::testing::MemoryTransport;
use quorate_statemachine::lease::List;

use super::*;
use crate::exit::Exit;
use crate::output::{Captured, Format};

fn bench(test: Test, count: u64, keys: Option<u32>) -> Bench {
    Bench {
        test,
        clients: 4,
        seconds: None,
        count: Some(count),
        keys,
        connections: 2,
        payload_bytes: 16,
    }
}

#[tokio::test]
async fn every_test_does_what_was_counted_and_leaves_no_lease_behind() {
    for test in [
        Test::Lock,
        Test::Renew,
        Test::Append,
        Test::Queue,
        Test::Read,
    ] {
        for keys in [None, Some(9)] {
            let client = Client::new(MemoryTransport::new());
            let clients = vec![client.clone(), client.clone()];
            let measured = measure(clients, &bench(test, 40, keys))
                .await
                .expect("a cluster");
            assert_eq!(measured.latency.len(), 40, "{test:?}");
            assert_eq!(measured.errors, 0, "{test:?}: {:?}", measured.first_error);
            let list = List {
                prefix: String::new(),
                after: None,
                limit: 0,
            };
            assert!(
                client
                    .lease_list(list)
                    .await
                    .expect("a list")
                    .rows
                    .is_empty(),
                "{test:?}"
            );
        }
    }
}

#[tokio::test]
async fn workers_may_share_what_excludes_nobody() {
    for test in [Test::Append, Test::Queue, Test::Read] {
        let client = Client::new(MemoryTransport::new());
        let measured = measure(vec![client], &bench(test, 20, Some(1)))
            .await
            .expect("a cluster");
        assert_eq!(
            (measured.latency.len(), measured.errors),
            (20, 0),
            "{test:?}"
        );
    }
    let refused = check_keys(&bench(Test::Lock, 20, Some(1))).expect_err("one key, four holders");
    assert_eq!(
        (refused.limit.as_str(), refused.actual.as_str()),
        ("4 or more, one a client", "1")
    );
    assert_eq!(Failure::from(refused).exit(), Exit::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_down_ends_the_preparation() {
    let transport = MemoryTransport::new();
    transport.set_down(true);
    let client = Client::new(transport).with_timeout(Duration::from_millis(50));
    measure(vec![client], &bench(Test::Renew, 10, None))
        .await
        .expect_err("nothing is prepared");
}

#[test]
fn the_result_is_one_object_of_numbers() {
    let mut measured = Measured::new();
    for micros in 1..=1_000 {
        measured.latency.saturating_record(micros);
    }
    measured.seconds = 5.0;
    measured.errors = 2;
    let captured = Captured::default();
    let row = ResultRow::new(&bench(Test::Lock, 1, None), &measured);
    captured.printer(Format::Json).one(&row).expect("memory");
    assert_eq!(
        captured.take(),
        "{\"test\":\"lock\",\"clients\":4,\"keys\":4,\"connections\":2,\"seconds\":5.0,\
         \"ops\":1000,\"ops_per_second\":200.0,\"p50_us\":500,\"p99_us\":990,\"p999_us\":999,\
         \"max_us\":1000,\"errors\":2}\n"
    );
    captured.printer(Format::Table).one(&row).expect("memory");
    assert_eq!(
        captured.take(),
        "TEST  CLIENTS  SECONDS  OPS   OPS/S  P50     P99     P99.9   MAX     ERRORS\n\
         lock  4        5.0      1000  200    0.50ms  0.99ms  1.00ms  1.00ms  2\n"
    );
}

#[test]
fn a_latency_of_seconds_is_not_cut() {
    let mut measured = Measured::new();
    measured.latency.saturating_record(30_000_000);
    let kept = measured.latency.max();
    assert!((29_900_000..=30_100_000).contains(&kept), "{kept} µs");
}
