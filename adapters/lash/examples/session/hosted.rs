//! Runs a model, a tool and a session on any store, without a network.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lash::direct::{LlmOutputPart, LlmResponse, LlmTerminalReason, LlmUsage};
use lash::durability::InlineEffectHost;
use lash::persistence::{
    AttachmentStore, LeaseOwnerIdentity, LeaseOwnerLiveness, ProcessExecutionEnvStore,
    RuntimePersistence, SessionStoreCreateRequest, SessionStoreFactory,
    load_persisted_session_state,
};
use lash::plugins::PluginError;
use lash::process::{ProcessExecutionEnvRef, ProcessWakeDelivery};
use lash::provider::{
    Provider, ProviderComponents, ProviderHandle, ProviderOptions, StaticModelPolicy,
};
use lash::runtime::{RuntimeInvocation, RuntimeScope};
use lash::tools::{StaticToolExecute, StaticToolProvider, ToolCall, ToolDefinition, ToolResult};
use lash::{EmbedError, LashCore, LashSession, ModelSpec, TurnInput, TurnOutput};
use lash_core::llm::transport::LlmTransportError;
use lash_core::llm::types::{LlmContentBlock, LlmRequest, LlmRole};
use lash_core::runtime::{RuntimeSubject, SessionScopeId, process_wake_batch_draft};
use lash_core::{
    AttachmentCreateMeta, AttachmentId, AttachmentRef, AttachmentStoreError,
    AttachmentStorePersistence, DurabilityTier, MessageRole, PartKind, RuntimeErrorCode,
    SessionReadView, StoredAttachment, TurnInputState,
};
use serde_json::json;
use tokio::sync::Notify;

use super::{Outcome, Report};

/// The name of the one tool that the script calls.
const TOOL: &str = "book";

/// How long an idle host waits before it looks again for work that is claimed by a host
/// which is gone. Only a store that lets such claims run out makes anybody wait for it.
const PAUSE: Duration = Duration::from_millis(250);

/// How long claims and leases of a lost host may last, with some time to spare.
const PATIENCE: Duration = Duration::from_secs(45);

/// What the model says and what the tool does: the same on every host, and counted, so
/// that a story told by three hosts has one total.
#[derive(Debug, Default)]
pub struct Script {
    hold: AtomicBool,
    held: Notify,
    tool_runs: AtomicUsize,
}

impl Script {
    /// Lets the next request to the model hang for ever.
    pub fn hold_next(&self) {
        self.hold.store(true, Ordering::SeqCst);
    }

    /// Returns once a request hangs, which is the middle of its turn.
    pub async fn held(&self) {
        self.held.notified().await;
    }

    /// How often the tool was executed, on whichever host.
    pub fn tool_runs(&self) -> usize {
        self.tool_runs.load(Ordering::SeqCst)
    }

    /// The answer depends on nothing but the request, so a host can only give the right
    /// one if the store gave it the whole history.
    fn reply(&self, request: &LlmRequest) -> LlmResponse {
        let talk = Talk::of(request);
        let text = match (&talk.result, talk.wants_tool()) {
            (Some(result), _) => format!("{}: {result}", talk.said),
            (None, true) => return call(talk.said),
            (None, false) => format!("{}: {}", talk.said, talk.last),
        };
        let part = LlmOutputPart::Text {
            text: text.clone(),
            response_meta: None,
        };
        response(text, part, LlmTerminalReason::Stop)
    }
}

/// The part of a request that the script reads.
#[derive(Debug, Default)]
struct Talk {
    /// How many messages of the user there are.
    said: usize,
    /// The last line of the last of them: a wake comes as a message of many lines, and
    /// ends with what the process had to say.
    last: String,
    /// The result of the tool, if it is the last thing that happened.
    result: Option<String>,
}

impl Talk {
    fn of(request: &LlmRequest) -> Self {
        let mut talk = Self::default();
        for message in &request.messages {
            for block in message.blocks.iter() {
                match block {
                    LlmContentBlock::Text { text, .. } if message.role == LlmRole::User => {
                        talk.said += 1;
                        talk.last = text.lines().last().unwrap_or_default().to_string();
                        talk.result = None;
                    }
                    LlmContentBlock::ToolResult { content, .. } => {
                        talk.result = Some(content.clone());
                    }
                    _ => {}
                }
            }
        }
        talk
    }

