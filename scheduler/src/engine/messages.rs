//! What comes into the engine, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::groups::JobEnd;
use muster_graph::ids::{Attempt, ExecutorKey, JobId, TaskId};
use muster_proto::v1;
use muster_state::Revision;
use tokio::sync::oneshot;

use crate::fairness::{Rules, Use};
use crate::groups::cancels::GroupCancels;
use crate::ways::Way;

use super::{CommitName, CommitResult, Departing, Engine, Loaded, Loss, Registration, StatusAnswer, Successor};

/// Something that reached the scheduler.
pub enum Input {
    /// The job is this scheduler's, and this is all of it.
    Adopted(Box<Loaded>),
    /// The job is not this scheduler's any more, or could not be read.
    Dropped {
        /// Which.
        job: JobId,
        /// Why, for those who wait for it.
        why: String,
    },
    /// These jobs name somebody else as their owner.
    NotOurs {
        /// Which.
        jobs: Vec<JobId>,
        /// The store's revision at which they did.
        as_of: Revision,
    },
    /// Something happened to these jobs: who waits for one of them wants to look.
    JobsChanged(Vec<JobId>),
    /// How jobs ended that jobs here may wait for; `None`: there is no such job.
    JobsEnded(Vec<(JobId, Option<JobEnd>)>),
    /// An executor reports.
    Statuses {
        /// Who.
        executor: ExecutorKey,
        /// What.
        statuses: Vec<v1::AttemptStatus>,
        /// Answered when everything that concerns jobs owned here is committed.
        reply: oneshot::Sender<StatusAnswer>,
    },
    /// An executor is there, with a session at this scheduler or at a peer.
    Registered(Registration),
    /// Its session at this scheduler is alive.
    Heartbeat {
        /// Who.
        executor: ExecutorKey,
        /// What it has left, by its own account.
        free: muster_graph::spec::Resources,
        /// How many attempts it has that have not ended, whosever they are.
        running: u32,
        /// It takes no new work.
        draining: bool,
    },
    /// It says what it has for this scheduler.
    Account {
        /// Who.
        executor: ExecutorKey,
        /// What.
        account: v1::Account,
    },
    /// It has no session at this scheduler any more.
    SessionEnded {
        /// Who.
        executor: ExecutorKey,
    },
    /// The way on which launches go to it was opened, or broke.
    Reached {
        /// Who.
        executor: ExecutorKey,
        /// Which is open now.
        way: Way,
    },
    /// It was declared lost, or stopped on purpose, and the store says so.
    Lost(Loss),
    /// These schedulers are live, as the store says.
    Schedulers {
        /// Their sessions.
        live: std::collections::BTreeSet<String>,
        /// The store's revision at which they were so.
        revision: Revision,
    },
    /// It said what it has of some jobs, and stored our fence before.
    Answered {
        /// Who.
        executor: ExecutorKey,
        /// The question, as [`Output::Ask`] numbered it: an answer counts for what that one asked, and for nothing that
        /// came into doubt since.
        question: u64,
        /// What it has of them.
        held: Vec<(JobId, TaskId, Attempt)>,
        /// Jobs of which it has heard of a newer owner.
        refused: Vec<JobId>,
    },
    /// It answered a launch message.
    LaunchAnswered {
        /// Who.
        executor: ExecutorKey,
        /// How many attempts the message held.
        count: u32,
        /// Which of them it does not take, each with the token that it was launched under.
        refused: Vec<(Revision, v1::Refusal)>,
    },
    /// A pull executor asks for work.
    Poll {
        /// The poll, its statuses already taken out.
        poll: Box<v1::PollWorkRequest>,
        /// Answered when there is work, or by [`Input::PollExpired`].
        reply: oneshot::Sender<v1::PollWorkResponse>,
    },
    /// What the jobs of peers have and want: by session, and by namespace.
    Usage(BTreeMap<String, BTreeMap<String, Use>>),
    /// What is set for namespaces: for all that have rules.
    Rules(BTreeMap<String, Rules>),
    /// The poll has waited long enough.
    PollExpired {
        /// Whose.
        executor: String,
        /// Which.
        sequence: u64,
    },
    /// A cancel of the job was left in the store, and acknowledged by whoever left it there.
    CancelMarked {
        /// Which.
        job: JobId,
        /// In the user's words.
        reason: String,
        /// The revision of the mark.
        mark: Revision,
    },
    /// Groups of a namespace were cancelled, and their cancels acknowledged; or it was looked whether any were.
    GroupsCancelled {
        /// Whose.
        namespace: Arc<str>,
        /// All that are.
        known: Arc<GroupCancels>,
    },
    /// Give these jobs to a peer as soon as nothing of them is left to be committed.
    HandOver {
        /// Which.
        jobs: Vec<JobId>,
        /// To whom.
        to: Successor,
    },
    /// A user wants the job to end.
    Cancel {
        /// Which.
        job: JobId,
        /// In the user's words.
        reason: String,
        /// Answered when committed; `None` if the job is not owned here.
        reply: oneshot::Sender<Option<v1::JobState>>,
    },
    /// Look at the engine.
    Read(Box<dyn FnOnce(&mut Engine) + Send>),
    /// Transactions came back.
    Commits(Vec<(CommitName, CommitResult)>),
    /// The session is lost: nothing here is ours any more.
    SessionLost,
    /// The store is older than what was seen of it: what is in memory may not be true of it.
    StoreDoubted,
    /// Time went on.
    Tick,
}

/// Something for the shell to do.
#[derive(Debug)]
pub enum Output {
    /// Send these attempts to a push executor.
    Launch {
        /// Whom.
        executor: ExecutorKey,
        /// What.
        groups: Vec<v1::LaunchGroup>,
    },
    /// Tell an executor to end attempts.
    CancelAttempts {
        /// Whom.
        executor: ExecutorKey,
        /// Which.
        request: v1::CancelTasksRequest,
    },
    /// Tell a push executor for what it is asked to keep room.
    Reserve {
        /// Whom.
        executor: ExecutorKey,
        /// For what; nothing any more.
        reservation: v1::Reservation,
    },
    /// Ask an executor what it has of jobs that were taken over.
    Ask {
        /// Whom.
        executor: ExecutorKey,
        /// Its address.
        address: String,
        /// The number of the question.
        question: u64,
        /// The jobs with our fence.
        jobs: Vec<v1::JobFence>,
    },
    /// Say whether these jobs have ended, which others wait for: now, and when they do.
    LookAtEnds {
        /// Which.
        jobs: Vec<JobId>,
    },
    /// Read the job again from the store, if it is still ours.
    Reload {
        /// Which.
        job: JobId,
        /// Not before so many milliseconds have passed: what was refused for good would be refused at once again.
        after_ms: u64,
    },
    /// An executor at home here has no session any more: its record is to say so, for the peers.
    TellAway {
        /// Who.
        executor: ExecutorKey,
    },
    /// These jobs have left the engine: name the peer as their owner, and tell it; or read them again.
    HandOver {
        /// To whom.
        to: Arc<Successor>,
        /// Which.
        jobs: Vec<Departing>,
    },
    /// An executor has had no session for too long: declare it lost by compare-and-set.
    DeclareLost {
        /// Who.
        executor: ExecutorKey,
    },
    /// Nothing is sent to it any more, and what was on its way is void.
    Disconnect {
        /// Whom.
        executor: ExecutorKey,
    },
    /// Connect to an executor, or to its new incarnation.
    Connect {
        /// Whom.
        executor: ExecutorKey,
        /// Where.
        address: String,
    },
}
