//! Who did what and when, by the log.

use anyhow::{Context, Result, ensure};
use quorate_client::admin::{Admin, AuditPage, AuditRequest, AuditRow, AuditWho};
use quorate_statemachine::LeaseToken;
use quorate_statemachine::lease::Release;
use quorate_tests::cluster::{Options, scenario};
use quorate_tests::wait::{PATIENCE, until};

use super::{NODE, Users, admin_of, claim, client_of, denied, name};

fn row_of<'a>(page: &'a AuditPage, command: &str, key: &str) -> Result<&'a AuditRow> {
    let is_it = |row: &&AuditRow| {
        row.command == command && row.subjects.iter().any(|subject| subject.key == key)
    };
    let found = page.rows.iter().find(is_it);
    found.with_context(|| format!("no {command} of {key}: {:?}", page.rows))
}

async fn told(admin: &Admin, asked: AuditRequest) -> Result<AuditPage> {
    let page = admin.audit(asked).await?;
    ensure!(page.next_after.is_none(), "{page:?}");
    Ok(page)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_tells_who_did_what_and_how_it_ended() -> Result<()> {
    scenario(Options::new(NODE, 3), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ci = client_of(cluster, 1, Some(&users.ci))?;
        ci.execute(claim("build/x")).await?;
        denied("another key", ci.execute(claim("other")).await)?;
        let release = Release {
            key: name("build/x"),
            lease_token: LeaseToken::parse("t")?,
            fencing_token: 1,
        };
        ci.execute(release).await?;
        let promoted = admin_of(cluster, 2, Some(&users.ann))?;
        promoted.promote_member(3, false).await?;
        for node in 0..3 {
            let ann = client_of(cluster, node, Some(&users.ann))?;
            ensure!(ann.access_status().await?.enabled, "it has caught up");
            let admin = admin_of(cluster, node, Some(&users.ann))?;
            let page = told(&admin, AuditRequest::default()).await?;
            ensure!(page.first_index <= 1, "{page:?}");
            ensure!(page.node == format!("n{}", node + 1), "{page:?}");
            let row = row_of(&page, "lease.claim", "build/x")?;
            ensure!(
                row.principal == "ci" && row.who() == AuditWho::Named,
                "{row:?}"
            );
            ensure!(row.outcome == "ok" && row.at_ms > 0, "{row:?}");
            let refused = row_of(&page, "lease.claim", "other")?;
            ensure!(refused.outcome == "denied", "{refused:?}");
            let token = format!("ci/{}", users.ci.id());
            let made = row_of(&page, "access.put_token", &token)?;
            ensure!(made.who() == AuditWho::Anonymous, "{made:?}");
            let done = row_of(&page, "cluster.note_action", "member promote 3")?;
            ensure!(done.principal == "ann", "{done:?}");
            ensure!(page.rows.iter().all(|row| !row.tick), "{page:?}");
            let secret = users.ci.expose();
            ensure!(!format!("{page:?}").contains(&secret), "a secret is told");
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_filters_find_what_is_meant() -> Result<()> {
    scenario(Options::new(NODE, 1), async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ci = client_of(cluster, 0, Some(&users.ci))?;
        for number in 0..5 {
            ci.execute(claim(&format!("build/{number}"))).await?;
        }
        let admin = admin_of(cluster, 0, Some(&users.ann))?;
        let of_ci = AuditRequest {
            principal: "ci".to_owned(),
            ..AuditRequest::default()
        };
        let all = told(&admin, of_ci.clone()).await?.rows;
        ensure!(all.len() == 5, "{all:?}");
        let (mut paged, mut after) = (Vec::new(), Some(0));
        while let Some(from) = after {
            let asked = AuditRequest {
                after: from,
                limit: 2,
                ..of_ci.clone()
            };
            let page = admin.audit(asked).await?;
            ensure!(page.rows.len() <= 2, "{page:?}");
            paged.extend(page.rows);
            after = page.next_after;
        }
        ensure!(paged == all, "{paged:?}");
        let one = AuditRequest {
            key_prefix: "build/3".to_owned(),
            ..AuditRequest::default()
        };
        let one = told(&admin, one).await?.rows;
        ensure!(one.len() == 1 && one[0].principal == "ci", "{one:?}");
        let nobody = AuditRequest {
            principal: "nobody".to_owned(),
            ..AuditRequest::default()
        };
        ensure!(
            told(&admin, nobody).await?.rows.is_empty(),
            "nobody did nothing"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_took_the_place_of_is_said_to_be_gone() -> Result<()> {
    let short = Options::new(NODE, 1).configure(|config| {
        (config.raft.snapshot_entries, config.raft.keep_entries) = (20, 5);
    });
    scenario(short, async |cluster| {
        let users = Users::in_control(cluster).await?;
        let ann = client_of(cluster, 0, Some(&users.ann))?;
        let admin = admin_of(cluster, 0, Some(&users.ann))?;
        let page = until(
            "the beginning of the log to be purged",
            PATIENCE,
            async || {
                ann.execute(claim("k")).await?;
                let page = admin.audit(AuditRequest::default()).await?;
                Ok((page.first_index > 10).then_some(page))
            },
        )
        .await?;
        ensure!(page.first_at_ms > 0, "{page:?}");
        let first = page.rows.first().context("a row")?;
        ensure!(first.index >= page.first_index, "{page:?}");
        Ok(())
    })
    .await
}