    fn wants_tool(&self) -> bool {
        self.last.starts_with(TOOL)
    }
}

fn call(number: usize) -> LlmResponse {
    let part = LlmOutputPart::ToolCall {
        call_id: format!("call-{number}"),
        tool_name: TOOL.to_string(),
        input_json: json!({ "seats": 1 }).to_string(),
        replay: None,
    };
    response(String::new(), part, LlmTerminalReason::ToolUse)
}

fn response(text: String, part: LlmOutputPart, reason: LlmTerminalReason) -> LlmResponse {
    LlmResponse {
        full_text: text,
        parts: vec![part],
        usage: LlmUsage {
            input_tokens: 3,
            output_tokens: 2,
            ..LlmUsage::default()
        },
        terminal_reason: reason,
        ..LlmResponse::default()
    }
}

/// The script in the place where a model would be.
#[derive(Clone, Debug)]
struct Model {
    script: Arc<Script>,
    options: ProviderOptions,
}

#[async_trait]
impl Provider for Model {
    fn kind(&self) -> &'static str {
        "script"
    }

    fn options(&self) -> ProviderOptions {
        self.options.clone()
    }

    fn set_options(&mut self, options: ProviderOptions) {
        self.options = options;
    }

    fn serialize_config(&self) -> serde_json::Value {
        json!({})
    }

    async fn complete(&mut self, request: LlmRequest) -> Result<LlmResponse, LlmTransportError> {
        if self.script.hold.swap(false, Ordering::SeqCst) {
            self.script.held.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(self.script.reply(&request))
    }

    fn clone_boxed(&self) -> Box<dyn Provider> {
        Box::new(self.clone())
    }
}

/// A tool whose only effect is that it counts.
struct Bookings(Arc<Script>);

#[async_trait]
impl StaticToolExecute for Bookings {
    async fn execute(&self, _call: ToolCall<'_>) -> ToolResult {
        let number = self.0.tool_runs.fetch_add(1, Ordering::SeqCst) + 1;
        ToolResult::ok(json!({ "booking": number }))
    }
}

/// Stands for the attachment store and for the store of process environments.
///
/// A durable session store is only accepted beside durable ones, and this one is: it
/// never loses anything, because it never takes anything. A session without attachments
/// and without background processes does not notice.
struct Refusing;

#[async_trait]
impl AttachmentStore for Refusing {
    fn persistence(&self) -> AttachmentStorePersistence {
        AttachmentStorePersistence::Durable
    }

    async fn put(
        &self,
        _bytes: Vec<u8>,
        _meta: AttachmentCreateMeta,
    ) -> Result<AttachmentRef, AttachmentStoreError> {
        Err(AttachmentStoreError::Backend(
            "this host takes no attachments".to_string(),
        ))
    }

    async fn get(&self, id: &AttachmentId) -> Result<StoredAttachment, AttachmentStoreError> {
        Err(AttachmentStoreError::NotFound(id.clone()))
    }
}

#[async_trait]
impl ProcessExecutionEnvStore for Refusing {
    fn durability_tier(&self) -> DurabilityTier {
        DurabilityTier::Durable
    }

    async fn put_process_execution_env(
        &self,
        _env: &ProcessExecutionEnvRef,
        _bytes: &[u8],
    ) -> Result<(), PluginError> {
        Err(PluginError::Session(
            "this host starts no processes".to_string(),
        ))
    }

    async fn get_process_execution_env(
        &self,
        _env: &ProcessExecutionEnvRef,
    ) -> Result<Option<Vec<u8>>, PluginError> {
        Ok(None)
    }
}

/// The runtime of one host.
///
/// The driver for queued work is off, because it would run the work at once where it is
/// enqueued; here the work has to wait for whichever host comes to do it.
pub fn core(factory: Arc<dyn SessionStoreFactory>, script: Arc<Script>) -> Outcome<LashCore> {
    let options = ProviderOptions::default();
    let model = Model {
        script: Arc::clone(&script),
        options,
    };
    let policy = Arc::new(StaticModelPolicy::new());
    let provider = ProviderHandle::new(ProviderComponents::new(Box::new(model), policy));
    let any = json!({ "type": "object", "additionalProperties": true });
    let tool = ToolDefinition::raw("tool:book", TOOL, "Books seats.", any.clone(), any);
    Ok(LashCore::standard_builder()
        .provider(provider)
        .model(ModelSpec::from_token_limits("script", None, 100_000, None)?)
        .store_factory(factory)
        .effect_host(Arc::new(InlineEffectHost::default()))
        .attachment_store(Arc::new(Refusing))
        .process_env_store(Arc::new(Refusing))
        .tools(Arc::new(StaticToolProvider::new(
            vec![tool],
            Bookings(script),
        )))
        .disable_queued_work_driver()
        .build()?)
}

