//! `quorate.v1.Leases`.

use quorate_rpc::v1;
use quorate_rpc::v1::claim_lease_reply::Result as Claimed;
use quorate_rpc::v1::leases_server::Leases;
use quorate_statemachine::lease::{
    self, Claim, EndReason, Ended, Get, HistoryOf, Lease, List, Observed, Query, Reclaim, Released,
    Renew, Revoke,
};
use quorate_statemachine::{Answer as Found, InvalidArgument, LeaseToken, Query as AnyQuery};
use tonic::{Request, Status};

use super::{
    Answer, Typed, after, invalid, missing, name, only, owner, owner_in, owner_wire, rows,
    wrong_kind,
};

fn lease_wire(lease: Lease) -> v1::Lease {
    v1::Lease {
        key: lease.key.into(),
        owner: Some(owner_wire(lease.owner)),
        lease_token: lease.lease_token.into(),
        fencing_token: lease.fencing_token,
        ttl_ms: lease.ttl_ms,
        granted_at_ms: lease.granted_at.0,
        renewed_at_ms: lease.renewed_at.0,
        expires_at_ms: lease.expires_at.0,
        renewals: lease.renewals,
        metadata: lease.metadata.into(),
    }
}

fn ended_wire(ended: Ended) -> v1::EndedLease {
    let (reason, by) = reason_wire(ended.reason);
    v1::EndedLease {
        owner: Some(owner_wire(ended.owner)),
        lease_token: ended.lease_token.into(),
        fencing_token: ended.fencing_token,
        ttl_ms: ended.ttl_ms,
        granted_at_ms: ended.granted_at.0,
        renewed_at_ms: ended.renewed_at.0,
        ended_at_ms: ended.ended_at.0,
        ended_index: ended.ended_index,
        reason: reason.into(),
        by,
    }
}

/// The reason, and who or why where there is more to say.
pub(super) fn reason_wire(reason: EndReason) -> (v1::lease_ended::Reason, String) {
    use v1::lease_ended::Reason;
    match reason {
        EndReason::Expired => (Reason::Expired, String::new()),
        EndReason::Released => (Reason::Released, String::new()),
        EndReason::Superseded => (Reason::Superseded, String::new()),
        EndReason::Reclaimed { by } => (Reason::Reclaimed, by.into()),
        EndReason::Revoked { by } => (Reason::Revoked, by),
    }
}

fn lease_token(text: String) -> Result<LeaseToken, Status> {
    LeaseToken::parse(text).map_err(invalid)
}

fn observed(wire: Option<v1::ObservedLease>) -> Result<Observed, Status> {
    let wire = wire.ok_or_else(|| missing("observed", "owner, lease_token and fencing_token"))?;
    let owner = owner_in("observed.owner", wire.owner)?;
    // The new grant has a token as well: the caller is told which of the two is wrong.
    let lease_token = LeaseToken::parse(wire.lease_token).map_err(|wrong| {
        let field = "observed.lease_token".to_owned();
        invalid(InvalidArgument { field, ..wrong })
    })?;
    Ok(Observed {
        owner_id: owner.owner_id,
        incarnation_id: owner.incarnation_id,
        lease_token,
        fencing_token: wire.fencing_token,
    })
}

fn same_owner(wire: v1::SameOwner) -> lease::SameOwner {
    match wire {
        v1::SameOwner::Busy => lease::SameOwner::Busy,
        v1::SameOwner::Fresh => lease::SameOwner::Fresh,
        v1::SameOwner::Extend => lease::SameOwner::Extend,
    }
}

