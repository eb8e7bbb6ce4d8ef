//! What `cluster form` has to do, from what the nodes say of themselves.

use std::collections::BTreeSet;

use quorate_client::admin::{Member, NodeStatus};

use crate::exit::{Exit, Failure};

/// A node that answered.
#[derive(Debug, Clone)]
pub struct Reached {
    /// Where it was asked.
    pub endpoint: String,
    /// What it said.
    pub status: NodeStatus,
}

impl Reached {
    /// Whether it belongs to no cluster yet.
    pub fn is_blank(&self) -> bool {
        self.status.role == "blank"
    }
}

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// Who founds the cluster; none if there is one.
    pub founder: Option<Reached>,
    /// A member of the cluster that is there.
    pub member: Option<Reached>,
    /// The cluster that is there.
    pub cluster_id: Option<String>,
    /// Names of its members.
    pub members: Vec<String>,
    /// Who is to be added, sorted by name.
    pub blank: Vec<Reached>,
}

impl Plan {
    /// From the nodes that answered and the members of the cluster that some belong to.
    pub fn of(mut nodes: Vec<Reached>, members: &[Member]) -> Result<Self, Failure> {
        nodes.sort_by(|a, b| a.status.name.cmp(&b.status.name));
        let (blank, joined): (Vec<_>, Vec<_>) = nodes.into_iter().partition(Reached::is_blank);
        let cluster_id = one_cluster(&joined)?;
        check_names(&blank, members)?;
        let mut blank = blank;
        let founder = match joined.is_empty() && !blank.is_empty() {
            true => Some(blank.remove(0)),
            false => None,
        };
        Ok(Self {
            founder,
            member: joined.into_iter().next(),
            cluster_id,
            members: members.iter().map(|member| member.name.clone()).collect(),
            blank,
        })
    }
}

fn one_cluster(joined: &[Reached]) -> Result<Option<String>, Failure> {
    let ids: BTreeSet<&str> = joined
        .iter()
        .map(|node| node.status.cluster_id.as_str())
        .collect();
    if ids.len() <= 1 {
        return Ok(ids.first().map(|id| (*id).to_owned()));
    }
    let who = joined
        .iter()
        .map(|node| format!("{} in {}", node.endpoint, node.status.cluster_id));
    Err(refused(format!(
        "the nodes belong to {} clusters, which never become one: {}; give the endpoints of one \
         cluster, or start the others on empty directories",
        ids.len(),
        who.collect::<Vec<_>>().join(", ")
    )))
}

/// A blank node is known by its name; one that has a member's name has lost its disk.
fn check_names(blank: &[Reached], members: &[Member]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for node in blank {
        let (endpoint, name) = (&node.endpoint, &node.status.name);
        if name.is_empty() || node.status.peer_addr.is_empty() {
            return Err(refused(format!(
                "the node at {endpoint} has no name or does not listen for other nodes; set \
                 node.name and listen.peer in its configuration"
            )));
        }
        if !seen.insert(name) {
            return Err(refused(format!(
                "two blank nodes are called {name:?}, or one was given twice; each needs a name of \
                 its own (node.name) and one endpoint"
            )));
        }
        if let Some(lost) = members.iter().find(|member| member.name == *name) {
            return Err(refused(format!(
                "the node at {endpoint} is blank, but {name:?} is member {id} of the cluster: its \
                 data is gone; nothing was done. Take the lost member out with `quorate member \
                 remove {id}`, then run this again: the node comes back under a new id",
                id = lost.id
            )));
        }
    }
    Ok(())
}

fn refused(message: String) -> Failure {
    Failure::new(Exit::Lost, "unsafe", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, cluster: &str) -> Reached {
        let role = if cluster.is_empty() {
            "blank"
        } else {
            "follower"
        };
        Reached {
            endpoint: format!("{name}:7400"),
            status: NodeStatus {
                name: name.to_owned(),
                cluster_id: cluster.to_owned(),
                role: role.to_owned(),
                peer_addr: format!("{name}:7401"),
                ..NodeStatus::default()
            },
        }
    }

    fn member(id: u64, name: &str) -> Member {
        Member {
            id,
            name: name.to_owned(),
            ..Member::default()
        }
    }

    fn names(nodes: &[Reached]) -> Vec<&str> {
        nodes.iter().map(|node| node.status.name.as_str()).collect()
    }

    #[test]
    fn the_first_by_name_founds_when_all_are_blank() {
        let nodes = vec![node("b", ""), node("c", ""), node("a", "")];
        let plan = Plan::of(nodes, &[]).expect("all blank");
        assert_eq!(plan.founder.expect("a founder").status.name, "a");
        assert_eq!(names(&plan.blank), ["b", "c"]);
        assert!(plan.member.is_none() && plan.cluster_id.is_none());
    }

    #[test]
    fn blank_nodes_are_added_to_the_cluster_that_is_there() {
        let nodes = vec![node("a", ""), node("b", "x")];
        let plan = Plan::of(nodes, &[member(1, "b")]).expect("one cluster");
        assert!(plan.founder.is_none());
        assert_eq!(plan.cluster_id.as_deref(), Some("x"));
        assert_eq!(names(&plan.blank), ["a"]);
    }

    #[test]
    fn members_stay_as_they_are() {
        let nodes = vec![node("a", "x"), node("b", "x")];
        let plan = Plan::of(nodes, &[member(1, "a"), member(2, "b")]).expect("one cluster");
        assert!(plan.founder.is_none() && plan.blank.is_empty());
    }

    #[test]
    fn two_clusters_never_become_one() {
        let error = Plan::of(vec![node("a", "x"), node("b", "y")], &[]).expect_err("two");
        assert_eq!(error.exit(), Exit::Lost);
        assert!(error.message().contains("b:7400 in y"), "{error:?}");
    }

    #[test]
    fn a_node_that_lost_its_disk_is_not_taken_for_a_new_one() {
        let nodes = vec![node("a", ""), node("b", "x")];
        let error = Plan::of(nodes, &[member(1, "a"), member(2, "b")]).expect_err("wiped");
        assert!(error.message().contains("member remove 1"), "{error:?}");
    }

    #[test]
    fn a_blank_node_needs_a_name_of_its_own() {
        let error = Plan::of(vec![node("a", ""), node("a", "")], &[]).expect_err("twice");
        assert!(error.message().contains("two blank nodes"), "{error:?}");
        assert!(Plan::of(vec![node("", "")], &[]).is_err());
    }
}
