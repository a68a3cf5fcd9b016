//! Schedulers that do not reach every executor themselves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::simulated::Simulated;
use muster_integration::{cluster, eventually};
use muster_proto::network::{Connection, Listener, Network, Pending, Transport};
use muster_proto::v1;
use muster_scheduler::{Handle, Options, Scheduler};
use muster_state::{Memory, StateBackend};
use tokio::net::TcpStream;

/// TCP, on which some addresses cannot be connected to.
#[derive(Debug, Default)]
struct Cut {
    off: Mutex<BTreeSet<String>>,
    /// What was connected to, and what was tried in vain.
    connected: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
}

impl Transport for Cut {
    fn listen(&self, at: SocketAddr) -> Pending<Listener> {
        Box::pin(async move { Network::Tcp.listen(at).await })
    }

    fn connect(&self, to: String) -> Pending<Connection> {
        if self.off.lock().unwrap().contains(&to) {
            self.refused.lock().unwrap().push(to);
            return Box::pin(async { Err(io::Error::from(io::ErrorKind::HostUnreachable)) });
        }
        self.connected.lock().unwrap().push(to.clone());
        Box::pin(async move { TcpStream::connect(to).await.map(Connection::Tcp) })
    }
}

async fn scheduler(name: &str, state: &Arc<Memory>, cut: &Arc<Cut>) -> Handle {
    let options = Options {
        scheduler_id: name.to_owned(),
        heartbeat: Duration::from_millis(300),
        scan_every: Duration::from_millis(200),
        network: Network::Other(Arc::clone(cut) as Arc<dyn Transport>),
        ..Options::new(Arc::clone(state) as Arc<dyn StateBackend>)
    };
    Scheduler::start(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_on_executors_of_which_each_scheduler_reaches_only_one() {
    cluster::logs();
    let state = Arc::new(Memory::new());
    let [at_one, at_two, at_three] = [(); 3].map(|()| Arc::new(Cut::default()));
    let one = scheduler("one", &state, &at_one).await;
    let two = scheduler("two", &state, &at_two).await;
    let three = scheduler("three", &state, &at_three).await;
    let for_ever = || Arc::new(|_: &v1::AttemptRef| None);
    let first = Simulated::bind("first", 1, for_ever()).await.unwrap();
    let second = Simulated::bind("second", 1, for_ever()).await.unwrap();
    // What is at home with one the other does not reach, from the beginning.
    at_two.off.lock().unwrap().insert(first.address.clone());
    at_one.off.lock().unwrap().insert(second.address.clone());
    first.register(one.address()).await.unwrap();
    second.register(two.address()).await.unwrap();
    // A cancel may be said twice, when an attempt's owner has just changed.
    let told_to_end = |cancels: &[v1::AttemptRef]| {
        cancels.iter().map(|attempt| (&attempt.job_id, attempt.index, attempt.attempt)).collect::<BTreeSet<_>>().len()
    };
    let seen =
        |executor: &Simulated| executor.seen(|seen| (seen.launches.values().sum::<u32>(), told_to_end(&seen.cancels)));
    let both_have_seen = async |what: (u32, usize)| {
        eventually(&format!("{what:?} launches and cancels"), 60, async || {
            (seen(&first) == what && seen(&second) == what).then_some(())
        })
        .await;
    };
    let cancel = async |scheduler: &Handle, id: &str| {
        let mut jobs = client(scheduler.address()).await.unwrap();
        jobs.cancel_job(v1::CancelJobRequest { job_id: id.to_owned(), reason: String::new() }).await.unwrap();
        let view = finished(&mut jobs, id, 60).await.unwrap();
        assert_eq!(view.state(), v1::JobState::Cancelled);
    };

    // Launches and cancels.
    let mut jobs = client(one.address()).await.unwrap();
    let id = submit(&mut jobs, job("both", &[("a", 2, &[])]), "").await.unwrap();
    both_have_seen((1, 0)).await;
    assert!(at_one.refused.lock().unwrap().contains(&second.address), "the straight way was closed");
    cancel(&one, &id).await;
    both_have_seen((1, 1)).await;

    // Questions: of the next owners, whichever it is, one reaches one executor.
    let id = submit(&mut client(three.address()).await.unwrap(), job("moves", &[("a", 2, &[])]), "").await.unwrap();
    both_have_seen((2, 1)).await;
    three.stop().await;
    let view = jobs.get_job(v1::GetJobRequest { job_id: id.clone() }).await.unwrap().into_inner();
    assert_ne!(view.owner, three.address().to_string());
    let asked = |executor: &Simulated| executor.seen(|seen| seen.asked.contains(&id));
    eventually("both are asked", 60, async || (asked(&first) && asked(&second)).then_some(())).await;
    cancel(&two, &id).await;
    both_have_seen((2, 2)).await;

    // The straight way is taken when it is open again.
    for (cut, executor) in [(&at_one, &second), (&at_two, &first)] {
        cut.off.lock().unwrap().clear();
        eventually("a scheduler connects to the executor itself", 60, async || {
            cut.connected.lock().unwrap().contains(&executor.address).then_some(())
        })
        .await;
    }
    let id = submit(&mut jobs, job("straight", &[("a", 2, &[])]), "").await.unwrap();
    both_have_seen((3, 2)).await;
    cancel(&one, &id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_passes_nothing_on_to_an_executor_that_is_not_at_home_with_it() {
    use muster_proto::v1::executor_client::ExecutorClient;
    let state = Arc::new(Memory::new());
    let cut = Arc::new(Cut::default());
    let one = scheduler("one", &state, &cut).await;
    let mut relay = ExecutorClient::connect(format!("http://{}", one.address())).await.unwrap();
    let unnamed = relay.ask_jobs(v1::AskJobsRequest::default()).await.unwrap_err();
    assert_eq!(unnamed.code(), tonic::Code::InvalidArgument);
    let mut unknown = tonic::Request::new(v1::AskJobsRequest::default());
    let name = tonic::metadata::MetadataValue::from_bytes(b"elsewhere");
    unknown.metadata_mut().insert_bin("muster-executor-bin", name);
    let unknown = relay.ask_jobs(unknown).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unavailable, "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_home_passes_polls_on_to_peers_and_to_nobody_else() {
    use muster_proto::v1::executors_client::ExecutorsClient;
    let state = Arc::new(Memory::new());
    let cut = Arc::new(Cut::default());
    let one = scheduler("one", &state, &cut).await;
    let two = scheduler("two", &state, &cut).await;
    let mut home = ExecutorsClient::connect(format!("http://{}", one.address())).await.unwrap();
    let total = v1::Resources { cpu_milli: 1000, ..Default::default() };
    let registration = v1::RegisterRequest {
        executor_id: "pulls".to_owned(),
        incarnation: 1,
        address: "127.0.0.1:1".to_owned(),
        mode: v1::Mode::Pull.into(),
        total: Some(total.clone()),
        ..Default::default()
    };
    home.register(registration).await.unwrap();
    let id = submit(&mut client(two.address()).await.unwrap(), job("elsewhere", &[("a", 1, &[])]), "").await.unwrap();
    let mut poll = v1::PollWorkRequest {
        executor_id: "pulls".to_owned(),
        incarnation: 1,
        free: Some(total),
        wait_ms: 500,
        pass_on_to: two.address().to_string(),
        ..Default::default()
    };
    let given = eventually("the peer's task is given", 30, || {
        poll.sequence += 1;
        let (mut home, poll) = (home.clone(), poll.clone());
        async move {
            let answer = home.poll_work(poll).await.ok()?.into_inner();
            answer.launches.first().map(|group| group.job_id.clone())
        }
    })
    .await;
    assert_eq!(given, id);
    // Neither a stranger nor twice: whoever it is passed to has nobody to pass it on to.
    for nobody in ["127.0.0.1:2", "somewhere"] {
        let stranger = v1::PollWorkRequest { pass_on_to: nobody.to_owned(), ..poll.clone() };
        let refused = home.poll_work(stranger).await.unwrap_err();
        assert!(refused.code() == tonic::Code::Unavailable && refused.message().contains("pass_on_to"), "{refused}");
    }
}
