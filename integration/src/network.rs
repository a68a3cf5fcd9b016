//! A network of a test's own: a hub, and nodes that each live in a network namespace behind one link. Links can be
//! taken down, and packets from one node to another dropped, in one direction or in both; what was dropped is counted.
//!
//! The namespaces have no names: the kernel takes each away with its last process and its last handle. So nothing is
//! left on the machine whatever ends a test, and no two tests can meet. The machine's own network is never touched.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The network's addresses: `10.77.0.<node>`.
const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
/// Drops what goes from one address to another if the pair is in the set, and counts it.
const RULES: &str = "
table bridge faults {
  set cuts { type ipv4_addr . ipv4_addr; counter; }
  chain forward { type filter hook forward priority 0; policy accept; ip saddr . ip daddr @cuts drop; }
}
";

/// A network namespace. It is there as long as this is held, or a process lives in it.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one, without any link.
    ///
    /// # Errors
    /// When this process may not make one.
    pub fn new() -> io::Result<Self> {
        // A thread of its own goes into it, opens it and ends.
        std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                #[expect(deprecated, reason = "its danger is with FILES alone; the network is nobody's memory")]
                rustix::thread::unshare(UnshareFlags::NEWNET)?;
                Ok(Self { handle: File::open("/proc/thread-self/ns/net")? })
            });
            made.join().expect("the thread only makes system calls")
        })
    }

    /// Moves this thread into it, and with it the threads and processes that it starts from now on.
    ///
    /// # Errors
    /// When this process may not.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Starts a process in it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        std::thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                self.enter()?;
                command.spawn()
            });
            spawned.join().expect("the thread only makes system calls")
        })
    }

    /// For `ip`.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }
}

/// A machine on the network.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its only address.
    pub address: Ipv4Addr,
    /// Where its processes live.
    pub namespace: Arc<Namespace>,
    /// The hub's end of its link.
    link: String,
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    hub: Namespace,
    nodes: u8,
}

/// Why this machine cannot have such a network, if it cannot.
#[must_use]
pub fn missing() -> Option<String> {
    if let Err(error) = Namespace::new() {
        return Some(format!("no network namespaces ({error}); they need root"));
    }
    let tools = [("ip", "iproute2"), ("nft", "nftables")];
    let absent = tools.iter().find(|(tool, _)| Command::new(tool).arg("-V").output().is_err());
    absent.map(|(tool, package)| format!("no `{tool}` (Debian's package is {package})"))
}

impl Network {
    /// A network without nodes. This thread, and the threads and processes that it starts from now on, are at its hub.
    ///
    /// # Errors
    /// When this machine cannot have one; see [`missing`].
    pub fn enter() -> io::Result<Self> {
        let hub = Namespace::new()?;
        let network = Self { hub, nodes: 0 };
        let ways = format!("link set lo up\nlink add hub type bridge\naddr add {HUB}/24 dev hub\nlink set hub up\n");
        feed(&network.hub, "ip", &["-batch", "-"], &ways)?;
        feed(&network.hub, "nft", &["-f", "-"], RULES)?;
        network.hub.enter()?;
        Ok(network)
    }

