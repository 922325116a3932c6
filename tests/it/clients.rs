//! Kafka clients that were not written here, as they stand: each does the same against a real Kafka,
//! which is the control, and against `falaj broker`.
//!
//! What a client is asked to do is in `tests/clients/`, where a client's own language says it; here is
//! what only looks from outside: programs, processes, signals. `docs/reference/kafka-clients.md` is
//! the table of it.
//!
//! Always: the control passes as well, so a case that fails on falaj alone is falaj's fault.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use falaj_servers::{
    Certificates, Kafka, KafkaOptions, Listener, User, Venv, have, kafka_compile, kafka_tool, kcat,
};

use crate::harness::{PATIENCE, falaj, repository, stderr, stdout};

/// The control, one for all tests here; it ends with the test process.
static CONTROL: OnceLock<Option<Kafka>> = OnceLock::new();

/// Held by whoever uses the topic `messages` of the control, which has that name for the mission's sake.
static MESSAGES: Mutex<()> = Mutex::new(());

/// Who may log in where somebody must.
const NAME: &str = "alice";
const PASSWORD: &str = "alice-secret";

/// The control; none where there is no Java.
fn control() -> Option<&'static Kafka> {
    let start = || {
        // As a broker comes: a topic is made by the first who names it.
        let property = ("auto.create.topics.enable".to_owned(), "true".to_owned());
        Kafka::start(&KafkaOptions {
            tls: true,
            users: vec![User {
                name: NAME.to_owned(),
                password: PASSWORD.to_owned(),
            }],
            properties: vec![property],
            ..KafkaOptions::default()
        })
    };
    CONTROL.get_or_init(start).as_ref()
}

/// A broker that a client is set on.
struct Subject {
    name: &'static str,
    brokers: String,
    /// falaj's, gone with this value; the control is shared.
    broker: Option<Process>,
}

impl Subject {
    /// The control, then falaj with an empty log; none where there is no Java.
    fn each() -> Vec<Self> {
        let Some(control) = control() else {
            return Vec::new();
        };
        let kafka = Self {
            name: "kafka",
            brokers: control.brokers(),
            broker: None,
        };
        vec![kafka, Self::falaj()]
    }

    fn falaj() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::falaj_in(folder, &[])
    }

    fn falaj_in(folder: tempfile::TempDir, args: &[&OsStr]) -> Self {
        let mut command = falaj(["broker", "--listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(folder.path().join("broker")).args(args);
        let process = Process::spawn(&mut command, Some(folder));
        let brokers = process.wait_for(|line| line.strip_prefix("kafka: ").map(str::to_owned));
        Self {
            name: "falaj",
            brokers,
            broker: Some(process),
        }
    }

    /// Both with TLS and users, and the authority to trust.
    fn each_with_logins() -> Vec<(Self, PathBuf)> {
        let Some(control) = control() else {
            return Vec::new();
        };
        let kafka = Self {
            name: "kafka",
            brokers: control.address(Listener::SaslSsl),
            broker: None,
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let certificates = Certificates::make(folder.path());
        let users = folder.path().join("users");
        std::fs::write(&users, format!("{NAME} {PASSWORD}\n")).expect("the folder can be written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&users, private).expect("the file is ours");
        let args = [
            ("--tls-cert", certificates.server_chain()),
            ("--tls-key", certificates.server_key()),
            ("--users", users),
        ];
        let args: Vec<&OsStr> = args
            .iter()
            .flat_map(|(k, v)| [k.as_ref(), v.as_ref()])
            .collect();
        let falaj = Self::falaj_in(folder, &args);
        vec![
            (kafka, control.certificates().authority()),
            (falaj, certificates.authority()),
        ]
    }

    /// falaj's broker ends by SIGTERM, with 0, although clients have only just left.
    fn end(self) {
        if let Some(mut broker) = self.broker {
            broker.signal("TERM");
            assert_eq!(
                broker.code(),
                Some(0),
                "it ends by SIGTERM: {:?}",
                broker.rest()
            );
        }
    }
}

/// A process that ends with the test, and what it prints, line by line.
struct Process {
    child: Child,
    lines: Receiver<String>,
    _folder: Option<tempfile::TempDir>,
}

impl Process {
    fn spawn(command: &mut Command, folder: Option<tempfile::TempDir>) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let (sender, lines) = channel();
        let other = sender.clone();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let err = BufReader::new(child.stderr.take().expect("piped"));
        std::thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|l| sender.send(l))
        });
        std::thread::spawn(move || {
            err.lines()
                .map_while(Result::ok)
                .try_for_each(|l| other.send(l))
        });
        Self {
            child,
            lines,
            _folder: folder,
        }
    }

    fn next(&self) -> String {
        let line = self.lines.recv_timeout(PATIENCE);
        line.unwrap_or_else(|e| panic!("nothing more is printed: {e}"))
    }

    /// Reads lines until `found` makes something of one.
    fn wait_for<T>(&self, found: impl Fn(&str) -> Option<T>) -> T {
        let mut before = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => match found(&line) {
                    Some(value) => return value,
                    None => before.push(line),
                },
                Err(e) => panic!("{e} behind {before:?}"),
            }
        }
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.expect("`kill` is there").success());
    }

    /// Its exit code, none where a signal ended it.
    fn code(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the process is ours") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All lines that were not read yet, of a process that has ended.
    fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end, within bounds, with `input` as its standard input.
fn run(command: &Command, input: &str) -> Output {
    let mut bounded = Command::new("timeout");
    bounded
        .args(["--kill-after=5", &PATIENCE.as_secs().to_string()])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bounded.env(name, value),
            None => bounded.env_remove(name),
        };
    }
    let mut child = bounded
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`timeout` is there");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("the process is ours");
    // A command that does not read its input closes it early.
    let _ = writer.join();
    output
}

