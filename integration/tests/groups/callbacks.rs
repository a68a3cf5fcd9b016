//! What a callback hears of its group: every completion, until it says that it has heard it, whatever becomes of schedulers and receivers.

use std::sync::{Arc, Mutex};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SECRET: &str = "a secret of the receiver's";

/// A request: its headers in lower case, and its body.
#[derive(Clone, Debug)]
struct Heard {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Heard {
    fn told(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn group(&self) -> String {
        self.told()["group"].as_str().unwrap().to_owned()
    }
}

/// An HTTP server that answers with the first of these that it has left, the last one again and again. 0: never.
struct Receiver {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
    answers: Arc<Mutex<Vec<u16>>>,
    /// Requests that wait for an answer now, and the most that ever did.
    hanging: Arc<Mutex<(usize, usize)>>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?from=muster", listener.local_addr().unwrap());
        let (heard, hanging) = (Arc::default(), Arc::default());
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let receiver =
            Self { url, heard: Arc::clone(&heard), answers: Arc::clone(&answers), hanging: Arc::clone(&hanging) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&heard), Arc::clone(&answers), Arc::clone(&hanging)));
            }
        });
        receiver
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    async fn has_heard(&self, requests: usize) -> Vec<Heard> {
        eventually("the receiver has heard of it", 60, async || (self.heard().len() >= requests).then_some(())).await;
        self.heard()
    }
}

