//! The chart, as far as it can be run without Kubernetes: real processes with exactly the arguments that it renders, on
//! a real etcd, and their traces in etcd's keys. `make helm` checks the objects themselves.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use muster_integration::eventually;
use muster_integration::metrics::metrics;
use muster_integration::processes::{Process, Setting, muster};
use muster_integration::world::{World, client, ready, succeeded};
use muster_proto::storage::{ExecutorRecord, OwnerRecord, SchedulerRecord};
use muster_state::testing::Etcd;
use muster_state::{Key, Keyspace, StateBackend as _, codec};
use pods::{NAMESPACE, Pod, RELEASE, behind, of_kind, render};
use serde_json::Value;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// A release that runs.
struct Release {
    world: World,
    etcd: Etcd,
    objects: Vec<Value>,
    pods: Vec<Pod>,
    processes: Vec<Process>,
}

impl Release {
    /// Renders the chart with what every release needs and `values`, and starts its pods, the executors first: they are
    /// to find the schedulers by themselves. `secret` takes etcd's URL from a secret of this name.
    async fn start(values: &str, secret: Option<&str>) -> Self {
        let world = World::new();
        let etcd = Etcd::start().await.unwrap();
        let (place, secrets) = match secret {
            None => (format!("endpoints: ['{}']", etcd.endpoint()), BTreeMap::new()),
            Some(name) => {
                (format!("urlSecret: {{name: {name}}}"), BTreeMap::from([(format!("{name}/url"), etcd.url())]))
            }
        };
        let common = format!("image: {{repository: muster}}\netcd: {{{place}}}\n");
        let objects = render(&format!("{common}{values}"), &world.path(""));
        let mut pods = pods::pods(&objects, &world.path("volumes"), &secrets);
        pods.sort_by_key(|pod| component(pod) == "scheduler");
        let mut processes = Vec::new();
        for pod in &pods {
            let log = world.path("logs").join(format!("{}.log", pod.name));
            let home = world.path("");
            let setting = Setting { environment: &pod.environment, ..Setting::default() };
            let process = Process::start_in(setting, &pod.arguments, &world.path(&pod.name), &home, &log).await;
            assert_eq!(process.address().to_string(), grpc_address(pod));
            assert!(pod.arguments.contains(&format!("--advertise={}", grpc_address(pod))), "{:?}", pod.arguments);
            processes.push(process);
        }
        Self { world, etcd, objects, pods, processes }
    }

    fn of(&self, of: &str) -> Vec<&Pod> {
        self.pods.iter().filter(|pod| component(pod) == of).collect()
    }

    /// What the cluster keeps in a keyspace, decoded.
    async fn records<T: codec::Record>(&self, cluster: &str, keyspace: Keyspace) -> Vec<T> {
        let entries = self.etcd.store(cluster).get_from_prefix(keyspace, "").await.unwrap().entries;
        let decoded = entries.iter().map(|entry| codec::decode(&Key::new(keyspace, entry.name.clone()), &entry.value));
        decoded.collect::<Result<_, _>>().unwrap()
    }

    /// Every probe of every pod is answered, as the kubelet asks it.
    async fn assert_healthy(&self) {
        for pod in &self.pods {
            assert_eq!(pod.probes.len(), 2, "{}: ready, and alive", pod.name);
            for port in &pod.probes {
                let target = format!("http://{}", SocketAddr::new(pod.address, *port));
                let channel = tonic::transport::Endpoint::from_shared(target).unwrap().connect().await.unwrap();
                let mut probe = HealthClient::new(channel);
                let answer = probe.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();
                assert_eq!(answer.into_inner().status(), ServingStatus::Serving, "{}", pod.name);
            }
        }
    }

    /// Every pod tells its metrics on the port that it opens for them.
    async fn assert_metrics(&self) {
        for pod in &self.pods {
            let text = metrics(SocketAddr::new(pod.address, pod.ports["metrics"])).await;
            let wanted = match component(pod) {
                "scheduler" => "muster_session_slack_seconds ",
                _ => "muster_executor_outbox_results 0",
            };
            assert!(text.contains(wanted), "{}: {text}", pod.name);
        }
    }

    /// The test that the chart brings along.
    fn assert_helm_test_passes(&self) {
        let tests: Vec<&Value> = of_kind(&self.objects, "Pod").collect();
        assert_eq!(tests.len(), 1);
        assert_eq!(tests[0]["metadata"]["annotations"]["helm.sh/hook"], "test");
        let pod = pods::single(tests[0], &self.objects, &self.pods, &self.world.path("volumes"));
        let answer = std::process::Command::new(muster()).args(&pod.arguments).env_clear().output().unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        let listed = String::from_utf8(answer.stdout).unwrap();
        assert!(self.of("scheduler").iter().all(|pod| listed.contains(&pod.name)), "{listed}");
    }