/// The process that a host lives and dies with.
///
/// Leases and claims name their owner, and those of an owner that is provably dead change
/// hands at once: the proof is that the process in its name no longer runs on the machine
/// of the one who asks. Since all hosts of this program share one process, each of them
/// is given another one, which waits on a pipe that nobody writes to. It ends with the
/// host, whatever the host ends of.
struct Life(Child);

impl Life {
    fn begin() -> Outcome<Self> {
        let mut idle = Command::new("cat");
        idle.stdin(Stdio::piped()).stdout(Stdio::null());
        Ok(Self(idle.spawn()?))
    }

    /// The name of a host, which no other host has or ever had on this machine.
    fn owner(&self, host: &str) -> Outcome<LeaseOwnerIdentity> {
        let here = LeaseOwnerLiveness::current_local_process("this-machine");
        let Some(LeaseOwnerLiveness::LocalProcess {
            host_id, boot_id, ..
        }) = here
        else {
            return Err("processes cannot be identified on this system".into());
        };
        let pid = self.0.id();
        let process_start = started(pid)?;
        Ok(LeaseOwnerIdentity {
            owner_id: host.to_string(),
            incarnation_id: format!("{host}-{pid}-{process_start}"),
            liveness: LeaseOwnerLiveness::LocalProcess {
                host_id,
                boot_id,
                pid,
                process_start,
            },
        })
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // A process that nobody has waited for is listed as if it still ran.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// When a process was started: with its number, this names it among all processes that
/// ever ran since the machine booted.
fn started(pid: u32) -> Outcome<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").ok_or("unexpected process status")?;
    let start = fields
        .split_whitespace()
        .nth(19)
        .ok_or("unexpected process status")?;
    Ok(start.to_string())
}

/// A host: a runtime, and the process in whose name it holds leases. To drop a host is to
/// let it die, for nothing is closed and nothing handed back.
pub struct Host {
    core: LashCore,
    owner: LeaseOwnerIdentity,
    _life: Life,
}

impl Host {
    /// Starts a host on a store.
    pub fn start(
        name: &str,
        factory: &Arc<dyn SessionStoreFactory>,
        script: &Arc<Script>,
    ) -> Outcome<Self> {
        let life = Life::begin()?;
        let core = core(Arc::clone(factory), Arc::clone(script))?;
        Ok(Self {
            core,
            owner: life.owner(name)?,
            _life: life,
        })
    }

