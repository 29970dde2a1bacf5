//! An API server of which some answers are broken: by itself, by a load balancer before it, or by the network.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    ops::Range,
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    repo::{Repo, Shared, tool},
    stop::{leases, newest},
};

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Another answer comes in its place. Its request may have reached the API server or not.
    Answer(&'static str, Reached),
    /// The connection is closed, and no answer comes.
    NoAnswer(Reached),
    /// The connection is closed within the answer.
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Reached {
    Yes,
    No,
}

const FAULTS: [Fault; 10] = [
    Fault::Answer(STATUS_500, Reached::No),
    Fault::Answer(STATUS_500, Reached::Yes),
    Fault::Answer(BUSY, Reached::No),
    Fault::Answer(BAD_GATEWAY, Reached::Yes),
    Fault::Answer(UNAVAILABLE, Reached::No),
    Fault::Answer(LATE, Reached::Yes),
    Fault::Answer(A_PAGE, Reached::Yes),
    Fault::NoAnswer(Reached::Yes),
    Fault::NoAnswer(Reached::No),
    Fault::Cut,
];

const STATUS_500: &str = "500 Internal Server Error\r\nContent-Type: application/json\r\n\r\n\
    {\"kind\": \"Status\", \"apiVersion\": \"v1\", \"status\": \"Failure\", \"reason\": \"InternalError\", \
    \"message\": \"Internal error occurred: etcdserver: no leader\", \"code\": 500}";
const BUSY: &str = "429 Too Many Requests\r\nContent-Type: text/plain\r\n\r\n\
    Too many requests, please try again later.";
const BAD_GATEWAY: &str = "502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n\
    <html><h1>502 Bad Gateway</h1></html>";
const UNAVAILABLE: &str = "503 Service Unavailable\r\nContent-Type: text/plain\r\n\r\n\
    upstream connect error or disconnect/reset before headers";
const LATE: &str = "504 Gateway Timeout\r\nContent-Type: application/json\r\n\r\n\
    {\"kind\": \"Status\", \"apiVersion\": \"v1\", \"status\": \"Failure\", \"reason\": \"Timeout\", \
    \"message\": \"Timeout: request did not complete within the allotted timeout\", \"code\": 504}";
const A_PAGE: &str = "200 OK\r\nContent-Type: text/html\r\n\r\n<html>be right back</html>";

/// Says what becomes of the answer to a request: `PUT /api/v1/…`, the body, and how often there was such a request before.
type Decide = dyn Fn(&str, &str, u64) -> Option<Fault> + Send + Sync;

/// What stands between the program and an API server.
struct Proxy {
    address: String,
    upstream: Child,
    /// The faults that there were.
    seen: Arc<Mutex<Vec<String>>>,
}

struct Between {
    upstream: String,
    decide: Box<Decide>,
    counts: Mutex<HashMap<String, u64>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(
        cluster: &Shared,
        decide: impl Fn(&str, &str, u64) -> Option<Fault> + Send + Sync + 'static,
    ) -> Proxy {
        let mut upstream = tool("kubectl")
            .args(["proxy", "--port=0", "--reject-paths=^$"])
            .env("KUBECONFIG", &cluster.kubeconfig)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(upstream.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let between = Arc::new(Between {
            upstream: line.trim().rsplit(' ').next().unwrap().to_owned(),
            decide: Box::new(decide),
            counts: Mutex::default(),
            seen: seen.clone(),
        });
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let between = between.clone();
                thread::spawn(move || between.serve(client));
            }
        });
        Proxy {
            address,
            upstream,
            seen,
        }
    }

    /// Breaks so many of a thousand answers, always the same ones.
    fn breaking(cluster: &Shared, per_mille: u64, seed: u64) -> Proxy {
        Proxy::start(cluster, move |request, _, number| {
            let mut hasher = DefaultHasher::new();
            (seed, request, number).hash(&mut hasher);
            let number = hasher.finish();
            let fault = usize::try_from(number >> 32).unwrap() % FAULTS.len();
            (number % 1000 < per_mille).then_some(FAULTS[fault])
        })
    }

    /// A repository whose cluster is behind this proxy.
    fn repo(&self, cluster: &Shared, hubs: &[&str]) -> Repo {
        let repo = Repo::on(cluster, hubs);
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: faulty\n\
             contexts: [{{name: faulty, context: {{cluster: faulty, user: nobody}}}}]\n\
             clusters: [{{name: faulty, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: nobody, user: {{}}}}]\n",
            self.address
        );
        repo.write("config/clusters/lake/kubeconfig.yaml", &kubeconfig);
        repo
    }

    fn faults(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.upstream.kill();
        let _ = self.upstream.wait();
    }
}