    /// Runs a job to its end through the service that clients use; asserts by the keys that this cluster ran it, under
    /// an owner whose name and address are a pod's.
    async fn runs_a_job(&self, cluster: &str) {
        let client = client(&behind(&self.objects, &self.pods, &format!("{RELEASE}-muster"), 7077)).await;
        ready(&client, self.of("executor").len()).await;
        let spec = self.world.job(
            r"
            name: held
            stages:
              held: {tasks: 3, run: 'eval $NOTE; gate=go; eval $WAIT; echo 1 > $MUSTER_OUTPUT_DIR/n'}
              sum:
                inputs: {held: all}
                run: cat $MUSTER_INPUT_DIR/held/*/n | wc -l > $MUSTER_OUTPUT_DIR/n
            ",
        );
        let job = client.submit(spec, None).await.unwrap().job;
        self.world.started("held", 3).await;
        let owners: Vec<OwnerRecord> = self.records(cluster, Keyspace::JobOwners).await;
        let [owner] = owners.as_slice() else { panic!("one job, one owner: {owners:?}") };
        let pod = self.of("scheduler").into_iter().find(|pod| pod.name == owner.scheduler_id);
        assert_eq!(owner.address, grpc_address(pod.expect("its owner is one of the pods")));
        self.world.open("go");
        succeeded(&client, job).await;
        assert_eq!(self.world.output(&client, job, "sum", "n").await, "3\n");
        let completed = self.etcd.store(cluster).get_from_prefix(Keyspace::CompletedJobs, "").await.unwrap().entries;
        assert_eq!(completed.iter().map(|entry| entry.name.clone()).collect::<Vec<_>>(), [job.to_string()]);
    }

    /// SIGTERM to every pod, as an uninstall does: each ends well.
    async fn ends_well(mut self, cluster: &str) {
        for process in &mut self.processes {
            assert!(process.terminate().await.success());
        }
        let left: Vec<SchedulerRecord> = self.records(cluster, Keyspace::Schedulers).await;
        assert!(left.is_empty(), "their sessions are closed: {left:?}");
    }
}

fn component(pod: &Pod) -> &str {
    &pod.labels["app.kubernetes.io/component"]
}

fn grpc_address(pod: &Pod) -> String {
    SocketAddr::new(pod.address, pod.ports["grpc"]).to_string()
}

/// All pods of a machine share its addresses here, so each listens on its own alone.
const OWN_ADDRESS: &str = "listenHost: $(POD_IP)";

#[tokio::test(flavor = "multi_thread")]
async fn the_default_values_make_a_cluster_that_runs_jobs() {
    let values = format!("schedulers: {{{OWN_ADDRESS}}}\nexecutors: {{{OWN_ADDRESS}}}\n");
    let release = Release::start(&values, None).await;
    let cluster = format!("{NAMESPACE}-{RELEASE}");
    assert_eq!((release.of("scheduler").len(), release.of("executor").len()), (3, 3));
    eventually("all schedulers have sessions", 30, || async {
        let records: Vec<SchedulerRecord> = release.records(&cluster, Keyspace::Schedulers).await;
        let found: BTreeSet<_> = records.into_iter().map(|record| (record.scheduler_id, record.address)).collect();
        let wanted = release.of("scheduler").into_iter().map(|pod| (pod.name.clone(), grpc_address(pod)));
        (found == wanted.collect()).then_some(())
    })
    .await;
    release.runs_a_job(&cluster).await;
    let executors: Vec<ExecutorRecord> = release.records(&cluster, Keyspace::Executors).await;
    assert_eq!(executors.len(), 3, "{executors:?}");
    for pod in release.of("executor") {
        let record = executors.iter().find(|record| record.address == grpc_address(pod)).unwrap();
        assert!(!record.pull, "{record:?}");
        let labels = [("pod", pod.name.clone()), ("node", format!("node-of-{}", pod.name))];
        assert_eq!(record.labels, labels.map(|(key, value)| (key.to_owned(), value)).into());
        let total = record.total.as_ref().unwrap();
        assert_eq!((total.cpu_milli, total.memory_bytes), (2000, 4096 << 20));
    }
    release.assert_healthy().await;
    release.assert_metrics().await;
    release.assert_helm_test_passes();
    release.ends_well(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_values_reach_the_processes() {
    let values = format!(
        "
cluster: batch
metrics: {{enabled: false}}
schedulers: {{replicas: 2, {OWN_ADDRESS}, sessionTtl: 3s, lostAfter: 1m30s, extraArgs: [--verbose]}}
executors:
  replicas: 1
  {OWN_ADDRESS}
  mode: pull
  offer: {{cpus: 3.5, memoryMiB: 512, resources: {{licence: 5}}, devices: {{gpu: ['a', 'b']}}}}
  labels: {{zone: a, kind of disk: fast}}
  persistence: {{enabled: false}}
"
    );
    let release = Release::start(&values, Some("etcd-url")).await;
    let secret = release.etcd.url();
    let told = release.pods.iter().any(|pod| pod.arguments.iter().any(|argument| argument.contains(&secret)));
    assert!(!told, "the secret is no argument, which everybody could read");
    release.runs_a_job("batch").await;
    let executors: Vec<ExecutorRecord> = release.records("batch", Keyspace::Executors).await;
    let [record] = executors.as_slice() else { panic!("one executor: {executors:?}") };
    assert!(record.pull, "{record:?}");
    assert_eq!((&*record.labels["zone"], &*record.labels["kind of disk"]), ("a", "fast"));
    let total = record.total.as_ref().unwrap();
    assert_eq!((total.cpu_milli, total.memory_bytes), (3500, 512 << 20));
    assert_eq!((total.named["licence"], total.named["gpu"]), (5, 2));
    release.assert_healthy().await;
    let told = |pod: &Pod| pod.ports.contains_key("metrics") || pod.arguments.iter().any(|a| a.contains("--metrics"));
    assert!(!release.pods.iter().any(told), "metrics are switched off");
    release.assert_helm_test_passes();
    release.ends_well("batch").await;
}
