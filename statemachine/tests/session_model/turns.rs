//! Turns: what to do next, said relative to what there is, so that most of it has an effect.

/// Time passes, then something is done.
#[derive(Debug, Clone)]
pub struct Turn {
    pub passes: Passes,
    pub request: Request,
    pub act: Act,
}

/// What the leader's clock does.
#[derive(Debug, Clone, Copy)]
pub enum Passes {
    On(u64),
    Back(u64),
    /// To just before, or to, the instant at which something is over or begins next.
    ToNext {
        before: bool,
    },
}

/// Under which name.
#[derive(Debug, Clone, Copy)]
pub enum Request {
    None,
    Fresh,
    /// Minted when the log was empty.
    Old,
}

#[derive(Debug, Clone)]
pub enum Act {
    Tick,
    One(Step),
    Composite(Vec<Step>),
    /// One of the last commands, once more, as its sender repeats it.
    Again(usize),
    /// Leases that end at once and keep the sweep busy.
    Crowd {
        count: usize,
        ttl_ms: u64,
    },
}

/// Something that is done to a session.
#[derive(Debug, Clone)]
pub struct Step {
    pub session: u8,
    /// Under the id of another session of the name.
    pub stale: bool,
    pub lane: u8,
    /// What stands in the way is done first.
    pub willing: bool,
    pub what: What,
}

#[derive(Debug, Clone)]
pub enum What {
    Open(Option<u8>),
    Delete,
    PutNote(u8),
    PutBlobs {
        blobs: Vec<u8>,
        other_bytes: bool,
    },
    /// Many blobs or nodes at once, which the sweep removes bit by bit.
    PutMany(u8),
    StageMany(u16),
    Stage {
        graph: Staged,
        nodes: Vec<NewNode>,
    },
    Commit(Box<Commit>),
    Tombstone(Vec<u8>),
    Vacuum,
    Collect,
    PushWork {
        source: Option<u8>,
        command: bool,
        anytime: bool,
        group: Option<u8>,
        delay_ms: u64,
        body: Content,
    },
    ClaimWork(Claim, Choice),
    RenewWork(Pick, u64),
    AbandonWork(Pick),
    CancelWork(usize),
    PushInput {
        id: u8,
        source: Option<u8>,
        mode: Mode,
        body: Content,
    },
    ClaimInputs(Claim, Mode, u32),
    AbandonInputs(Pick),
    CancelInputs(Vec<Target>),
    CancelInputsFrom(Target),
    NoteAttachment {
        id: u8,
        intent_at: u64,
    },
    CommitAttachments(Vec<u8>),
    ForgetAttachment(u8),
    ClaimLease {
        owner: u8,
        ttl_ms: u64,
        fresh: bool,
    },
    RenewLease(u64),
    ReleaseLease,
    RevokeLease,
}

#[derive(Debug, Clone)]
pub struct Commit {
    /// The head's own lane, if it has one, instead of the step's.
    pub own_lane: bool,
    pub turn: Stamped,
    pub execution: Execution,
    pub expected: Expected,
    pub graph: Delta,
    pub leaf: Option<u8>,
    pub state: Content,
    pub roots: Vec<u8>,
    pub usage: Vec<(u8, Vec<i64>)>,
    pub work: Vec<Settles>,
    pub inputs: Vec<Settles>,
    pub interrupted: Option<u8>,
    pub attachments: Vec<u8>,
    pub result: u8,
    pub release: Option<Execution>,
}

/// The turn that a commit is.
#[derive(Debug, Clone, Copy)]
pub enum Stamped {
    None,
    Fresh,
    /// One of those that were committed.
    Again(usize),
    /// The same, with another hash.
    OtherHash(usize),
}

/// Under which grant.
#[derive(Debug, Clone, Copy)]
pub enum Execution {
    /// The live one of the lane, or the last one.
    Live,
    /// One that the lane had.
    Former(usize),
    OtherOwner,
    OtherToken,
    OtherLane,
    None,
}

#[derive(Debug, Clone, Copy)]
pub enum Expected {
    Any,
    Right,
    Wrong(u64),
}

#[derive(Debug, Clone)]
pub enum Delta {
    Append(Vec<NewNode>),
    Extend { stale: u8, nodes: Vec<NewNode> },
    Replace { by: Staged, nodes: Vec<NewNode> },
}

/// Which staged graph.
#[derive(Debug, Clone, Copy)]
pub enum Staged {
    New,
    One(usize),
    /// The head's, or one that was left.
    Wrong(usize),
}

/// What is settled of a claim.
#[derive(Debug, Clone, Copy)]
pub struct Settles {
    pub of: Pick,
    pub part: Part,
}

#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// What it has still.
    Held,
    First,
    All,
    Twice,
}

/// A claim that was made: one that has something still, if there is one.
#[derive(Debug, Clone, Copy)]
pub struct Pick {
    pub held: bool,
    pub nth: usize,
    pub wrong: Wrong,
}

/// What is wrong with the name of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    Nothing,
    FencingToken,
    LeaseToken,
}

#[derive(Debug, Clone)]
pub struct Claim {
    pub execution: Execution,
    pub owner: u8,
    pub ttl_ms: u64,
    /// The owners of all earlier claims are known to be dead.
    pub dead: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Choice {
    Command,
    Turn {
        running: bool,
        max: u32,
    },
    /// What a turn would take, or something else.
    Exactly {
        running: bool,
        max: u32,
        wrong: bool,
    },
}

#[derive(Debug, Clone, Copy)]
pub enum Mode {
    Running { turn: u8, rank: u8 },
    Next,
}

#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// One of those that are there.
    Known(usize),
    Id(u8),
    Source(u8),
}

#[derive(Debug, Clone)]
pub enum Content {
    Inline(u8),
    Blobs { blobs: Vec<u8>, wrong_length: bool },
}

#[derive(Debug, Clone)]
pub struct NewNode {
    pub id: u8,
    pub parent: Option<u8>,
    pub body: Content,
}

pub const SESSIONS: u8 = 2;
pub const LANES: u8 = 2;
pub const NODES: u8 = 6;
pub const SOURCES: u8 = 4;
pub const BLOBS: u8 = 5;
pub const INPUTS: u8 = 16;
pub const TURNS: u8 = 2;
pub const ATTACHMENTS: u8 = 5;