impl Between {
    fn serve(&self, client: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let head = read_head(&mut reader)?;
        let mut body = vec![0; length(&head)];
        reader.read_exact(&mut body).ok()?;
        let mut words = head.split([' ', '?']);
        let request = format!("{} {}", words.next()?, words.next()?);
        let number = {
            let mut counts = self.counts.lock().unwrap();
            let count = counts.entry(request.clone()).or_default();
            *count += 1;
            *count - 1
        };
        let fault = (self.decide)(&request, &String::from_utf8_lossy(&body), number);
        if let Some(fault) = fault {
            let mut seen = self.seen.lock().unwrap();
            seen.push(format!("{request} #{number}: {fault:?}"));
        }
        match fault {
            None => self.pass_on(&client, &head, &body)?,
            Some(Fault::Cut) => self.cut(&client, &head, &body)?,
            Some(Fault::NoAnswer(Reached::No)) => {}
            Some(Fault::NoAnswer(Reached::Yes)) => _ = self.whole_answer(&head, &body)?,
            Some(Fault::Answer(text, reached)) => {
                if reached == Reached::Yes {
                    self.whole_answer(&head, &body)?;
                }
                let text = text.replacen("\r\n", "\r\nConnection: close\r\n", 1);
                (&client)
                    .write_all(format!("HTTP/1.1 {text}").as_bytes())
                    .ok()?;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
        Some(())
    }

    /// Sends a request to the API server, which closes the connection after its answer.
    fn send(&self, head: &str, body: &[u8]) -> Option<TcpStream> {
        let mut upstream = TcpStream::connect(&self.upstream).ok()?;
        let lines = head.trim_end().split("\r\n");
        for line in lines.filter(|it| !it.to_lowercase().starts_with("connection:")) {
            write!(upstream, "{line}\r\n").ok()?;
        }
        write!(upstream, "Connection: close\r\n\r\n").ok()?;
        upstream.write_all(body).ok()?;
        Some(upstream)
    }

    fn whole_answer(&self, head: &str, body: &[u8]) -> Option<Vec<u8>> {
        if is_watch(head) {
            return Some(Vec::new());
        }
        let mut answer = Vec::new();
        self.send(head, body)?.read_to_end(&mut answer).ok()?;
        Some(answer)
    }

    fn pass_on(&self, mut client: &TcpStream, head: &str, body: &[u8]) -> Option<()> {
        let mut upstream = self.send(head, body)?;
        // A watch ends when the client closes its connection.
        thread::spawn({
            let mut client = client.try_clone().unwrap();
            let upstream = upstream.try_clone().unwrap();
            move || {
                let _ = client.read(&mut [0]);
                let _ = upstream.shutdown(Shutdown::Both);
            }
        });
        io::copy(&mut upstream, &mut client).ok().map(|_| ())
    }

    /// Passes on the first half of an answer or, of a watch, what comes first.
    fn cut(&self, mut client: &TcpStream, head: &str, body: &[u8]) -> Option<()> {
        let answer = if is_watch(head) {
            let mut answer = vec![0; 10_000];
            let upstream = self.send(head, body)?;
            upstream
                .set_read_timeout(Some(Duration::from_secs(1)))
                .ok()?;
            let length = (&upstream).read(&mut answer).ok()?;
            answer.truncate(length);
            answer
        } else {
            self.whole_answer(head, body)?
        };
        let content = answer.windows(4).position(|it| it == b"\r\n\r\n")? + 4;
        let end = content + (answer.len() - content) / 2;
        client.write_all(&answer[..end]).ok()
    }
}

fn is_watch(head: &str) -> bool {
    let path = head.split(' ').nth(1).unwrap_or_default();
    path.contains("watch=1") || path.contains("watch=true")
}

fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn length(head: &str) -> usize {
    let head = head.to_lowercase();
    let value = head
        .lines()
        .find_map(|it| it.strip_prefix("content-length:"));
    value.map_or(0, |it| it.trim().parse().unwrap())
}

/// A line for each revision of a hub: its number, its status, and which one is recorded as ready.
fn revisions(cluster: &Shared, hub: &str) -> Vec<String> {
    let path = "{range .items[*]}{.metadata.labels.version} {.metadata.labels.status} \
                {.metadata.labels.ready}{\"\\n\"}{end}";
    let mut command = tool("kubectl");
    command.args(["get", "secrets", "-n", hub, "-l", "owner=helm", "-o"]);
    command.arg(format!("jsonpath={path}"));
    let output = command.env("KUBECONFIG", &cluster.kubeconfig).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    text.lines().map(|it| it.trim().to_owned()).collect()
}

/// A hub must be deployed with this greeting, and nothing of the work may be left.
fn check(cluster: &Shared, hub: &str, greeting: &str, told: &str) {
    let live = cluster.kubectl(&format!(
        "get configmap pond -n {hub} -o jsonpath={{.data.greeting}}"
    ));
    assert_eq!(live, greeting, "{told}");
    let (number, status) = newest(cluster, hub);
    let revisions = revisions(cluster, hub);
    assert_eq!(status, "deployed", "{revisions:?} {told}");
    assert!(
        revisions.contains(&format!("{number} deployed {number}")),
        "{revisions:?} {told}"
    );
    assert!(
        !revisions.iter().any(|it| it.contains("pending")),
        "{revisions:?} {told}"
    );
    assert_eq!(leases(cluster, hub), "", "{told}");
}

/// Runs a command, which must succeed. Returns what is to be told of it if anything is wrong.
fn run(repo: &Repo, proxy: &Proxy, command: &str) -> String {
    let ran = repo.run(command);
    let faults = proxy.faults().join("\n");
    let told = format!("{command}\n{}{}\n{faults}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, Some(0), "{told}");
    told
}

/// Deploys hubs again and again, each time with a change, through a proxy that breaks so many of a thousand answers.
fn deploys(per_mille: u64, seeds: Range<u64>, hubs: [&str; 2]) {
    let cluster = Shared::cluster();
    for seed in seeds {
        let proxy = Proxy::breaking(&cluster, per_mille, seed);
        let repo = proxy.repo(&cluster, &hubs);
        repo.write(
            "config/clusters/lake/common.values.yaml",
            &format!("greeting: hello {seed}\n"),
        );
        let told = run(&repo, &proxy, "deploy lake --skip-hub-health-check");
        for hub in hubs {
            check(&cluster, hub, &format!("hello {seed}"), &told);
        }
    }
}

#[test]
fn a_deploy_goes_on_though_some_answers_are_broken() {
    deploys(40, 2..6, ["faulty-a", "faulty-b"]);
}

/// `cargo test --test it -- --ignored fifty_deploys`
#[test]
#[ignore = "takes minutes"]
fn fifty_deploys_with_two_broken_answers_of_a_hundred() {
    deploys(20, 100..150, ["fifty-a", "fifty-b"]);
}

#[test]
fn other_commands_go_on_as_well() {
    let cluster = Shared::cluster();
    let proxy = Proxy::breaking(&cluster, 40, 3);
    let repo = proxy.repo(&cluster, &["faulty-c"]);
    for greeting in ["one", "two"] {
        repo.write(
            "config/clusters/lake/common.values.yaml",
            &format!("greeting: {greeting}\n"),
        );
        run(&repo, &proxy, "deploy lake --skip-hub-health-check");
    }
    run(&repo, &proxy, "deploy lake --diff --dry-run");
    let told = run(&repo, &proxy, "status lake");
    assert!(told.contains("faulty-c"), "{told}");
    let told = run(&repo, &proxy, "rollback lake faulty-c --yes");
    check(&cluster, "faulty-c", "one", &told);
    let told = run(&repo, &proxy, "retire lake faulty-c --yes");
    assert_eq!(revisions(&cluster, "faulty-c"), [""; 0], "{told}");
    assert_eq!(leases(&cluster, "faulty-c"), "", "{told}");
}

/// A proxy that breaks the first answer to such a request, if its body contains a text.
fn breaking_once(
    cluster: &Shared,
    request: &'static str,
    body: &'static str,
    fault: Fault,
) -> Proxy {
    let is_broken = AtomicBool::new(false);
    Proxy::start(cluster, move |found, content, _| {
        let is_meant = found.starts_with(request) && content.contains(body);
        (is_meant && !is_broken.swap(true, Ordering::SeqCst)).then_some(fault)
    })
}

#[test]
fn what_helm_has_done_without_hearing_of_it_is_not_done_again() {
    let cluster = Shared::cluster();
    let proxy = breaking_once(
        &cluster,
        "PUT /api/v1/namespaces/unheard/secrets/",
        "deployed",
        Fault::NoAnswer(Reached::Yes),
    );
    let repo = proxy.repo(&cluster, &["unheard"]);
    run(&repo, &proxy, "deploy lake --skip-hub-health-check");
    assert_eq!(proxy.faults().len(), 1);
    assert_eq!(revisions(&cluster, "unheard"), ["1 deployed 1"]);
}

#[test]
fn a_lease_that_is_ours_without_our_hearing_of_it_is_not_waited_for() {
    let cluster = Shared::cluster();
    let proxy = breaking_once(
        &cluster,
        "POST /apis/coordination.k8s.io/v1/namespaces/leased/leases",
        "",
        Fault::NoAnswer(Reached::Yes),
    );
    let repo = proxy.repo(&cluster, &["leased"]);
    let told = run(&repo, &proxy, "deploy lake --skip-hub-health-check");
    assert_eq!(proxy.faults().len(), 1);
    assert!(!told.contains("is at work"), "{told}");
}

/// It is the job that helm made itself and has not heard of.
#[test]
fn a_hooks_job_is_in_nobodys_way() {
    let cluster = Shared::cluster();
    let proxy = breaking_once(
        &cluster,
        "PATCH /apis/batch/v1/namespaces/hooked/jobs/hook",
        "",
        Fault::Cut,
    );
    let repo = proxy.repo(&cluster, &["hooked"]);
    repo.edit(
        "helm-charts/pond/templates/all.yaml",
        "nodeSelector: {nowhere: \"true\"}",
        "",
    );
    repo.write("config/clusters/lake/hooked.values.yaml", "hook: true\n");
    let told = run(&repo, &proxy, "deploy lake --skip-hub-health-check");
    assert_eq!(proxy.faults().len(), 1, "{told}");
    check(&cluster, "hooked", "hello", &told);
}

const FORBIDDEN: &str = "403 Forbidden\r\nContent-Type: application/json\r\n\r\n{\"kind\": \"Status\", \"apiVersion\": \
                         \"v1\", \"status\": \"Failure\", \"reason\": \"Forbidden\", \"message\": \"kept by a policy\", \
                         \"code\": 403}";

/// helm's own error only says that it failed.
#[test]
fn why_helm_cannot_delete_something_is_told() {
    let cluster = Shared::cluster();
    let proxy = Proxy::start(&cluster, |request, _, _| {
        let is_meant = request.starts_with("DELETE /api/v1/namespaces/undeleted/configmaps/");
        is_meant.then_some(Fault::Answer(FORBIDDEN, Reached::No))
    });
    let repo = proxy.repo(&cluster, &["undeleted"]);
    run(&repo, &proxy, "deploy lake --skip-hub-health-check");
    let told = repo.fails("retire lake undeleted --yes");
    assert!(told.contains("kept by a policy"), "{told}");
    assert!(!told.contains("level=DEBUG msg=\"Starting"), "{told}");
}
