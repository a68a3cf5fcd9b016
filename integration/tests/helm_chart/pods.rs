//! What Kubernetes makes of a rendered chart, as far as processes on one machine can tell: names and addresses of pods,
//! their arguments and environment, and what the names of services lead to. Each pod has a loopback address of its own,
//! so that all may use the same port, as pods do.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// The release's namespace and name in these tests.
pub(crate) const NAMESPACE: &str = "jobs";
pub(crate) const RELEASE: &str = "night";

/// One process that the chart asks for.
#[derive(Debug, Clone)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) labels: BTreeMap<String, String>,
    /// Without the program's name.
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    /// By name.
    pub(crate) ports: BTreeMap<String, u16>,
    /// Ports of its readiness and liveness probes.
    pub(crate) probes: Vec<u16>,
}

/// The objects of the chart, rendered with these values by the newest helm.
pub(crate) fn render(values: &str, folder: &Path) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace");
    let file = folder.join("values.yaml");
    std::fs::write(&file, values).expect("the test's folder can be written");
    let helm = helm();
    let answer = Command::new(&helm)
        .args(["template", RELEASE, "--namespace", NAMESPACE, "--values"])
        .arg(&file)
        .arg(root.join("helm/muster"))
        .output()
        .unwrap_or_else(|error| panic!("{} cannot be started: {error}; `make setup` fetches it", helm.display()));
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout).expect("YAML is text");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("helm renders YAML");
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// Where `scripts/helm-tools.sh` puts it, else the one in PATH.
fn helm() -> PathBuf {
    let usual = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/muster/tools"));
    let tools = std::env::var_os("MUSTER_TOOLS").map(PathBuf::from).or_else(usual);
    tools.map(|tools| tools.join("bin/helm4")).filter(|path| path.exists()).unwrap_or_else(|| "helm4".into())
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    let kind = kind.to_owned();
    objects.iter().filter(move |object| object["kind"] == kind.as_str())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn texts(value: &Value) -> BTreeMap<String, String> {
    let object = value.as_object().unwrap_or_else(|| panic!("{value} is no map"));
    object.iter().map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn port(value: &Value) -> u16 {
    value.as_u64().and_then(|port| port.try_into().ok()).unwrap_or_else(|| panic!("{value} is no port"))
}

/// A loopback address that nobody else here has: 127.128.0.0/9, by the process and a counter.
fn own_address() -> IpAddr {
    /// Addresses for each process: a power of two.
    const EACH: u32 = 16;
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let own = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(own < EACH, "more pods than addresses");
    let host = (std::process::id() * EACH + own) & 0x007f_ffff;
    Ipv4Addr::from_bits(0x7f80_0000 | host).into()
}

/// Every pod of the chart's Deployments and StatefulSets. Volumes lie in folders below `folder`; `secrets` holds
/// `name/key`.
pub(crate) fn pods(objects: &[Value], folder: &Path, secrets: &BTreeMap<String, String>) -> Vec<Pod> {
    let mut pods = Vec::new();
    for workload in objects.iter().filter(|object| matches!(text(&object["kind"]), "Deployment" | "StatefulSet")) {
        let spec = &workload["spec"];
        let name = text(&workload["metadata"]["name"]);
        for number in 0..spec["replicas"].as_u64().expect("a number of replicas") {
            let name = match text(&workload["kind"]) {
                "StatefulSet" => format!("{name}-{number}"),
                _ => format!("{name}-6d9f7c-{number:05}"),
            };
            let mut pod_spec = spec["template"]["spec"].clone();
            for claim in list(&spec["volumeClaimTemplates"]) {
                let volume = serde_json::json!({"name": claim["metadata"]["name"]});
                match pod_spec["volumes"].as_array_mut() {
                    Some(volumes) => volumes.push(volume),
                    None => pod_spec["volumes"] = Value::Array(vec![volume]),
                }
            }
            pods.push(pod(name, texts(&spec["template"]["metadata"]["labels"]), &pod_spec, folder, secrets));
        }
    }
    let all = pods.clone();
    for pod in &mut pods {
        for argument in &mut pod.arguments {
            *argument = with_services(argument, objects, &all);
        }
    }
    pods
}

/// The one pod of a kind-Pod object, for instance of a helm test.
pub(crate) fn single(object: &Value, objects: &[Value], pods: &[Pod], folder: &Path) -> Pod {
    let name = text(&object["metadata"]["name"]).to_owned();
    let mut pod = pod(name, texts(&object["metadata"]["labels"]), &object["spec"], folder, &BTreeMap::new());
    for argument in &mut pod.arguments {
        *argument = with_services(argument, objects, pods);
    }
    pod
}

fn pod(
    name: String,
    labels: BTreeMap<String, String>,
    spec: &Value,
    folder: &Path,
    secrets: &BTreeMap<String, String>,
) -> Pod {
    let [container] = list(&spec["containers"]) else { panic!("one container: {spec}") };
    assert_eq!(container["command"], serde_json::json!(["muster"]), "the program in the image's PATH");
    let address = own_address();
    let mut environment: Vec<(String, String)> = Vec::new();
    for variable in list(&container["env"]) {
        let source = &variable["valueFrom"];
        let value = if let Some(value) = variable["value"].as_str() {
            expanded(value, &environment)
        } else if let Some(path) = source["fieldRef"]["fieldPath"].as_str() {
            match path {
                "metadata.name" => name.clone(),
                "metadata.namespace" => NAMESPACE.to_owned(),
                "status.podIP" => address.to_string(),
                "spec.nodeName" => format!("node-of-{name}"),
                other => panic!("what is {other} of a pod?"),
            }
        } else {
            let secret = &source["secretKeyRef"];
            let key = format!("{}/{}", text(&secret["name"]), text(&secret["key"]));
            secrets.get(&key).unwrap_or_else(|| panic!("there is no secret {key}: {variable}")).clone()
        };
        environment.push((text(&variable["name"]).to_owned(), value));
    }
    let mounts: Vec<(String, PathBuf)> = list(&container["volumeMounts"])
        .iter()
        .map(|mount| {
            let volume = text(&mount["name"]);
            let known = list(&spec["volumes"]).iter().any(|known| known["name"] == volume);
            assert!(known, "{name} mounts a volume {volume} that it does not have");
            let place = folder.join(&name).join(volume);
            std::fs::create_dir_all(&place).expect("the test's folder can be written");
            (text(&mount["mountPath"]).to_owned(), place)
        })
        .collect();
    let arguments = list(&container["args"])
        .iter()
        .map(|argument| with_mounts(&expanded(text(argument), &environment), &mounts))
        .collect();
    let ports = list(&container["ports"])
        .iter()
        .map(|open| (text(&open["name"]).to_owned(), port(&open["containerPort"])))
        .collect();
    let probes = ["readinessProbe", "livenessProbe"]
        .into_iter()
        .filter(|probe| !container[probe].is_null())
        .map(|probe| port(&container[probe]["grpc"]["port"]))
        .collect();
    Pod { name, address, labels, arguments, environment, ports, probes }
}

/// `$(NAME)` as the kubelet replaces it; `$$` is one `$`, and what is not known stays as it is.
fn expanded(template: &str, environment: &[(String, String)]) -> String {
    let mut done = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        done.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            done.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let known = name.and_then(|(name, after)| Some((environment.iter().find(|(n, _)| n == name)?, after)));
        match known {
            Some(((_, value), after)) => {
                done.push_str(value);
                rest = after;
            }
            None => done.push('$'),
        }
    }
    done + rest
}

/// An argument with a path in a container, as a path on this machine. Only volumes can be written there.
fn with_mounts(argument: &str, mounts: &[(String, PathBuf)]) -> String {
    let Some((flag, path)) = argument.split_once("=/") else { return argument.to_owned() };
    let path = format!("/{path}");
    let (mount, place) = mounts
        .iter()
        .find(|(mount, _)| path.starts_with(&format!("{mount}/")))
        .unwrap_or_else(|| panic!("{argument} lies in no volume"));
    format!("{flag}={}{}", place.display(), &path[mount.len()..])
}

/// An argument with a service's name, as the addresses that the service leads to.
fn with_services(argument: &str, objects: &[Value], pods: &[Pod]) -> String {
    let Some((flag, target)) = argument.split_once('=') else { return argument.to_owned() };
    let Some((name, asked)) = target.split_once(&format!(".{NAMESPACE}.svc:")) else { return argument.to_owned() };
    let addresses: Vec<String> =
        behind(objects, pods, name, asked.parse().expect("a port")).iter().map(ToString::to_string).collect();
    format!("{flag}={}", addresses.join(","))
}

/// The addresses behind a service's port.
pub(crate) fn behind(objects: &[Value], pods: &[Pod], service: &str, asked: u16) -> Vec<SocketAddr> {
    let service = of_kind(objects, "Service")
        .find(|object| object["metadata"]["name"] == service)
        .unwrap_or_else(|| panic!("there is no service {service}"));
    let open = list(&service["spec"]["ports"])
        .iter()
        .find(|open| port(&open["port"]) == asked)
        .unwrap_or_else(|| panic!("{service} has no port {asked}"));
    let wanted = texts(&service["spec"]["selector"]);
    let selected = pods.iter().filter(|pod| wanted.iter().all(|(key, value)| pod.labels.get(key) == Some(value)));
    let found: Vec<SocketAddr> =
        selected.map(|pod| SocketAddr::new(pod.address, pod.ports[text(&open["targetPort"])])).collect();
    assert!(!found.is_empty(), "no pod is behind {service}");
    found
}

#[test]
fn variables_are_replaced_as_the_kubelet_does() {
    let environment = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
    assert_eq!(expanded("--x=$(A):$(B)", &environment), "--x=1:2");
    assert_eq!(expanded("$$(A) $(C) $A 5$", &environment), "$(A) $(C) $A 5$");
}
