//! Administration over gRPC: which node is asked, and what an error says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use quorate_client::admin::{
    AddMemberRequest, Admin, Digest, Member, MemberChange, MemberList, NodeStatus,
};
use quorate_client::{ClientError, NodeError};
use quorate_rpc::v1;
use quorate_rpc::v1::cluster_server::{Cluster, ClusterServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A node that answers each call in one way.
#[derive(Clone)]
struct Node {
    id: u64,
    /// What it says to changes; done if none.
    refusal: Option<NodeError>,
    calls: Arc<AtomicUsize>,
}

type Answer<T> = Result<Response<T>, Status>;

impl Node {
    fn change(&self, plan: String) -> Answer<MemberChange> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &self.refusal {
            Some(error) => Err(error.clone().into()),
            None => Ok(Response::new(MemberChange {
                id: self.id,
                plan,
                members: Vec::new(),
            })),
        }
    }
}

#[tonic::async_trait]
impl Cluster for Node {
    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<NodeStatus> {
        Ok(Response::new(NodeStatus {
            id: self.id,
            ..NodeStatus::default()
        }))
    }
    async fn members(&self, request: Request<v1::MembersRequest>) -> Answer<MemberList> {
        let voter = request.into_inner().local;
        let member = Member {
            id: self.id,
            voter,
            ..Member::default()
        };
        Ok(Response::new(MemberList {
            members: vec![member],
            cluster_id: "c".to_owned(),
        }))
    }
    type SaveSnapshotStream = tokio_stream::Empty<Result<v1::SnapshotPart, tonic::Status>>;
    async fn save_snapshot(
        &self,
        _: Request<v1::SaveSnapshotRequest>,
    ) -> Answer<Self::SaveSnapshotStream> {
        Ok(Response::new(tokio_stream::empty()))
    }
    async fn found_cluster(
        &self,
        _: Request<v1::FoundClusterRequest>,
    ) -> Answer<v1::FoundClusterReply> {
        Ok(Response::new(v1::FoundClusterReply {
            cluster_id: "c".to_owned(),
            id: self.id,
        }))
    }
    async fn add_member(&self, request: Request<AddMemberRequest>) -> Answer<MemberChange> {
        self.change(format!("add {}", request.into_inner().peer_addr))
    }
    async fn promote_member(&self, request: Request<v1::MemberRequest>) -> Answer<MemberChange> {
        self.change(format!("promote {}", request.into_inner().id))
    }
    async fn update_member(
        &self,
        request: Request<v1::UpdateMemberRequest>,
    ) -> Answer<MemberChange> {
        self.change(format!("update {}", request.into_inner().id))
    }
    async fn remove_member(&self, request: Request<v1::MemberRequest>) -> Answer<MemberChange> {
        self.change(format!("remove {}", request.into_inner().id))
    }
    async fn transfer_leader(&self, request: Request<v1::MemberRequest>) -> Answer<MemberChange> {
        self.change(format!("transfer to {}", request.into_inner().id))
    }
    async fn digest_at(&self, request: Request<v1::DigestAtRequest>) -> Answer<Digest> {
        Ok(Response::new(Digest {
            index: request.into_inner().index,
            digest: format!("{:032x}", self.id),
        }))
    }
    async fn audit(&self, _: Request<v1::AuditRequest>) -> Answer<v1::AuditPage> {
        Ok(Response::new(v1::AuditPage::default()))
    }
}

/// Serves for as long as the test runs; its address, and the count of changes asked for.
async fn serve(id: u64, refusal: Option<NodeError>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let calls = Arc::new(AtomicUsize::new(0));
    let node = Node {
        id,
        refusal,
        calls: calls.clone(),
    };
    let server = tonic::transport::Server::builder().add_service(ClusterServer::new(node));
    tokio::spawn(
        server
            .serve_with_incoming(TcpListenerStream::new(listener))
            .map(drop),
    );
    (address, calls)
}

async fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("bound").to_string()
}

#[tokio::test]
async fn calls_reach_the_first_node_that_is_there() {
    let (node, _) = serve(7, None).await;
    let admin = Admin::connect([nobody().await, node.clone()]).expect("addresses");
    assert_eq!(admin.status().await.expect("answered").id, 7);
    let members = admin.members(true).await.expect("answered").members;
    assert!(members[0].voter, "the request came through");
    let plans = [
        admin.promote_member(3, false).await.expect("done").plan,
        admin.remove_member(4, false).await.expect("done").plan,
        admin.transfer_leader(None, false).await.expect("done").plan,
    ];
    assert_eq!(plans, ["promote 3", "remove 4", "transfer to 0"]);
    let second = std::time::Duration::from_secs(1);
    let digest = admin.digest_at(&node, 12, second).await.expect("answered");
    assert_eq!(
        (digest.index, digest.digest.as_str()),
        (12, "00000000000000000000000000000007")
    );
}

#[tokio::test]
async fn a_change_that_may_have_been_done_is_not_asked_of_the_next_node() {
    let unknown = NodeError::OutcomeUnknown {
        message: "leadership was lost".to_owned(),
    };
    let (first, first_calls) = serve(1, Some(unknown.clone())).await;
    let (second, second_calls) = serve(2, None).await;
    let admin = Admin::connect([first, second]).expect("addresses");
    let error = admin.remove_member(3, false).await.expect_err("unknown");
    assert_eq!(error, ClientError::Node(unknown));
    let calls = (
        first_calls.load(Ordering::SeqCst),
        second_calls.load(Ordering::SeqCst),
    );
    assert_eq!(calls, (1, 0));
}

#[tokio::test]
async fn a_node_that_stops_passes_the_call_on_and_an_unsafe_step_is_final() {
    let stopped = NodeError::Stopped {
        message: "SIGTERM".to_owned(),
    };
    let risky = NodeError::Unsafe {
        message: "no quorum would be left".to_owned(),
    };
    let (first, _) = serve(1, Some(stopped)).await;
    let (second, _) = serve(2, Some(risky)).await;
    let (third, third_calls) = serve(3, None).await;
    let admin = Admin::connect([first, second, third]).expect("addresses");
    let error = admin.promote_member(3, false).await.expect_err("unsafe");
    assert_eq!(error.code(), "unsafe");
    assert_eq!(third_calls.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_change_that_was_certainly_not_done_is_asked_again_until_its_time_is_over() {
    let absent = NodeError::Unavailable {
        message: "the node at 127.0.0.1:7431 cannot be reached".to_owned(),
        retry_after_ms: 50,
        leader: None,
    };
    let (node, calls) = serve(1, Some(absent.clone())).await;
    let admin = Admin::connect([node]).expect("an address");
    let admin = admin.with_timeout(std::time::Duration::from_secs(2));
    let error = admin.promote_member(3, false).await.expect_err("absent");
    assert_eq!(error, ClientError::Node(absent));
    assert!(calls.load(Ordering::SeqCst) > 2);
}