/// What a command printed; a panic with everything it said where it failed.
fn printed(command: &Command, input: &str) -> String {
    let output = run(command, input);
    let said = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success(), "{command:?}: {said}");
    stdout(&output)
}

fn clients() -> PathBuf {
    repository().join("tests/clients")
}

fn venv() -> Option<Venv> {
    Venv::of(&clients().join("requirements.txt"))
}

/// Runs a file of cases on each subject.
fn cases(file: &str) {
    let Some(venv) = venv() else { return };
    for subject in Subject::each() {
        let mut command = venv.python();
        command
            .arg(clients().join(file))
            .args([&subject.brokers, subject.name]);
        let output = run(&command, "");
        let said = format!("{}{}", stdout(&output), stderr(&output));
        eprintln!("{file} on {}:\n{said}", subject.name);
        assert!(
            output.status.success(),
            "{file} on {}:\n{said}",
            subject.name
        );
        assert!(said.contains("ok "), "no case ran:\n{said}");
        subject.end();
    }
}

#[test]
fn confluent_kafka() {
    cases("confluent.py");
}

#[test]
fn kafka_python() {
    cases("kafka_python.py");
}

#[test]
fn aiokafka() {
    cases("aio.py");
}

#[test]
fn clients_log_in_over_tls() {
    let Some(venv) = venv() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (subject, authority) in Subject::each_with_logins() {
        let mut command = venv.python();
        command
            .arg(clients().join("logins.py"))
            .args([&subject.brokers, subject.name])
            .env("AUTHORITY", &authority)
            .env("LOGIN", format!("{NAME} {PASSWORD}"));
        eprintln!("logins on {}:\n{}", subject.name, printed(&command, ""));

        // Kafka's own tools.
        let authority = authority.display();
        let login = folder.path().join("login.properties");
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required";
        let properties = format!(
            "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\n\
             sasl.jaas.config={scram} username=\"{NAME}\" password=\"{PASSWORD}\";\n\
             ssl.truststore.type=PEM\nssl.truststore.location={authority}\n"
        );
        std::fs::write(&login, properties).expect("the folder can be written");
        let mut list = kafka_tool("TopicCommand", ["--bootstrap-server", &subject.brokers]);
        let list = printed(list.arg("--list").arg("--command-config").arg(&login), "");
        assert!(
            list.contains("confluent-PLAIN"),
            "on {}: {list}",
            subject.name
        );
        // kcat, by PLAIN: its SCRAM is one that Kafka refuses as well.
        if let Some(mut kcat) = kcat() {
            let protocol = "security.protocol=SASL_SSL";
            let authority = format!("ssl.ca.location={authority}");
            let login = [
                format!("sasl.username={NAME}"),
                format!("sasl.password={PASSWORD}"),
            ];
            kcat.args([
                "-L",
                "-m",
                "20",
                "-b",
                &subject.brokers,
                "-X",
                "sasl.mechanism=PLAIN",
            ]);
            let options = [protocol, &authority, &login[0], &login[1]];
            for option in options {
                kcat.args(["-X", option]);
            }
            assert!(
                printed(&kcat, "").contains("confluent-PLAIN"),
                "on {}",
                subject.name
            );
        }
        subject.end();
    }
}

