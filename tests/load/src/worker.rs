//! One task that loads etcd: what it holds, and what one operation of it is.
//!
//! Each operation is the cheapest that etcd offers for the purpose, as its own documentation
//! advises; the doc of each says where it promises less than ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, GetOptions, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn,
    TxnOp,
};
use futures::future::try_join_all;

use crate::etcd::{Cluster, connect};
use crate::record::Test;

/// Leases of a run outlive it.
const LEASE_TTL_SECONDS: i64 = 3_600;
/// As `quorate bench` has it.
const PAYLOAD: [u8; 64] = [b'x'; 64];
/// More connections than this make etcd no faster.
const CONNECTIONS: u32 = 12;
/// How far behind the head of a queue a worker looks: they must not all want the same item.
const HEAD: i64 = 128;
const CLAIMS_MAX: u32 = 200;

/// One task.
pub struct Worker {
    client: Client,
    test: Test,
    /// Keys of this worker in this run start with it.
    prefix: String,
    /// What all workers of a run share: the queue's keys start with it, the items are numbered.
    queue: Arc<(String, AtomicU64)>,
    lease: i64,
    keep_alive: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
    turn: u64,
}

/// Makes the workers and what they need to begin. `run` differs between runs.
pub async fn prepare(cluster: &Cluster, test: Test, count: u32, run: &str) -> Result<Vec<Worker>> {
    let leader = [cluster.leader().await?];
    let asked = match test {
        Test::RenewSpread => &cluster.endpoints[..],
        _ => &leader,
    };
    let connections = asked.iter().cycle().take(CONNECTIONS.min(count) as usize);
    let connections = connections.map(|endpoint| connect(endpoint));
    let connections = try_join_all(connections).await?;
    let queue = Arc::new((format!("queue/{run}"), AtomicU64::new(0)));
    let workers = (0..count).zip(connections.iter().cycle());
    let workers = workers.map(|(at, client)| {
        Worker::new(
            client.clone(),
            test,
            format!("{run}/{at:04}"),
            queue.clone(),
        )
    });
    try_join_all(workers).await
}

/// Ends what was held.
pub async fn clean_up(workers: Vec<Worker>) -> Result<()> {
    let revoked = workers
        .into_iter()
        .map(|mut worker| async move { worker.client.lease_revoke(worker.lease).await });
    try_join_all(revoked).await?;
    Ok(())
}

impl Worker {
    async fn new(
        mut client: Client,
        test: Test,
        prefix: String,
        queue: Arc<(String, AtomicU64)>,
    ) -> Result<Self> {
        let lease = client.lease_grant(LEASE_TTL_SECONDS, None).await?.id();
        let keep_alive = match test {
            Test::Renew | Test::RenewSpread => Some(client.lease_keep_alive(lease).await?),
            _ => None,
        };
        if test == Test::Read {
            client.put(format!("read/{prefix}"), PAYLOAD, None).await?;
        }
        Ok(Self {
            client,
            test,
            prefix,
            queue,
            lease,
            keep_alive,
            turn: 0,
        })
    }

    /// One operation.
    pub async fn operate(&mut self) -> Result<()> {
        self.turn += 1;
        match self.test {
            Test::Lock => self.lock().await,
            Test::Renew | Test::RenewSpread => self.renew().await,
            Test::Append => self.append().await,
            Test::Queue => self.job().await,
            Test::Read => self.read().await,
        }
    }

    /// Takes a key if there is none, under the worker's session lease, and deletes it. Cheaper than
    /// etcd's lock service and than a lease for each lock.
    async fn lock(&mut self) -> Result<()> {
        let key = format!("lock/{}", self.prefix);
        let options = PutOptions::new().with_lease(self.lease);
        let claim = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key.clone(), "owner", Some(options))]);
        ensure!(
            self.client.txn(claim).await?.succeeded(),
            "{key} is held already"
        );
        let deleted = self.client.delete(key, None).await?.deleted();
        ensure!(deleted == 1, "the lock was lost meanwhile");
        Ok(())
    }

    /// One keep-alive on the worker's stream. etcd answers from the leader's memory: nothing is
    /// replicated or synced.
    async fn renew(&mut self) -> Result<()> {
        let (keeper, answers) = self.keep_alive.as_mut().context("a worker that renews")?;
        keeper.keep_alive().await?;
        let answer = answers.message().await?.context("the stream ended")?;
        ensure!(answer.ttl() > 0, "the lease has expired");
        Ok(())
    }

    /// A new key under the worker's own prefix. It has no number without gaps that etcd would
    /// vouch for.
    async fn append(&mut self) -> Result<()> {
        let key = format!("event/{}/{:012}", self.prefix, self.turn);
        self.client.put(key, PAYLOAD, None).await?;
        Ok(())
    }

    /// Pushes an item, claims one of the first of the queue, and deletes it with its claim.
    async fn job(&mut self) -> Result<()> {
        let (prefix, pushed) = &*self.queue.clone();
        let number = pushed.fetch_add(1, Ordering::Relaxed);
        self.client
            .put(format!("{prefix}/item/{number:012}"), PAYLOAD, None)
            .await?;
        for attempt in 0..CLAIMS_MAX {
            if let Some((item, claim)) = self.claim(prefix, attempt).await? {
                return self.settle(item, claim).await;
            }
        }
        bail!("no item could be claimed in {CLAIMS_MAX} attempts")
    }

    async fn claim(&mut self, prefix: &str, attempt: u32) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let head = GetOptions::new()
            .with_prefix()
            .with_limit(HEAD)
            .with_serializable();
        let head = self
            .client
            .get(format!("{prefix}/item/"), Some(head))
            .await?;
        let Some(item) = pick(head.kvs(), self.lease, self.turn + u64::from(attempt)) else {
            return Ok(None);
        };
        let key = item.key().to_vec();
        let number = key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let claim = [format!("{prefix}/claim/").as_bytes(), number].concat();
        let options = PutOptions::new().with_lease(self.lease);
        let txn = Txn::new()
            .when([
                Compare::create_revision(claim.clone(), CompareOp::Equal, 0),
                Compare::mod_revision(key.clone(), CompareOp::Equal, item.mod_revision()),
            ])
            .and_then([TxnOp::put(claim.clone(), "owner", Some(options))]);
        let claimed = self.client.txn(txn).await?.succeeded();
        Ok(claimed.then_some((key, claim)))
    }

    async fn settle(&mut self, item: Vec<u8>, claim: Vec<u8>) -> Result<()> {
        let txn = Txn::new()
            .when([Compare::create_revision(
                claim.clone(),
                CompareOp::Greater,
                0,
            )])
            .and_then([TxnOp::delete(item, None), TxnOp::delete(claim, None)]);
        ensure!(
            self.client.txn(txn).await?.succeeded(),
            "the claim was lost meanwhile"
        );
        Ok(())
    }

    /// A linearizable read of a key that is there.
    async fn read(&mut self) -> Result<()> {
        let found = self
            .client
            .get(format!("read/{}", self.prefix), None)
            .await?;
        ensure!(found.kvs().len() == 1, "the key is gone");
        Ok(())
    }
}

/// One of `head`, another one for every worker and turn: a multiplicative hash of both.
fn pick(head: &[etcd_client::KeyValue], lease: i64, turn: u64) -> Option<&etcd_client::KeyValue> {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = (lease.unsigned_abs() ^ turn.wrapping_mul(GOLDEN)).wrapping_mul(GOLDEN) >> 32;
    let at = hash.checked_rem(head.len() as u64)?;
    head.get(usize::try_from(at).ok()?)
}
