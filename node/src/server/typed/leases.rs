//! `quorate.v1.Leases`.

use quorate_rpc::v1;
use quorate_rpc::v1::claim_lease_reply::Result as Claimed;
use quorate_rpc::v1::leases_server::Leases;
use quorate_statemachine::lease::{self, Claim, Get, Lease, List, Query, Released, Renew, Revoke};
use quorate_statemachine::{Answer as Found, LeaseToken, Query as AnyQuery};
use tonic::{Request, Status};

use super::{Answer, Typed, after, invalid, name, only, owner, owner_wire, rows, wrong_kind};

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

fn lease_token(text: String) -> Result<LeaseToken, Status> {
    LeaseToken::parse(text).map_err(invalid)
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
}
