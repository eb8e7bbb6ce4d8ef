//! Inputs and work of lanes.

use std::time::Duration;

use quorate_statemachine::session::{
    CancelInputs, CancelTarget, ClaimRef, Commit, InputMode, PushInput, PushWork, Settlement,
    WorkClass,
};
use serde_json::json;

use super::seed::{
    self, START, adding, claim_inputs, claim_work, commit, committed, input, name, open,
};
use super::*;

/// A session with one input in each state.
async fn with_inputs(client: &Client) -> SessionRef {
    let (opened, held) = committed(client, "s", Vec::new()).await;
    let running = InputMode::Running {
        turn: name("t1"),
        rank: 2,
    };
    let accepted = PushInput {
        source: Some(name("web")),
        mode: running.clone(),
        ..input(&opened, "main", "accepted")
    };
    for push in [
        accepted,
        input(&opened, "main", "completed"),
        input(&opened, "other", "elsewhere"),
    ] {
        client.execute(push).await.expect("pushed");
    }
    let claimed = client
        .execute(claim_inputs(&opened, &held, InputMode::Next))
        .await
        .expect("claimed")
        .expect("there is one");
    let settled = Settlement {
        lane: name("main"),
        claim: ClaimRef {
            lease_token: claimed.claim.lease_token,
            fencing_token: claimed.claim.fencing_token,
        },
        settled: vec![name("completed")],
    };
    let settling = Commit {
        inputs: vec![settled],
        ..adding(&opened, "main", &held, Vec::new())
    };
    commit(client, settling).await;
    client
        .execute(claim_inputs(&opened, &held, running))
        .await
        .expect("claimed");
    let cancelled = input(&opened, "main", "cancelled");
    client.execute(cancelled).await.expect("pushed");
    let cancel = CancelInputs {
        session: opened.clone(),
        lane: name("main"),
        targets: vec![CancelTarget::Id(name("cancelled"))],
    };
    client.execute(cancel).await.expect("cancelled");
    opened
}

#[tokio::test(start_paused = true)]
async fn inputs_tell_their_turn_their_state_and_who_claimed_them() {
    let client = client();
    with_inputs(&client).await;
    tokio::time::advance(Duration::from_secs(4)).await;
    let printed = done(&client, "inputs s --lane main", Format::Json).await;
    assert_eq!(
        printed,
        "[{\"session\":\"s\",\"number\":\"4096\",\"id\":\"accepted\",\"lane\":\"main\",\
         \"source\":\"web\",\"mode\":\"running\",\"turn\":\"t1\",\"rank\":2,\
         \"state\":\"accepted\",\"pushed_at\":\"2023-11-14T22:13:20.000Z\",\"age_ms\":\"4000\",\
         \"claims\":\"1\",\"claimed\":true,\"fencing_token\":\"9\",\"owner_id\":\"w\",\
         \"incarnation_id\":\"boot\",\"claimed_at\":\"2023-11-14T22:13:20.000Z\",\
         \"expires_at\":\"2023-11-14T22:13:30.000Z\",\"remaining_ms\":\"6000\",\
         \"body_bytes\":\"5\",\"body\":\"hello\"}]\n"
    );
    assert_eq!(
        done(&client, "inputs s", Format::Table).await,
        "INPUT      LANE   SOURCE  TURN            STATE     CLAIMED BY  \
         UNTIL                     AGE  BODY\n\
         accepted   main   web     t1 from rank 2  accepted  w           \
         2023-11-14T22:13:30.000Z  4s   hello\n\
         elsewhere  other          (next)          pending               \
         \x20                         4s   hello\n"
    );
    tokio::time::advance(Duration::from_secs(6)).await;
    let inputs = session(&client, "inputs s --lane main").await;
    assert_eq!(
        (&inputs[0]["claimed"], &inputs[0]["remaining_ms"]),
        (&json!(false), &json!("0"))
    );
    let table = done(&client, "inputs s --lane main", Format::Table).await;
    assert!(table.contains("2023-11-14T22:13:30.000Z (over)"), "{table}");
}

#[tokio::test(start_paused = true)]
async fn inputs_that_have_ended_are_shown_to_those_who_ask_for_all() {
    let client = client();
    with_inputs(&client).await;
    let names = |line: &'static str| done(&client, line, Format::Name);
    assert_eq!(names("inputs s").await, "accepted\nelsewhere\n");
    assert_eq!(names("inputs s --lane other").await, "elsewhere\n");
    assert_eq!(
        names("inputs s --all").await,
        "accepted\ncompleted\ncancelled\nelsewhere\n"
    );
    assert_eq!(
        names("inputs s --all --limit 3").await,
        "accepted\ncompleted\ncancelled\n"
    );
    let all = session(&client, "inputs s --all --lane main").await;
    assert_eq!(
        fields(&all, "state"),
        ["accepted", "completed", "cancelled"]
    );
    assert_eq!(all[1].get("owner_id"), None, "an ended input has no claim");
    assert_eq!(
        (&all[1]["mode"], all[1].get("turn")),
        (&json!("next"), None)
    );
}