async fn answer(
    stream: TcpStream,
    heard: Arc<Mutex<Vec<Heard>>>,
    answers: Arc<Mutex<Vec<u16>>>,
    hanging: Arc<Mutex<(usize, usize)>>,
) {
    let mut stream = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    assert_eq!(lines[0], "POST /hook?from=muster HTTP/1.1");
    let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = lines[1..].iter().filter_map(header).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    heard.lock().unwrap().push(Heard { headers, body: String::from_utf8(body).unwrap() });
    let status = {
        let mut answers = answers.lock().unwrap();
        if answers.len() > 1 { answers.remove(0) } else { answers[0] }
    };
    if status == 0 {
        let count = |by: isize| {
            let mut hanging = hanging.lock().unwrap();
            hanging.0 = hanging.0.checked_add_signed(by).unwrap();
            hanging.1 = hanging.1.max(hanging.0);
        };
        count(1);
        // Until the caller has had enough.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return count(-1);
    }
    let text = format!("HTTP/1.1 {status} so\r\ncontent-length: 0\r\nlocation: http://127.0.0.1:9/\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
}

impl Cluster {
    async fn create_with_callback(&self, path: &str, url: &str) {
        let spec = v1::GroupSpec { callback: url.to_owned(), ..v1::GroupSpec::default() };
        self.clients[0].create_group(group(path, spec)).await.unwrap();
    }

    async fn outbox_is_empty(&self) {
        let store = self.store();
        eventually("nothing is left to be delivered", 60, async || {
            let page = store.get_from_prefix(Keyspace::Outbox, "").await.unwrap();
            page.entries.is_empty().then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_hears_of_each_completion_until_it_says_so() {
    let world = World::new();
    let secret = world.path("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let cluster = Cluster::start_in(world, &["--callback-secret-file", secret.to_str().unwrap()]).await;
    // Neither an error nor a redirect is a success.
    let refusing = Receiver::start(&[500, 302, 204]).await;
    let willing = Receiver::start(&[200]).await;
    cluster.create_with_callback("a", &willing.url).await;
    cluster.create(&["a/b"]).await;
    cluster.create_with_callback("a/b/c", &refusing.url).await;
    cluster.submit("a/b/c", "true").await;
    cluster.submit("a/b/c", "exit 1").await;

    let tries = refusing.has_heard(3).await;
    let told = tries[0].told();
    for (key, value) in
        [("event", "group.completed"), ("namespace", "default"), ("group", "a/b/c"), ("state", "failed")]
    {
        assert_eq!(told[key], value, "{told}");
    }
    assert_eq!((&told["jobs"]["successful"], &told["jobs"]["failed"]), (&1.into(), &1.into()), "{told}");
    for heard in &tries {
        assert_eq!(heard.body, tries[0].body, "all tries tell the same");
        let headers = &heard.headers;
        assert_eq!(headers["muster-event-id"], told["id"]);
        assert_eq!(headers["content-type"], "application/json");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(format!("{}.{}", headers["muster-timestamp"], heard.body).as_bytes());
        let signature: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(headers["muster-signature"], format!("v1={signature}"));
    }
    let above = willing.has_heard(1).await;
    assert_eq!(above[0].group(), "a");
    cluster.outbox_is_empty().await;

    // Complete once more: that is another event.
    cluster.submit("a/b/c", "true").await;
    let again = refusing.has_heard(4).await;
    let last = again[3].told();
    assert!(last["completion"].as_u64() > told["completion"].as_u64() && last["id"] != told["id"], "{last}");
    willing.has_heard(2).await;
    cluster.outbox_is_empty().await;
    let events = |heard: Vec<Heard>| heard.iter().map(|one| one.headers["muster-event-id"].clone()).collect::<Vec<_>>();
    let (mut ids, count) = (events(willing.heard()), willing.heard().len());
    ids.dedup();
    assert_eq!(ids.len(), count, "what was answered with success is not told again");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_gone_or_hangs_holds_up_nobody_else() {
    let cluster = Cluster::start().await;
    let (gone, hanging, well) =
        (Receiver::start(&[410]).await, Receiver::start(&[0]).await, Receiver::start(&[204]).await);
    cluster.create_with_callback("gone", &gone.url).await;
    cluster.create(&["hanging", "well"]).await;
    // More than are called at once of all places.
    for number in 0..70 {
        cluster.create_with_callback(&format!("hanging/g{number}"), &hanging.url).await;
        cluster.submit(&format!("hanging/g{number}"), "true").await;
    }
    cluster.create_with_callback("well/a", &well.url).await;
    cluster.complete("hanging").await;
    cluster.submit("well/a", "true").await;
    cluster.submit("gone", "true").await;
    assert_eq!(well.has_heard(1).await[0].group(), "well/a");
    assert!(!well.heard()[0].headers.contains_key("muster-signature"), "there is no secret to sign it with");
    gone.has_heard(1).await;
    let left = async || {
        let page = cluster.store().get_from_prefix(Keyspace::Outbox, "").await.unwrap();
        page.entries.iter().filter(|entry| !entry.name.contains("/hanging/")).count()
    };
    eventually("what was heard, and what nobody wants to hear, is done", 60, async || {
        (left().await == 0).then_some(())
    })
    .await;
    assert_eq!(gone.heard().len(), 1);
    // Had they been called all at once, there would have been no room for others until they are given up.
    eventually("as many calls hang as may", 60, async || (hanging.hanging.lock().unwrap().1 == 4).then_some(())).await;
    hanging.has_heard(9).await;
    assert_eq!(hanging.hanging.lock().unwrap().1, 4, "and never more");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_scheduler_delivers_what_a_dead_one_could_not() {
    let mut cluster = Cluster::start().await;
    let receiver = Receiver::start(&[503]).await;
    cluster.create_with_callback("a", &receiver.url).await;
    cluster.submit("a", "true").await;
    receiver.has_heard(1).await;
    // Whichever of the two it is that delivers: one after the other dies, and another one comes.
    for number in 0..2 {
        cluster.schedulers.remove(0).kill();
        let name = format!("new-{number}");
        let before = receiver.heard().len();
        cluster.schedulers.push(cluster.world.scheduler(&name, &cluster.etcd.url(), &[]).await);
        receiver.has_heard(before + 1).await;
    }
    *receiver.answers.lock().unwrap() = vec![204];
    cluster.outbox_is_empty().await;
    let heard = receiver.heard();
    assert!(heard.iter().all(|one| one.body == heard[0].body), "one event");
}
