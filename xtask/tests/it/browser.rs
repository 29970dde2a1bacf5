//! A headless Chromium, driven by its chromedriver: WebDriver's protocol is JSON over HTTP.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::Engine;
use serde_json::{Value, json};

pub(crate) struct Browser {
    driver: Child,
    session: String,
}

impl Browser {
    pub(crate) fn start() -> Browser {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver isn't on PATH: `cargo xtask ci` installs it on Debian");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|it| {
            it.unwrap()
                .split_once("successfully on port ")
                .map(|(_, port)| port.trim_end_matches('.').to_owned())
        });
        let mut browser = Browser {
            driver,
            session: format!("http://127.0.0.1:{}/session", port.unwrap()),
        };
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-sync",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-quic",
            "--window-size=1200,700",
        ];
        let wanted =
            json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": {"args": args}}}});
        let session = browser.call("POST", "", wanted);
        browser.session += &format!("/{}", session["sessionId"].as_str().unwrap());
        browser
    }

    pub(crate) fn open(&self, url: &str) {
        self.call("POST", "/url", json!({"url": url}));
    }

    pub(crate) fn wait_for(&self, selector: &str) {
        self.wait(selector, || !self.texts(selector).is_empty());
    }

    pub(crate) fn wait_for_text(&self, selector: &str, text: &str) {
        self.wait(text, || {
            self.texts(selector).iter().any(|it| it.contains(text))
        });
    }

    pub(crate) fn click(&self, selector: &str) {
        self.call(
            "POST",
            &format!("/element/{}/click", self.element(selector)),
            json!({}),
        );
    }

    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        self.call(
            "POST",
            &format!("/element/{}/value", self.element(selector)),
            json!({"text": text}),
        );
    }

    /// Into target/tmp, for people to look at.
    pub(crate) fn screenshot(&self, name: &str) {
        let picture = self.call("GET", "/screenshot", Value::Null);
        let picture = base64::engine::general_purpose::STANDARD
            .decode(picture.as_str().unwrap())
            .unwrap();
        fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), picture).unwrap();
    }

    fn wait(&self, what: &str, condition: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !condition() {
            if Instant::now() > until {
                self.screenshot("failed.png");
                panic!("{what} doesn't come; the page is target/tmp/failed.png");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn texts(&self, selector: &str) -> Vec<String> {
        let script = "return [...document.querySelectorAll(arguments[0])].map(it => it.innerText)";
        let texts = self.call(
            "POST",
            "/execute/sync",
            json!({"script": script, "args": [selector]}),
        );
        serde_json::from_value(texts).unwrap()
    }

    fn element(&self, selector: &str) -> String {
        let element = self.call(
            "POST",
            "/element",
            json!({"using": "css selector", "value": selector}),
        );
        element
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let url = format!("{}{path}", self.session);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(&url)
            .body(body)
            .unwrap();
        let text = agent
            .run(request)
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        let value = answer["value"].take();
        assert!(value.get("error").is_none(), "{method} {path}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closes the browser, which would outlive its driver.
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
