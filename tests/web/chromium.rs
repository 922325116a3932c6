//! A headless Chromium, driven over its `DevTools` pipe.
//!
//! A pipe and not `--dump-dom`: the page's event stream never ends, and Chromium's virtual time waits
//! for every open request. The pipe needs no port and no library.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// A test that takes longer hangs: its browser is ended, and so is the test.
const PATIENCE: Duration = Duration::from_mins(3);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 600;

/// A page in a browser of its own.
pub struct Page {
    child: Arc<Mutex<Child>>,
    to: File,
    from: BufReader<File>,
    calls: u64,
    session: Option<String>,
    /// Addresses that were asked for.
    pub requests: Vec<String>,
    /// Errors, warnings and refused requests.
    pub complaints: Vec<String>,
    _done: Sender<()>,
    _profile: TempDir,
}

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .flat_map(|folder| BROWSERS.map(|name| folder.join(name)))
        .find(|file| file.is_file())
}

impl Page {
    /// An empty page of that width; none where there is no browser (on CI that is a failure).
    pub fn open(width: u32) -> Option<Self> {
        let Some(browser) = browser() else {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "no Chromium on the PATH: `apt-get install chromium`");
            eprintln!("SKIPPED: no Chromium on the PATH, so nobody looked at the page");
            return None;
        };
        let profile = tempfile::tempdir().expect("a folder for the browser");
        let [ask, answer] = ["ask", "answer"].map(|name| profile.path().join(name));
        let made = Command::new("mkfifo")
            .args([&ask, &answer])
            .status()
            .expect("mkfifo is there");
        assert!(made.success());
        // The shell puts the pipes where the browser wants them: descriptors 3 and 4.
        let child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<\"$ASK\" 4>\"$ANSWER\"", "sh"])
            .arg(browser)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args(["--disable-component-update", "--disable-dev-shm-usage"])
            .args([
                "--remote-debugging-pipe",
                "--disable-lcd-text",
                "about:blank",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .envs([("ASK", &ask), ("ANSWER", &answer)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let child = Arc::new(Mutex::new(child));
        let (done, wait) = channel::<()>();
        let watched = child.clone();
        thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = watched.lock().map(|mut child| child.kill());
            }
        });
        // In the shell's order: each side waits for the other to open.
        let to = OpenOptions::new()
            .write(true)
            .open(ask)
            .expect("the pipe to the browser");
        let from = BufReader::new(File::open(answer).expect("the pipe from the browser"));
        let mut page = Self {
            child,
            to,
            from,
            calls: 0,
            session: None,
            requests: vec![],
            complaints: vec![],
            _done: done,
            _profile: profile,
        };
        page.attach(width);
        Some(page)
    }

    fn attach(&mut self, width: u32) {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}));
        let session = self.call(
            "Target.attachToTarget",
            &json!({"targetId": target["targetId"], "flatten": true}),
        );
        self.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Runtime", "Log", "Network", "Page"] {
            self.call(&format!("{domain}.enable"), &json!({}));
        }
        let size = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Opens an address.
    pub fn go(&mut self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// Value of an expression (of what it promises).
    pub fn value(&mut self, expression: &str) -> Value {
        let call = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut answer = self.call("Runtime.evaluate", &call);
        assert!(
            answer.get("exceptionDetails").is_none(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        for _ in 0..LOOKS_MAX {
            if self.value(expression) == json!(true) {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
        let text = self.value("document.body.innerText");
        panic!(
            "never true: {expression}\ncomplaints: {:?}\npage: {text}",
            self.complaints
        );
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut call = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            call["sessionId"] = json!(session);
        }
        let mut bytes = call.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let mut message = Vec::new();
            self.from
                .read_until(0, &mut message)
                .expect("the browser answers");
            assert_eq!(
                message.pop(),
                Some(0),
                "the browser ended while asked for {method}"
            );
            let mut message: Value =
                serde_json::from_slice(&message).expect("the browser says JSON");
            if message["id"] == json!(self.calls) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                self.requests.push(url.to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(params.to_string()),
            "Log.entryAdded" => self.complaints.push(params["entry"]["text"].to_string()),
            "Runtime.consoleAPICalled" => self.complaints.push(params["args"].to_string()),
            _ => {}
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self
            .to
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        if let Ok(mut child) = self.child.lock() {
            // It ends by itself; where it does not, it is ended.
            for _ in 0..50 {
                if child.try_wait().is_ok_and(|ended| ended.is_some()) {
                    return;
                }
                thread::sleep(LOOK_EVERY);
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