#[test]
fn the_two_python_scripts_run_as_they_stand() {
    let Some(venv) = venv() else { return };
    let api = Process::spawn(&mut falaj(["random-user", "serve", "--port", "0"]), None);
    let address = api.wait_for(|line| line.strip_prefix("random user api: ").map(str::to_owned));
    let messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    for subject in Subject::each() {
        let script = |name: &str| {
            let mut command = venv.python();
            command
                .arg(repository().join("examples/python-producer").join(name))
                .env("KAFKA_BROKERS", &subject.brokers)
                .env("RANDOM_USER_API", &address);
            command
        };
        let produce = || {
            let said = printed(&script("producer.py"), "");
            let delivered = said
                .lines()
                .filter(|l| l.starts_with("delivered to messages ["));
            assert_eq!(delivered.count(), 10, "on {}: {said}", subject.name);
        };
        let consume = |count| {
            let mut consumer = Process::spawn(&mut interruptible(&script("consumer.py")), None);
            let received = |line: &str| {
                let (key, user) = line.strip_prefix("received ")?.split_once(": ")?;
                assert!(user.ends_with(" years old"), "not as it was sent");
                Some(key.to_owned())
            };
            let keys: Vec<String> = (0..count).map(|_| consumer.wait_for(received)).collect();
            // Ctrl-C: it leaves the group and commits what it has read.
            consumer.signal("INT");
            assert_eq!(consumer.code(), Some(0));
            let more = consumer.rest();
            assert!(more.is_empty(), "on {}: {more:?}", subject.name);
            keys
        };

        // Nobody has made the topic: the first message does.
        produce();
        produce();
        let first = consume(20);
        produce();
        // Another run of the group goes on where the first one stopped.
        let second = consume(10);
        let keys: BTreeSet<&String> = first.iter().chain(&second).collect();
        assert_eq!(keys.len(), 30, "on {}: each message once", subject.name);
        if let Some(mut kcat) = kcat() {
            kcat.args([
                "-C",
                "-q",
                "-e",
                "-o",
                "beginning",
                "-t",
                "messages",
                "-f",
                "%k\n",
            ]);
            let stored = printed(kcat.args(["-b", &subject.brokers]), "");
            let stored: BTreeSet<String> = stored.lines().map(str::to_owned).collect();
            assert_eq!(stored.iter().collect::<BTreeSet<_>>(), keys);
        }
        forget_messages(&subject, "my-group");
        subject.end();
    }
    drop(messages);
}

/// The command with Ctrl-C as a terminal gives it: where tests run in the background it is ignored, and
/// whoever is started then ignores it too.
fn interruptible(command: &Command) -> Command {
    let mut with = Command::new("env");
    with.arg("--default-signal=INT")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            with.env(name, value);
        }
    }
    with
}

/// Deletes the topic `messages` and a group of the control, which other tests use as well.
fn forget_messages(subject: &Subject, group: &str) {
    if subject.name == "kafka" {
        let brokers = ["--bootstrap-server", &subject.brokers];
        let topic = ["--delete", "--topic", "messages"];
        printed(kafka_tool("TopicCommand", brokers).args(topic), "");
        let group = ["--delete", "--group", group];
        printed(kafka_tool("ConsumerGroupCommand", brokers).args(group), "");
    }
}

/// What a member of a group says it did.
#[derive(Default)]
struct Member {
    assigned: BTreeSet<u32>,
    /// Each place once.
    read: BTreeSet<(u32, i64)>,
    committed: BTreeMap<u32, i64>,
    /// What it said last, if that was of a message.
    newest: Option<(u32, i64)>,
}