#[tonic::async_trait]
impl Leases for Typed {
    async fn claim(&self, request: Request<v1::ClaimLeaseRequest>) -> Answer<v1::ClaimLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let claim = Claim {
            same_owner: same_owner(asked.same_owner()),
            key: name("key", asked.key)?,
            owner: owner(asked.owner)?,
            lease_token: lease_token(asked.lease_token)?,
            ttl_ms: asked.ttl_ms,
            metadata: asked.metadata.into(),
        };
        let (index, claimed) = call.execute(claim, asked.request_id).await?;
        let result = Some(match claimed {
            lease::Claimed::Granted(lease) => Claimed::Granted(lease_wire(lease)),
            lease::Claimed::Busy(holder) => Claimed::Busy(lease_wire(holder)),
        });
        Ok(v1::ClaimLeaseReply { result, index }.into())
    }

    async fn renew(&self, request: Request<v1::RenewLeaseRequest>) -> Answer<v1::RenewLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let renew = Renew {
            key: name("key", asked.key)?,
            lease_token: lease_token(asked.lease_token)?,
            fencing_token: asked.fencing_token,
            ttl_ms: asked.ttl_ms,
        };
        let (index, renewed) = call.execute(renew, asked.request_id).await?;
        Ok(v1::RenewLeaseReply {
            fencing_token: renewed.fencing_token,
            ttl_ms: renewed.ttl_ms,
            expires_at_ms: renewed.expires_at.0,
            index,
        }
        .into())
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Answer<v1::ReleaseLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let release = lease::Release {
            key: name("key", asked.key)?,
            lease_token: lease_token(asked.lease_token)?,
            fencing_token: asked.fencing_token,
        };
        let (index, released) = call.execute(release, asked.request_id).await?;
        let (released, current) = match released {
            Released::Released => (true, None),
            Released::NotHeld { current } => (false, current.map(lease_wire)),
        };
        Ok(v1::ReleaseLeaseReply {
            released,
            current,
            index,
        }
        .into())
    }

    async fn reclaim(
        &self,
        request: Request<v1::ReclaimLeaseRequest>,
    ) -> Answer<v1::ReclaimLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let reclaim = Reclaim {
            observed: observed(asked.observed)?,
            claim: Claim {
                key: name("key", asked.key)?,
                owner: owner(asked.owner)?,
                lease_token: lease_token(asked.lease_token)?,
                ttl_ms: asked.ttl_ms,
                // Has no meaning here: the holder is whom the key is taken from.
                same_owner: lease::SameOwner::Busy,
                metadata: asked.metadata.into(),
            },
        };
        let (index, granted) = call.execute(reclaim, asked.request_id).await?;
        let granted = Some(lease_wire(granted));
        Ok(v1::ReclaimLeaseReply { granted, index }.into())
    }

    async fn revoke(
        &self,
        request: Request<v1::RevokeLeaseRequest>,
    ) -> Answer<v1::RevokeLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let revoke = Revoke {
            key: name("key", asked.key)?,
            only: only(asked.only),
            by: asked.by,
        };
        let (index, revoked) = call.execute(revoke, asked.request_id).await?;
        let revoked = Some(lease_wire(revoked));
        Ok(v1::RevokeLeaseReply { revoked, index }.into())
    }

    async fn get(&self, request: Request<v1::GetLeaseRequest>) -> Answer<v1::GetLeaseReply> {
        let (call, asked) = self.call(request).await?;
        let key = name("key", asked.key)?;
        let found = call
            .read(AnyQuery::Lease(Query::Get(Get { key })), asked.read)
            .await?;
        let Found::Lease(lease::Answer::Get(lease)) = found.answer else {
            return Err(wrong_kind());
        };
        Ok(v1::GetLeaseReply {
            lease: lease.map(lease_wire),
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn list(&self, request: Request<v1::ListLeasesRequest>) -> Answer<v1::ListLeasesReply> {
        let (call, asked) = self.call(request).await?;
        let list = List {
            prefix: asked.prefix,
            after: after(asked.after)?,
            limit: asked.limit,
        };
        let found = call
            .read(AnyQuery::Lease(Query::List(list)), asked.read)
            .await?;
        let Found::Lease(lease::Answer::List(page)) = found.answer else {
            return Err(wrong_kind());
        };
        let (leases, next) = rows(page, lease_wire);
        Ok(v1::ListLeasesReply {
            leases,
            next,
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }

    async fn history(
        &self,
        request: Request<v1::LeaseHistoryRequest>,
    ) -> Answer<v1::LeaseHistoryReply> {
        let (call, asked) = self.call(request).await?;
        let key = name("key", asked.key)?;
        let query = AnyQuery::Lease(Query::History(HistoryOf { key }));
        let found = call.read(query, asked.read).await?;
        let Found::Lease(lease::Answer::History { history, live }) = found.answer else {
            return Err(wrong_kind());
        };
        Ok(v1::LeaseHistoryReply {
            ended: history.ended.into_iter().map(ended_wire).collect(),
            ended_count: history.epoch,
            live: live.map(lease_wire),
            index: found.index,
            now_ms: found.now.0,
        }
        .into())
    }
}