    /// One more node, connected.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn node(&mut self) -> io::Result<Node> {
        self.nodes += 1;
        let node = Node {
            address: Ipv4Addr::new(10, 77, 0, self.nodes),
            namespace: Arc::new(Namespace::new()?),
            link: format!("n{}", self.nodes),
        };
        let at_hub = format!(
            "link add {0} type veth peer name eth0 netns {1}\nlink set {0} master hub up\n",
            node.link,
            node.namespace.path()
        );
        feed(&self.hub, "ip", &["-batch", "-"], &at_hub)?;
        let at_node = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", node.address);
        feed(&node.namespace, "ip", &["-batch", "-"], &at_node)?;
        Ok(node)
    }

    /// Drops every packet from one node to another from now on, silently, as a broken network does.
    ///
    /// # Errors
    /// When the system refuses, or the way is cut already.
    pub fn cut(&self, from: &Node, to: &Node) -> io::Result<()> {
        self.nft(&["create", "element", "bridge", "faults", "cuts", &pair(from, to)]).map(drop)
    }

    /// Lets packets from one node to another through again. Answers how many were dropped.
    ///
    /// # Errors
    /// When the way was not cut.
    pub fn heal(&self, from: &Node, to: &Node) -> io::Result<u64> {
        let dropped = self.dropped(from, to)?;
        self.nft(&["delete", "element", "bridge", "faults", "cuts", &pair(from, to)])?;
        Ok(dropped)
    }

    /// How many packets were dropped since the way was cut.
    ///
    /// # Errors
    /// When the way is not cut.
    pub fn dropped(&self, from: &Node, to: &Node) -> io::Result<u64> {
        let listed = self.nft(&["get", "element", "bridge", "faults", "cuts", &pair(from, to)])?;
        let packets = listed.split("counter packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets
            .and_then(|count| count.parse().ok())
            .ok_or_else(|| io::Error::other(format!("nft tells no count of packets: {listed}")))
    }

    /// Takes a node's link down: it is cut from everything, and its carrier is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn link_down(&self, node: &Node) -> io::Result<()> {
        feed(&self.hub, "ip", &["-batch", "-"], &format!("link set {} down\n", node.link)).map(drop)
    }

    /// Brings it up again.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn link_up(&self, node: &Node) -> io::Result<()> {
        feed(&self.hub, "ip", &["-batch", "-"], &format!("link set {} up\n", node.link)).map(drop)
    }

    /// Whether the node's link is up.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn is_up(&self, node: &Node) -> io::Result<bool> {
        let shown = feed(&self.hub, "ip", &["-o", "link", "show", &node.link], "")?;
        Ok(shown.contains("LOWER_UP"))
    }

    fn nft(&self, arguments: &[&str]) -> io::Result<String> {
        feed(&self.hub, "nft", arguments, "")
    }
}

fn pair(from: &Node, to: &Node) -> String {
    format!("{{ {} . {} }}", from.address, to.address)
}

/// Runs a tool in a namespace with some input. Answers what it says.
fn feed(namespace: &Namespace, tool: &str, arguments: &[&str], input: &str) -> io::Result<String> {
    let mut command = Command::new(tool);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = namespace.spawn(&mut command)?;
    // Dropped after the write, so that the tool sees the end.
    child.stdin.take().expect("it was piped").write_all(input.as_bytes())?;
    let answer = child.wait_with_output()?;
    if answer.status.success() {
        return Ok(String::from_utf8_lossy(&answer.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&answer.stderr);
    Err(io::Error::other(format!("{tool} {arguments:?} with '{input}': {} {why}", answer.status)))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn reaches(from: &Node, to: &Node, port: u16) -> bool {
        let address = (to.address, port).into();
        std::thread::scope(|scope| {
            let tried = scope.spawn(|| {
                from.namespace.enter().expect("it could be made");
                TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
            });
            tried.join().expect("connecting does not panic")
        })
    }

    #[test]
    fn packets_of_one_direction_are_dropped_and_counted() {
        if let Some(why) = missing() {
            assert!(std::env::var_os("CI").is_none(), "nothing is skipped in CI: {why}");
            return eprintln!("SKIPPED: {why}");
        }
        let mut network = Network::enter().unwrap();
        let (a, b) = (network.node().unwrap(), network.node().unwrap());
        let listener = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                b.namespace.enter().unwrap();
                TcpListener::bind((b.address, 0)).unwrap()
            });
            listening.join().unwrap()
        });
        let port = listener.local_addr().unwrap().port();
        assert!(reaches(&a, &b, port));
        for (from, to) in [(&a, &b), (&b, &a)] {
            network.cut(from, to).unwrap();
            assert!(!reaches(&a, &b, port));
            assert!(network.heal(from, to).unwrap() > 0, "the fault fired");
            assert!(reaches(&a, &b, port));
        }
        assert!(network.is_up(&a).unwrap());
        network.link_down(&a).unwrap();
        assert!(!network.is_up(&a).unwrap());
        assert!(!reaches(&a, &b, port));
        network.link_up(&a).unwrap();
        // The switch and the neighbours have to find each other again.
        assert!((0..30).any(|_| reaches(&a, &b, port)));
        let outside = TcpStream::connect_timeout(&([192, 0, 2, 1], 53).into(), Duration::from_millis(200));
        assert_eq!(outside.unwrap_err().kind(), io::ErrorKind::NetworkUnreachable, "there is no way out");
    }
}