impl Member {
    fn note(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let what = words.next();
        let numbers: Vec<i64> = words.filter_map(|w| w.parse().ok()).collect();
        let partition = |at: usize| u32::try_from(numbers[at]).expect("a partition");
        self.newest = None;
        match what {
            Some("assigned") => self.assigned = (0..numbers.len()).map(partition).collect(),
            Some("read") => {
                self.newest = Some((partition(0), numbers[1]));
                self.read.extend(self.newest);
            }
            Some("committed") => drop(self.committed.insert(partition(0), numbers[1])),
            _ => panic!("a member said: {line}"),
        }
    }
}

#[test]
fn the_survivor_of_a_killed_member_goes_on_where_it_committed() {
    const MESSAGES: usize = 1200;
    let (Some(venv), Some(_)) = (venv(), kcat()) else {
        return;
    };
    for subject in Subject::each() {
        let brokers = subject.brokers.as_str();
        let created = ["--create", "--topic", "shared", "--partitions", "4"];
        let at = ["--bootstrap-server", brokers];
        printed(kafka_tool("TopicCommand", at).args(created), "");
        let member = |reads: &str| {
            let mut command = venv.python();
            command.arg(clients().join("member.py"));
            let args = [brokers, "shared-group", "shared", reads];
            Process::spawn(command.args(args), None)
        };
        let (mut killed, survivor) = (member("50"), member("1000000"));
        let (mut first, mut second) = (Member::default(), Member::default());
        let deadline = Instant::now() + PATIENCE;
        while first.assigned.len() != 2 || second.assigned.len() != 2 {
            assert!(
                Instant::now() < deadline,
                "they do not share the partitions"
            );
            for (process, member) in [(&killed, &mut first), (&survivor, &mut second)] {
                while let Ok(line) = process.lines.recv_timeout(Duration::from_millis(20)) {
                    member.note(&line);
                }
            }
        }

        let lines = |mut text: String, i| {
            writeln!(text, "k{i}:v{i}").expect("a string");
            text
        };
        let lines = (0..MESSAGES).fold(String::new(), lines);
        let mut produce = kcat().expect("it is there");
        produce.args(["-P", "-b", brokers, "-t", "shared", "-K", ":"]);
        printed(&produce, &lines);
        while first.read.len() < 50 {
            first.note(&killed.next());
        }
        killed.child.kill().expect("the process is ours");
        assert_eq!(killed.code(), None, "a signal ended it");
        killed.rest().iter().for_each(|line| first.note(line));

        let mut taken: BTreeMap<u32, i64> = BTreeMap::new();
        while taken.len() < 2 || first.read.union(&second.read).count() < MESSAGES {
            second.note(&survivor.next());
            if second.assigned.len() == 4
                && let Some((partition, offset)) = second.newest
                && first.assigned.contains(&partition)
            {
                taken.entry(partition).or_insert(offset);
            }
        }
        for (partition, from) in taken {
            let committed = first.committed.get(&partition).copied().unwrap_or(0);
            assert_eq!(from, committed, "partition {partition} on {}", subject.name);
        }
        drop(survivor);
        subject.end();
    }
}

