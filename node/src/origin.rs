//! Who asked for a command, and in which trace: what an entry keeps beside the command.
//!
//! In an entry: `[length u8][principal][traced u8]`, and when traced is 1 `[trace id 16 bytes][span
//! id 8 bytes]`. A length of 0 is a caller that has not proved who it is. A command of the cluster
//! itself has no origin at all ([`crate::raft::Proposal`]), so that no caller can pass for it.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use quorate_rpc::{Trace, v1};
use quorate_statemachine::Principal;
use quorate_statemachine::access::EMBEDDED;
use quorate_statemachine::limits::PRINCIPAL_BYTES_MAX;

const TRACE_BYTES: usize = 24;

/// Who asks; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Caller {
    /// The cluster itself: ticks, node ids.
    Cluster,
    /// Somebody who has not proved who it is.
    Anonymous,
    /// A principal that this node knows by this name, of 1 to [`PRINCIPAL_BYTES_MAX`] bytes.
    Named(Arc<str>),
}

/// Where a command or a read comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Who asks.
    pub caller: Caller,
    /// The trace that it is a part of, if the caller told one.
    pub trace: Option<Trace>,
}

impl Caller {
    /// Whoever embeds the node of this name, in the node's own process.
    #[must_use]
    pub fn embedded(node: &str) -> Self {
        let room = PRINCIPAL_BYTES_MAX - EMBEDDED.len();
        let name = &node[..node.floor_char_boundary(room)];
        Self::Named(format!("{EMBEDDED}{name}").into())
    }

    /// Whoever proved this name with a certificate; none if it is no name for a principal.
    #[must_use]
    pub fn certified(name: &str) -> Option<Self> {
        let fits = (1..=PRINCIPAL_BYTES_MAX).contains(&name.len());
        (fits && !name.starts_with(EMBEDDED)).then(|| Self::Named(name.into()))
    }

    /// As the state machine sees it.
    #[must_use]
    pub fn principal(&self) -> Principal<'_> {
        match self {
            Self::Cluster => Principal::Cluster,
            Self::Anonymous => Principal::Anonymous,
            Self::Named(name) => Principal::Named(name),
        }
    }
}

impl From<Principal<'_>> for Caller {
    fn from(principal: Principal<'_>) -> Self {
        match principal {
            Principal::Cluster => Self::Cluster,
            Principal::Anonymous => Self::Anonymous,
            Principal::Named(name) => Self::Named(name.into()),
        }
    }
}

impl From<Caller> for Origin {
    fn from(caller: Caller) -> Self {
        Self {
            caller,
            trace: None,
        }
    }
}

impl Origin {
    /// The same caller in a trace, given as [`Trace::from_bytes`] reads it.
    #[must_use]
    pub fn traced(self, trace: &[u8]) -> Self {
        Self {
            trace: Trace::from_bytes(trace),
            ..self
        }
    }

    fn name(&self) -> &str {
        match &self.caller {
            Caller::Named(name) => name,
            Caller::Cluster | Caller::Anonymous => "",
        }
    }

    /// Bytes of [`Self::put`].
    pub(crate) fn encoded_len(&self) -> usize {
        2 + self.name().len() + self.trace.map_or(0, |_| TRACE_BYTES)
    }

    /// Writes the origin of an entry.
    pub(crate) fn put(&self, out: &mut BytesMut) {
        let length = u8::try_from(self.name().len());
        out.put_u8(length.expect("whoever names a caller keeps to the bound of names"));
        out.put_slice(self.name().as_bytes());
        out.put_u8(self.trace.is_some().into());
        if let Some(trace) = self.trace {
            out.put_slice(&trace.trace_id);
            out.put_slice(&trace.span_id);
        }
    }

    /// Reads the origin of an entry from the front of `input`; none if it is not whole.
    pub(crate) fn take<'a>(input: &mut &'a [u8]) -> Option<(Principal<'a>, Option<Trace>)> {
        let (length, rest) = input.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(*length))?;
        let principal = match std::str::from_utf8(name).ok()? {
            "" => Principal::Anonymous,
            name => Principal::Named(name),
        };
        let (traced, rest) = rest.split_first()?;
        let bytes = match traced {
            0 => 0,
            1 => TRACE_BYTES,
            _ => return None,
        };
        let (trace, rest) = rest.split_at_checked(bytes)?;
        *input = rest;
        Some((principal, Trace::from_bytes(trace)))
    }

    /// What a node passes on with a command.
    pub(crate) fn to_wire(&self) -> v1::Origin {
        use v1::origin::Principal as Wire;
        v1::Origin {
            principal: match &self.caller {
                Caller::Anonymous => None,
                Caller::Cluster => Some(Wire::Cluster(true)),
                Caller::Named(name) => Some(Wire::Name(name.to_string())),
            },
            trace: self.trace.map_or(Bytes::new(), |trace| trace.to_bytes()),
        }
    }

    /// What another node passed on.
    pub(crate) fn from_wire(wire: v1::Origin) -> Self {
        use v1::origin::Principal as Wire;
        let caller = match wire.principal {
            Some(Wire::Cluster(_)) => Caller::Cluster,
            Some(Wire::Name(name)) if (1..=PRINCIPAL_BYTES_MAX).contains(&name.len()) => {
                Caller::Named(name.into())
            }
            Some(Wire::Name(_)) | None => Caller::Anonymous,
        };
        Self::from(caller).traced(&wire.trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: Trace = Trace {
        trace_id: [7; 16],
        span_id: [9; 8],
    };

    fn origins() -> Vec<Origin> {
        let named = |trace| Origin {
            caller: Caller::Named("ci".into()),
            trace,
        };
        vec![Caller::Anonymous.into(), named(None), named(Some(TRACE))]
    }

    #[test]
    fn an_origin_survives_the_entry_and_the_wire() {
        for origin in origins() {
            let mut out = BytesMut::new();
            origin.put(&mut out);
            assert_eq!(out.len(), origin.encoded_len());
            out.put_slice(b"rest");
            let mut input = &out[..];
            let (principal, trace) = Origin::take(&mut input).expect("just encoded");
            assert_eq!(
                (principal, trace),
                (origin.caller.principal(), origin.trace)
            );
            assert_eq!(input, b"rest");
            assert_eq!(Origin::from_wire(origin.to_wire()), origin);
        }
        let cluster = Origin::from(Caller::Cluster);
        assert_eq!(Origin::from_wire(cluster.to_wire()), cluster);
    }

    #[test]
    fn bad_bytes_are_no_origin() {
        for origin in origins() {
            let mut out = BytesMut::new();
            origin.put(&mut out);
            for length in 0..out.len() {
                assert_eq!(Origin::take(&mut &out[..length]), None, "{length} bytes");
            }
        }
        assert_eq!(Origin::take(&mut &[1, 0xff, 0][..]), None, "no UTF-8");
        assert_eq!(
            Origin::take(&mut &[0, 2][..]),
            None,
            "neither traced nor not"
        );
    }
}