#[tokio::test(start_paused = true)]
async fn work_tells_when_it_is_available_and_who_claimed_it() {
    let client = client();
    let (opened, held) = committed(&client, "s", Vec::new()).await;
    let ready = PushWork {
        source: Some(name("web")),
        ..seed::work(&opened, "main")
    };
    let delayed = PushWork {
        class: WorkClass::Turn,
        anytime: true,
        group: Some(b"g".to_vec()),
        available_at: START.plus(60_000),
        ..seed::work(&opened, "main")
    };
    client.execute(ready).await.expect("pushed");
    client.execute(delayed).await.expect("pushed");
    let claim = claim_work(&opened, &held);
    client
        .execute(claim)
        .await
        .expect("claimed")
        .expect("there is some");
    tokio::time::advance(Duration::from_secs(4)).await;
    assert_eq!(
        done(&client, "work s", Format::Jsonl).await,
        "{\"session\":\"s\",\"number\":\"4096\",\"lane\":\"main\",\"source\":\"web\",\
         \"class\":\"command\",\"anytime\":false,\"group\":null,\
         \"pushed_at\":\"2023-11-14T22:13:20.000Z\",\"age_ms\":\"4000\",\
         \"available_at\":\"2023-11-14T22:13:20.000Z\",\"claims\":\"1\",\"claimed\":true,\
         \"fencing_token\":\"6\",\"owner_id\":\"w\",\"incarnation_id\":\"boot\",\
         \"claimed_at\":\"2023-11-14T22:13:20.000Z\",\
         \"expires_at\":\"2023-11-14T22:13:30.000Z\",\"remaining_ms\":\"6000\",\
         \"body_bytes\":\"11\",\"body\":{\"do\":\"it\"}}\n\
         {\"session\":\"s\",\"number\":\"5120\",\"lane\":\"main\",\"source\":null,\
         \"class\":\"turn\",\"anytime\":true,\"group\":\"g\",\
         \"pushed_at\":\"2023-11-14T22:13:20.000Z\",\"age_ms\":\"4000\",\
         \"available_at\":\"2023-11-14T22:14:20.000Z\",\"claims\":\"0\",\"claimed\":false,\
         \"body_bytes\":\"11\",\"body\":{\"do\":\"it\"}}\n"
    );
    assert_eq!(
        done(&client, "work s", Format::Table).await,
        "NUMBER  LANE  SOURCE  CLASS    AVAILABLE AT              GROUP  CLAIMS  CLAIMED BY  \
         UNTIL                     AGE  BODY\n\
         4096    main  web     command  2023-11-14T22:13:20.000Z         1       w           \
         2023-11-14T22:13:30.000Z  4s   {\"do\":\"it\"}\n\
         5120    main          turn     2023-11-14T22:14:20.000Z  g      0                   \
         \x20                         4s   {\"do\":\"it\"}\n"
    );
    tokio::time::advance(Duration::from_secs(6)).await;
    let work = session(&client, "work s").await;
    assert_eq!(fields(&work, "claimed"), [false, false]);
    assert_eq!(
        work[0]["owner_id"], "w",
        "the last claim, though it is over"
    );
}

#[tokio::test(start_paused = true)]
async fn work_and_inputs_go_over_pages_and_lanes_and_stop_at_their_limit() {
    let client = client();
    let opened = open(&client, "s", None).await;
    for at in 0..1_203 {
        let lane = if at < 603 { "a" } else { "b" };
        client
            .execute(seed::work(&opened, lane))
            .await
            .expect("pushed");
        let push = input(&opened, lane, &format!("{at:04}"));
        client.execute(push).await.expect("pushed");
    }
    for verb in ["work", "inputs"] {
        for (flags, count) in [
            ("", 1_203),
            ("--limit 1001", 1_001),
            ("--lane a", 603),
            ("--lane b --limit 5", 5),
            ("--lane c", 0),
        ] {
            let line = format!("{verb} s {flags}");
            let rows = session(&client, &line).await;
            let mut numbers = fields(&rows, "number");
            assert_eq!(numbers.len(), count, "{line}");
            numbers.dedup();
            assert_eq!(numbers.len(), count, "{line}: none twice");
        }
    }
}
