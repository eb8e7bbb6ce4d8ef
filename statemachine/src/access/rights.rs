//! What one principal may do at one point of the log.

use super::needs::{self, Need};
use super::{Rule, Verb};
use crate::command::Command;
use crate::id::Principal;
use crate::query::Query;
use crate::refusal::{Broken, Refusal};
use crate::tables::{access_key, role_key, user_key};
use crate::transaction::Transaction;
use crate::view::View;

/// The rights of a principal, read once for an entry, a query or a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights<'p> {
    principal: Principal<'p>,
    /// None: everything, because access is not controlled or the cluster itself asks.
    rules: Option<Vec<Rule>>,
}

impl<'p> Rights<'p> {
    /// What the rows of a view allow.
    pub fn in_view(view: &dyn View, principal: Principal<'p>) -> Result<Self, Broken> {
        Self::of(&mut Transaction::new(view), principal)
    }

    pub(crate) fn of(tx: &mut Transaction<'_>, principal: Principal<'p>) -> Result<Self, Broken> {
        let controlled = tx.get(&access_key())?.is_some_and(|row| row.enabled);
        if controlled && principal != Principal::Cluster {
            return Self::granted(tx, principal);
        }
        Ok(Self {
            principal,
            rules: None,
        })
    }

    /// What its roles allow, whether access is controlled or not.
    pub(super) fn granted(
        tx: &mut Transaction<'_>,
        principal: Principal<'p>,
    ) -> Result<Self, Broken> {
        let mut rules = Vec::new();
        if let Principal::Named(name) = principal
            && let Some(user) = tx.get(&user_key(name))?
        {
            for role in user.roles {
                let found = tx.get(&role_key(role.as_str()))?;
                rules.extend(found.map(|role| role.rules).unwrap_or_default());
            }
        }
        Ok(Self {
            principal,
            rules: Some(rules),
        })
    }

    /// Whose rights these are.
    pub(super) fn principal(&self) -> Principal<'p> {
        self.principal
    }

    /// The name that was proved, if any was.
    pub(super) fn name(&self) -> Option<&str> {
        match self.principal {
            Principal::Named(name) => Some(name),
            Principal::Cluster | Principal::Anonymous => None,
        }
    }

    /// Whether one rule allows everything.
    pub(super) fn is_administrator(&self) -> bool {
        let everything = |rule: &Rule| *rule == Rule::everything();
        self.rules
            .as_ref()
            .is_none_or(|rules| rules.iter().any(everything))
    }

    /// `Denied` unless one rule covers the need.
    pub fn check(&self, need: Need<'_>) -> Result<(), Refusal> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        if rules.iter().any(|rule| rule.covers(need)) {
            return Ok(());
        }
        Err(Refusal::Denied {
            principal: self.principal.to_string(),
            verb: need.verb,
            noun: need.noun,
            key: need.key.to_owned(),
        })
    }

    /// `Denied` unless all that a command asks for is covered, preconditions included: their
    /// refusals tell of what they name.
    pub fn check_command(&self, command: &Command) -> Result<(), Refusal> {
        if self.rules.is_none() {
            return Ok(());
        }
        let preconditions = command.preconditions.iter().map(needs::of_precondition);
        let needs = preconditions.chain(needs::of_action(&command.action));
        needs.into_iter().try_for_each(|need| self.check(need))
    }

    /// `Denied` unless all that a query asks for is covered.
    pub fn check_query(&self, query: &Query) -> Result<(), Refusal> {
        if self.rules.is_none() {
            return Ok(());
        }
        let mut needs = needs::of_query(query).into_iter();
        debug_assert!(needs.as_slice().iter().all(|need| need.verb == Verb::Read));
        needs.try_for_each(|need| self.check(need))
    }
}