#[test]
fn debians_kcat() {
    let Some(_) = kcat() else { return };
    for subject in Subject::each() {
        let kcat = |args: &[&str], input: &str| {
            let mut command = kcat().expect("it is there");
            command.args(["-q", "-b", &subject.brokers]).args(args);
            printed(&command, input)
        };
        let consume = |args: &[&str]| {
            let mut all = vec!["-C", "-e", "-t", "kcat"];
            all.extend(args);
            kcat(&all, "")
        };
        // Keys, an empty value as null, a header; the topic is made by the first message.
        let produce = ["-P", "-t", "kcat", "-p", "0", "-K", ":", "-Z", "-H", "h=1"];
        kcat(&produce, "a:1\nb:2\nc:\n");
        let all = consume(&["-o", "beginning", "-f", "%p %o %k %s %S %h\n"]);
        assert_eq!(
            all, "0 0 a 1 1 h=1\n0 1 b 2 1 h=1\n0 2 c  -1 h=1\n",
            "on {}",
            subject.name
        );
        for codec in ["gzip", "snappy", "lz4", "zstd"] {
            kcat(
                &["-P", "-t", "kcat", "-p", "0", "-z", codec],
                &format!("{codec}\n").repeat(50),
            );
        }
        let values = consume(&["-o", "3", "-f", "%s\n"]);
        let packed = ["gzip", "snappy", "lz4", "zstd"].map(|codec| format!("{codec}\n").repeat(50));
        assert_eq!(values, packed.concat(), "on {}", subject.name);
        assert_eq!(consume(&["-o", "-2", "-f", "%o\n"]), "201\n202\n");
        assert_eq!(consume(&["-o", "100", "-c", "1", "-f", "%o\n"]), "100\n");

        // Offsets by time: the first message of all, and of a time after the last.
        let when: i64 = consume(&["-c", "1", "-o", "0", "-f", "%T\n"])
            .trim()
            .parse()
            .expect("a time");
        let query = |time: i64| kcat(&["-Q", "-t", &format!("kcat:0:{time}")], "");
        assert_eq!(query(when), "kcat [0] offset 0\n", "on {}", subject.name);
        assert_eq!(query(-1), "kcat [0] offset 203\n", "on {}", subject.name);
        let since = consume(&["-o", &format!("s@{when}"), "-f", "%o\n"]);
        assert_eq!(since.lines().count(), 203, "on {}", subject.name);

        let group = [
            "-X",
            "auto.offset.reset=earliest",
            "-f",
            "%o\n",
            "-e",
            "-G",
            "kcat-group",
            "kcat",
        ];
        assert_eq!(kcat(&group, "").lines().count(), 203, "on {}", subject.name);
        assert_eq!(
            kcat(&group, ""),
            "",
            "on {}: the group has read all",
            subject.name
        );

        let list = kcat(&["-L"], "");
        assert!(list.contains(&format!("at {}", subject.brokers)), "{list}");
        assert!(list.contains("topic \"kcat\" with 1 partitions:"), "{list}");
        let list: serde_json::Value =
            serde_json::from_str(&kcat(&["-L", "-J", "-t", "kcat"], "")).expect("JSON");
        assert_eq!(
            list["topics"][0]["partitions"][0]["leader"],
            list["brokers"][0]["id"]
        );
        subject.end();
    }
}

#[test]
fn the_java_client() {
    if !have(&["java", "javac", "mvn"]) {
        return;
    }
    let classes = tempfile::tempdir().expect("a temporary folder");
    kafka_compile(&clients().join("java/JavaClient.java"), classes.path());
    for subject in Subject::each() {
        let mut client = kafka_tool("falaj.clients.JavaClient", [&subject.brokers, subject.name]);
        let said = printed(client.env("CLASSPATH", classes.path()), "");
        eprintln!("the Java client on {}:\n{said}", subject.name);
        assert_eq!(
            said.lines().filter(|l| l.starts_with("ok ")).count(),
            4,
            "{said}"
        );
        subject.end();
    }
}

/// Kafka's command-line tools on one broker. Each call is a JVM.
struct Tools<'a> {
    subject: &'a Subject,
    folder: &'a Path,
}