    /// Opens the session, or begins it if the store has never heard of it.
    pub async fn open(&self, session: &str) -> Outcome<LashSession> {
        let owner = self.owner.clone();
        Ok(self
            .core
            .session(session)
            .session_execution_owner(owner)
            .open()
            .await?)
    }
}

/// Says something and returns the answer.
pub async fn turn(session: &LashSession, text: &str) -> Outcome<String> {
    answer(session.turn(TurnInput::text(text)).run().await?)
}

fn answer(output: TurnOutput) -> Outcome<String> {
    match output.assistant_message() {
        Some(text) => Ok(text.to_string()),
        None => Err(format!("a turn ended with {:?}", output.result.outcome).into()),
    }
}

/// Whether the session refuses a turn because another host is in the middle of one.
pub async fn busy(session: &LashSession) -> Outcome<bool> {
    match session
        .turn(TurnInput::text("is anybody there?"))
        .run()
        .await
    {
        Err(EmbedError::Runtime(error)) if error.code == RuntimeErrorCode::SessionExecutionBusy => {
            Ok(true)
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(false),
    }
}

/// Does `turns` turns of queued work and returns their answers.
///
/// A drain that comes back with nothing does not say why: there may be no work, or it
/// may still be held in the name of a host that is gone. Hence the number, and patience
/// for a store that waits until such a claim has run out.
pub async fn drain(session: &LashSession, turns: usize) -> Outcome<Vec<String>> {
    let mut answers = Vec::new();
    let work = async {
        while answers.len() < turns {
            match session.queued_turn().run().await? {
                Some(output) => answers.push(answer(output)?),
                None => tokio::time::sleep(PAUSE).await,
            }
        }
        Outcome::Ok(())
    };
    let in_time = tokio::time::timeout(PATIENCE, work).await;
    in_time.map_err(|_| "work is missing from the queue, or is held for a lost host")??;
    match session.queued_turn().run().await? {
        None => Ok(answers),
        Some(_) => Err("there was more work in the queue than was put there".into()),
    }
}

/// The store of the session, as the runtime gets it.
async fn store(
    session: &LashSession,
    factory: &Arc<dyn SessionStoreFactory>,
) -> Outcome<Arc<dyn RuntimePersistence>> {
    let request = SessionStoreCreateRequest {
        session_id: session.session_id(),
        relation: Default::default(),
        policy: session.policy_snapshot(),
    };
    Ok(factory.create_store(&request).await?)
}

/// Leaves an input for the next turn of the session and returns what is known of it.
///
/// An input that was left under the same name before is not left again: what comes back
/// is how the first one fared.
pub async fn enqueue(session: &LashSession, input: (&str, &str)) -> Outcome<TurnInputState> {
    let (name, text) = input;
    Ok(session.enqueue(TurnInput::text(text)).id(name).await?.state)
}

/// Leaves the other two kinds of work for the session: a command, and the wake of a
/// background process. The latter goes straight to the store, since it is a process
/// registry which writes those, and not a host.
pub async fn queue_work(
    session: &LashSession,
    factory: &Arc<dyn SessionStoreFactory>,
) -> Outcome<()> {
    session
        .commands()
        .refresh_tool_catalog("tools may have changed", "idle")
        .await?;
    let store = store(session, factory).await?;
    store
        .enqueue_queued_work(process_wake_batch_draft(wake(session.session_id())))
        .await?;
    Ok(())
}

fn wake(session_id: String) -> ProcessWakeDelivery {
    let process_id = "process-1".to_string();
    let event_type = "process.wake".to_string();
    let subject = RuntimeSubject::ProcessEvent {
        process_id: process_id.clone(),
        sequence: 1,
        event_type: event_type.clone(),
    };
    let scope = RuntimeScope::new(session_id.as_str());
    ProcessWakeDelivery {
        wake_id: format!("wake:{session_id}:1"),
        target_scope_id: SessionScopeId::new(format!("session:{session_id}")),
        target_session_id: session_id,
        sequence: 1,
        event_invocation: RuntimeInvocation {
            scope,
            subject,
            caused_by: None,
            replay: None,
        },
        process_caused_by: None,
        dedupe_key: format!("{process_id}:1"),
        process_id,
        event_type,
        input: "the process is done".to_string(),
        created_at_ms: 0,
    }
}

/// Reads what the story left behind.
///
/// The list of pending inputs would not do to find what is left, for it hides those that
/// somebody holds a claim on; so each input is sent again, and has to be settled.
pub async fn report(
    session: &LashSession,
    factory: &Arc<dyn SessionStoreFactory>,
    script: &Script,
    inputs: &[(&str, &str)],
) -> Outcome<Report> {
    let store = store(session, factory).await?;
    let mut left = store.list_queued_work(&session.session_id()).await?.len();
    for input in inputs {
        left += usize::from(enqueue(session, *input).await? != TurnInputState::Completed);
    }
    let state = load_persisted_session_state(store.as_ref()).await?;
    let state = state.ok_or("the store has no such session")?;
    let view = SessionReadView::from_persisted_state(&state);
    let answers = texts(&view, MessageRole::Assistant);
    Ok(Report {
        turns: answers.len(),
        begun: state.turn_index,
        head_revision: state.head_revision.unwrap_or_default(),
        heard: texts(&view, MessageRole::User),
        answers,
        tool_runs: script.tool_runs(),
        left,
    })
}

/// The messages of one side of the conversation, without the calls of tools.
fn texts(view: &SessionReadView, role: MessageRole) -> Vec<String> {
    let said = |kind: &PartKind| matches!(kind, PartKind::Text | PartKind::Prose);
    let messages = view
        .messages()
        .iter()
        .filter(|message| message.role == role);
    let parts = messages.flat_map(|message| message.parts.iter());
    let spoken = parts.filter(|part| said(&part.kind) && !part.content.is_empty());
    spoken.map(|part| part.content.clone()).collect()
}