impl Tools<'_> {
    fn with_input(&self, class: &str, args: &str, input: &str) -> String {
        let mut command = kafka_tool(class, ["--bootstrap-server", &self.subject.brokers]);
        let said = printed(command.args(args.split_whitespace()), input);
        eprintln!("{class} {args} on {}:\n{said}", self.subject.name);
        said
    }

    fn run(&self, class: &str, args: &str) -> String {
        self.with_input(class, args, "")
    }

    fn topics(&self) {
        let made = self.run("TopicCommand", "--create --topic messages --partitions 2");
        assert!(made.contains("Created topic messages."), "{made}");
        let mut again = kafka_tool(
            "TopicCommand",
            ["--bootstrap-server", &self.subject.brokers],
        );
        let again = run(again.args(["--create", "--topic", "messages"]), "");
        assert!(!again.status.success(), "it was made twice");
        let said = format!("{}{}", stdout(&again), stderr(&again));
        assert!(said.contains("Topic 'messages' already exists"), "{said}");
        let list = self.run("TopicCommand", "--list");
        assert!(list.lines().any(|line| line == "messages"), "{list}");
        let shown = self.run("TopicCommand", "--describe --topic messages");
        assert!(shown.contains("PartitionCount: 2"), "{shown}");
        assert_eq!(shown.matches("Leader: ").count(), 2, "{shown}");
        assert!(!shown.contains("Leader: none"), "{shown}");
    }

    fn records(&self) {
        let keyed =
            "--topic messages --reader-property parse.key=true --reader-property key.separator=:";
        self.with_input("ConsoleProducer", keyed, "k1:v1\nk2:v2\nk3:v3\nk4:v4\n");
        let all = "--topic messages --from-beginning --max-messages 4 --timeout-ms 60000 \
                   --formatter-property print.key=true";
        let read = self.run("ConsoleConsumer", all);
        let read: BTreeSet<&str> = read.lines().collect();
        assert_eq!(read, ["k1\tv1", "k2\tv2", "k3\tv3", "k4\tv4"].into());
        let three =
            "--topic messages --from-beginning --max-messages 3 --timeout-ms 60000 --group tools";
        assert_eq!(self.run("ConsoleConsumer", three).lines().count(), 3);
    }

    /// Lag of the group, over all partitions.
    fn lag(&self) -> i64 {
        let shown = self.run("ConsumerGroupCommand", "--describe --group tools");
        let rows = shown.lines().filter(|line| line.starts_with("tools"));
        // GROUP TOPIC PARTITION CURRENT-OFFSET LOG-END-OFFSET LAG ..; `-` where nothing was committed.
        rows.map(|row| {
            let words: Vec<&str> = row.split_whitespace().collect();
            let number = |at: usize| words[at].parse::<i64>().unwrap_or(0);
            assert!(number(4) >= number(3), "{shown}");
            number(4) - number(3)
        })
        .sum()
    }

    fn groups(&self) {
        assert_eq!(self.lag(), 1, "three of four were read");
        let moved = "--group tools --topic messages --reset-offsets --to-earliest --execute";
        self.run("ConsumerGroupCommand", moved);
        assert_eq!(self.lag(), 4);
        let list = self.run("ConsumerGroupCommand", "--list");
        assert!(list.lines().any(|line| line == "tools"), "{list}");
    }

    fn offsets_and_settings(&self) {
        let newest = |said: &str| -> i64 {
            let ends = said
                .lines()
                .filter_map(|line| line.strip_prefix("messages:"));
            ends.map(|line| {
                line.split(':')
                    .nth(1)
                    .and_then(|n| n.parse::<i64>().ok())
                    .expect("an offset")
            })
            .sum()
        };
        assert_eq!(newest(&self.run("GetOffsetShell", "--topic messages")), 4);
        let changed =
            "--alter --entity-type topics --entity-name messages --add-config retention.ms=60000";
        self.run("ConfigCommand", changed);
        let shown = self.run(
            "ConfigCommand",
            "--describe --entity-type topics --entity-name messages",
        );
        assert!(shown.contains("retention.ms=60000"), "{shown}");

        let file = self.folder.join(format!("{}.json", self.subject.name));
        let places: Vec<_> = [0, 1]
            .map(|partition| serde_json::json!({"topic": "messages", "partition": partition, "offset": -1}))
            .into();
        let json = serde_json::json!({"version": 1, "partitions": places}).to_string();
        std::fs::write(&file, json).expect("the folder can be written");
        let deleted = self.run(
            "DeleteRecordsCommand",
            &format!("--offset-json-file {}", file.display()),
        );
        assert_eq!(deleted.matches("low_watermark").count(), 2, "{deleted}");
        let earliest = self.run("GetOffsetShell", "--topic messages --time earliest");
        assert_eq!(newest(&earliest), 4, "all were deleted");
        let versions = self.run("BrokerApiVersionsCommand", "");
        assert!(versions.contains("Produce(0)"), "{versions}");
        assert!(!versions.contains("ERROR"), "{versions}");
    }
}

#[test]
fn kafkas_own_command_line_tools() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let messages = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    for subject in Subject::each() {
        let tools = Tools {
            subject: &subject,
            folder: folder.path(),
        };
        tools.topics();
        tools.records();
        tools.groups();
        tools.offsets_and_settings();
        tools.run("TopicCommand", "--alter --topic messages --partitions 3");
        tools.run("ConsumerGroupCommand", "--delete --group tools");
        tools.run("TopicCommand", "--delete --topic messages");
        let left = tools.run("TopicCommand", "--list");
        assert!(!left.lines().any(|line| line == "messages"), "{left}");
        subject.end();
    }
    drop(messages);
}
