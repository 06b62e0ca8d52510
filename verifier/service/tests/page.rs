//! The page for people, in a browser: what it shows of accepted, refused and malformed evidence, with the keyboard alone, in 320 pixels, and
//! what it cannot be made to do. Pictures lie in the folder that each test prints.
//!
//! The browser is Debian's `chromium`, driven over a pipe; a machine without one says so, and the tests of the browser are not run.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use coffer_verifier::abi::ProductLine;

use crate::common::{Running, asks, evidence, now, with};
use crate::simulated::installation;

/// A browser that does nothing for so long does not work.
const PATIENCE: Duration = Duration::from_mins(2);

/// One page of a browser.
struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    events: VecDeque<Value>,
    session: Option<String>,
    calls: u64,
    _profile: tempfile::TempDir,
}

impl Browser {
    fn start() -> Option<Self> {
        let found = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()));
        let Some(program) = found else {
            eprintln!("no chromium on this machine: the page was not tried in a browser (make setup installs it)");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        // The protocol is spoken on descriptors 3 and 4.
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#, "sh", program])
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (said, from) = channel();
        std::thread::spawn(move || {
            let mut out = BufReader::new(out);
            let mut message = Vec::new();
            while out.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                let value = serde_json::from_slice(message.strip_suffix(&[0]).unwrap_or(&message));
                if value.is_ok_and(|value| said.send(value).is_err()) {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Self { child, to, from, events: VecDeque::new(), session: None, calls: 0, _profile: profile };
        let made = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &target);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page", "Runtime", "Log", "Audits"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser.call("Page.setInterceptFileChooserDialog", &json!({ "enabled": true }));
        Some(browser)
    }

    fn next(&self) -> Value {
        self.from.recv_timeout(PATIENCE).expect("the browser says nothing any more")
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.next();
            if answer["id"] == self.calls {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push_back(answer);
        }
    }

    fn event(&mut self, method: &str) -> Value {
        if let Some(at) = self.events.iter().position(|event| event["method"] == method) {
            return self.events.remove(at).unwrap()["params"].take();
        }
        loop {
            let mut event = self.next();
            if event["method"] == method {
                return event["params"].take();
            }
            self.events.push_back(event);
        }
    }

    /// The value of an expression, or of what it promises.
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut said = self.call("Runtime.evaluate", &params);
        assert!(said["exceptionDetails"].is_null(), "{expression}: {said}");
        said["result"]["value"].take()
    }

    fn open(&mut self, url: &str, width: u32) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        self.call("Page.navigate", &json!({ "url": url }));
        self.event("Page.loadEventFired");
    }

    /// Waits until the page says that it has come to this.
    fn reaches(&mut self, state: &str) {
        let reached = self.value(
            "new Promise((done) => { const main = document.getElementById('main'); const look = () => { \
             if (main.dataset.state !== 'asking' && main.dataset.state !== 'ready') done(main.dataset.state); }; \
             new MutationObserver(look).observe(main, { attributes: true }); look(); })",
        );
        assert_eq!(reached, state, "{}", self.text());
    }

    fn text(&mut self) -> String {
        self.value("document.body.innerText").as_str().unwrap().to_owned()
    }

    fn press(&mut self, key: &str, code: u32, text: &str) {
        let down = json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text });
        self.call("Input.dispatchKeyEvent", &down);
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", &up);
    }

    fn tab_to(&mut self, id: &str) {
        for _ in 0..30 {
            if self.value("document.activeElement.id") == id {
                return;
            }
            self.press("Tab", 9, "");
        }
        panic!("the keyboard does not get to {id}");
    }

    fn write(&mut self, id: &str, text: &str) {
        self.tab_to(id);
        self.call("Input.insertText", &json!({ "text": text }));
    }

    fn push(&mut self, id: &str) {
        self.tab_to(id);
        self.value("document.getElementById('main').dataset.state = 'asking'");
        self.press("Enter", 13, "\r");
    }

    fn choose(&mut self, id: &str, file: &Path) {
        self.tab_to(id);
        self.press(" ", 32, " ");
        let opened = self.event("Page.fileChooserOpened");
        let files = json!({ "files": [file], "backendNodeId": opened["backendNodeId"] });
        self.call("DOM.setFileInputFiles", &files);
    }

    /// Drops files on the page, each with a name of its own.
    fn drops(&mut self, files: &[(&str, &[u8])]) {
        let files: Vec<_> = files.iter().map(|(name, bytes)| json!([name, STANDARD.encode(bytes)])).collect();
        self.value("document.getElementById('taken').replaceChildren()");
        self.value(&format!(
            "(() => {{ const all = new DataTransfer(); for (const [name, text] of {}) \
             all.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name)); \
             document.getElementById('drop').dispatchEvent(new DragEvent('drop', {{ dataTransfer: all, cancelable: true }})); }})()",
            json!(files)
        ));
    }

    /// What the page says that it took, once it says something.
    fn taken(&mut self) -> String {
        let said = self.value(
            "new Promise((done) => { const taken = document.getElementById('taken'); const look = () => { \
             if (taken.children.length) done(taken.innerText); }; \
             new MutationObserver(look).observe(taken, { childList: true }); look(); })",
        );
        said.as_str().unwrap().to_owned()
    }

    fn picture(&mut self, name: &str) {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": true }));
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        assert!(png.starts_with(b"\x89PNG") && png.len() > 5000, "{} bytes", png.len());
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), png).unwrap();
        println!("{}", folder.join(name).display());
    }

    fn fits(&mut self, width: u32) {
        let wide = "[...document.querySelectorAll('*')].filter((one) => one.getBoundingClientRect().right > innerWidth + 1)\
                    .map((one) => one.tagName + '.' + one.className + '#' + one.id)";
        let found = self.value(&format!("[document.documentElement.scrollWidth, {wide}]"));
        assert!(found[0].as_u64().unwrap() <= u64::from(width) && found[1] == json!([]), "{found}");
    }

    /// Whatever the browser complained of, but for the status of an answer that the test asked for.
    fn complaints(&mut self) -> Vec<Value> {
        // What was said before this is there after it.
        self.value("1");
        let said = self.events.iter().filter(|event| {
            let (method, params) = (event["method"].as_str().unwrap_or_default(), &event["params"]);
            match method {
                "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" => true,
                "Audits.issueAdded" => params["issue"]["code"] == "ContentSecurityPolicyIssue",
                "Log.entryAdded" => {
                    let entry = &params["entry"];
                    entry["level"] == "error"
                        && !entry["text"]
                            .as_str()
                            .unwrap_or_default()
                            .contains("the server responded with a status of 4")
                }
                _ => false,
            }
        });
        said.cloned().collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A service with pages, and files to drop on them.
async fn service() -> (Running, PathBuf, PathBuf) {
    let service = Running::with(|file| file.default_policy = Some("lab".into())).await;
    let (good, odd) = (service.folder.path().join("good.cmw"), service.folder.path().join("odd.bin"));
    std::fs::write(&good, evidence(now(), [0x22; 64]).to_cmw()).unwrap();
    std::fs::write(&odd, b"<img src=x onerror=alert(1)>").unwrap();
    (service, good, odd)
}

async fn in_browser(service: Running, look: impl FnOnce(&mut Browser, String, String) + Send + 'static) {
    let (url, key) = (service.url("/"), service.key.clone());
    let looking = tokio::task::spawn_blocking(move || {
        let Some(mut browser) = Browser::start() else { return };
        look(&mut browser, url, key);
        assert_eq!(browser.complaints(), [Value::Null; 0]);
    });
    looking.await.unwrap();
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_judged_with_the_keyboard_alone() {
    let (service, good, odd) = service().await;
    let address = service.address;
    in_browser(service, move |browser, url, key| {
        browser.open(&url, 1000);
        browser.write("key", "coffer-verifier-wrong");
        browser.push("use");
        browser.reaches("not-let-in");
        assert_eq!(browser.value("document.getElementById('judge').disabled"), true);
        browser.value("document.getElementById('key').value = ''");
        browser.write("key", &key);
        browser.push("use");
        browser.reaches("entered");
        assert_eq!(browser.value("document.getElementById('policy').value"), "lab");

        browser.choose("file", &good);
        browser.push("judge");
        browser.reaches("not-judged");
        assert!(browser.text().contains("one of the two"), "nothing is waived by leaving it out");
        browser.tab_to("any");
        browser.press(" ", 32, " ");
        browser.push("judge");
        browser.reaches("accepted");
        let text = browser.text();
        for part in [
            "accepted",
            "SIMULATED",
            "by policy lab",
            "measurement-and-workload",
            "REPORT_DATA was not compared",
            "AMD-SB-",
            "next by",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(browser.value("document.activeElement.id"), "result", "a reader is led to what is new");
        browser.picture("accepted.png");

        browser.tab_to("policy");
        browser.value("document.getElementById('policy').value = 'strict'");
        browser.push("judge");
        browser.reaches("not-authentic");
        assert!(browser.text().contains("untrusted-root"), "{}", browser.text());
        browser.picture("not-authentic.png");

        browser.choose("file", &odd);
        browser.push("judge");
        browser.reaches("not-judged");
        assert!(browser.text().contains("malformed-evidence"), "{}", browser.text());
        assert_eq!(browser.value("document.images.length"), 0);
        browser.picture("malformed.png");

        browser.push("show");
        browser.reaches("listed");
        let text = browser.text();
        assert!(text.contains("2 of 2 since it started") && text.contains("key test"), "{text}");
        let asked = browser.value("performance.getEntriesByType('resource').map((one) => one.name)");
        let own = format!("http://{address}/");
        assert!(asked.as_array().unwrap().iter().all(|one| one.as_str().unwrap().starts_with(&own)), "{asked}");
    })
    .await;
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_is_is_told_by_its_content_and_never_by_its_name() {
    let (service, _, odd) = service().await;
    let (made, line) = (installation(), ProductLine::Genoa);
    let (time, anchor) = (now(), made.anchor(line).unwrap().ark.to_vec());
    let leaf = made.issue_vcek(line, coffer_simulator::default_tcb(line), time).unwrap();
    let (intermediate, list) = (made.ask(line).unwrap().to_vec(), made.crl(line, time).unwrap());
    let report = evidence(time, [0x22; 64]).report;
    let lying = service.folder.path().join("report.bin");
    std::fs::write(&lying, &leaf).unwrap();
    in_browser(service, move |browser, url, key| {
        browser.open(&url, 320);
        browser.write("key", &key);
        browser.push("use");
        browser.reaches("entered");
        let chain = pem("CERTIFICATE", &intermediate) + &pem("CERTIFICATE", &anchor);
        let all = format!("made by hand\n{chain}{}", pem("X509 CRL", &list));
        browser.drops(&[("crl.bin", &report), ("crl.der", &leaf), ("report.txt", all.as_bytes())]);
        let said = browser.taken();
        for line in [
            "crl.bin: the evidence, report",
            "crl.der: a certificate, DER",
            "report.txt: 2 certificates and a revocation list, PEM",
        ] {
            assert!(said.lines().any(|one| one == line), "{line}: {said}");
        }
        browser.fits(320);
        browser.tab_to("any");
        browser.press(" ", 32, " ");
        browser.push("judge");
        browser.reaches("accepted");
        assert!(browser.text().contains("crl.bin, by policy lab"), "{}", browser.text());
        browser.drops(&[("vcek.der", &list), ("report.txt", chain.as_bytes()), ("ask.crl", &leaf)]);
        let said = browser.taken();
        assert!(said.contains("vcek.der: a revocation list, DER") && said.contains("ask.crl: a certificate"), "{said}");
        browser.push("judge");
        browser.reaches("accepted");
        // What belongs elsewhere is said, and nothing is sent.
        browser.choose("beside", &odd);
        browser.push("judge");
        browser.reaches("not-judged");
        assert!(
            browser.text().contains("odd.bin is neither a certificate nor a revocation list"),
            "{}",
            browser.text()
        );
        browser.choose("file", &lying);
        browser.push("judge");
        browser.reaches("not-judged");
        assert!(browser.text().contains("report.bin is a certificate, and no evidence"), "{}", browser.text());
        browser.drops(&[("one", &report), ("two", &report)]);
        assert!(browser.taken().contains("evidence is judged one by one"), "{}", browser.text());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_late_is_not_shown_as_one_about_another_file() {
    let (service, good, odd) = service().await;
    in_browser(service, move |browser, url, key| {
        browser.open(&url, 800);
        browser.write("key", &key);
        browser.push("use");
        browser.reaches("entered");
        // The first answer is held back until it is let go.
        browser.value(
            "(() => { const real = window.fetch; let held = false; window.fetch = async (...all) => { \
             const answer = await real(...all); if (!held) { held = true; await new Promise((go) => { window.go = go; }); } \
             return answer; }; })()",
        );
        browser.tab_to("any");
        browser.press(" ", 32, " ");
        browser.choose("file", &good);
        browser.push("judge");
        browser.value("new Promise((done) => { const look = () => window.go ? done(1) : setTimeout(look, 10); look(); })");
        browser.choose("file", &odd);
        browser.push("judge");
        browser.reaches("not-judged");
        assert!(browser.text().contains("malformed-evidence"), "{}", browser.text());
        browser.value("(() => { window.go(); return new Promise((done) => setTimeout(done, 300)); })()");
        assert!(!browser.text().contains("accepted"), "{}", browser.text());
        browser.reaches("not-judged");
        // Nor one that came in time, once another file or policy is chosen.
        let result = |browser: &mut Browser| browser.value("document.getElementById('result').textContent");
        for other in ["file", "policy"] {
            browser.choose("file", &good);
            browser.push("judge");
            browser.reaches("accepted");
            assert!(result(browser).to_string().contains("accepted"));
            if other == "file" {
                browser.choose("file", &odd);
            } else {
                browser.value("document.getElementById('policy').dispatchEvent(new Event('input'))");
            }
            browser.value(
                "new Promise((done) => { const look = () => document.getElementById('main').dataset.state === 'ready' \
                 ? done(1) : setTimeout(look, 10); look(); })",
            );
            assert_eq!(result(browser), "");
        }
        // What cannot be listed takes nothing away.
        browser.push("judge");
        browser.reaches("accepted");
        browser.value("window.fetch = async () => { throw new Error('away'); }");
        browser.push("show");
        browser.reaches("not-listed");
        assert!(result(browser).to_string().contains("accepted"));
        assert!(browser.text().contains("Not shown"), "{}", browser.text());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_fits_in_320_pixels() {
    let (service, _, _) = service().await;
    let refused = service.folder.path().join("refused.cmw");
    std::fs::write(&refused, evidence(now(), [0xff; 64]).to_cmw()).unwrap();
    in_browser(service, move |browser, url, key| {
        browser.open(&url, 320);
        browser.fits(320);
        browser.write("key", &key);
        browser.push("use");
        browser.reaches("entered");
        browser.choose("file", &refused);
        browser.value("document.getElementById('policy').value = 'gated'");
        browser.write("data", &"ff".repeat(64));
        browser.push("judge");
        browser.reaches("refused");
        assert!(browser.text().contains("gate: it begins with ff"), "{}", browser.text());
        browser.fits(320);
        browser.picture("refused-320.png");
        browser.push("show");
        browser.reaches("listed");
        browser.fits(320);
        browser.picture("decisions-320.png");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_runs_nothing_that_is_not_the_pages_own() {
    let (service, _, _) = service().await;
    in_browser(service, move |browser, url, _| {
        browser.open(&url, 800);
        let tried = browser.value(
            "(() => { const out = []; \
             try { document.body.innerHTML = '<b>x</b>'; out.push('html'); } catch (e) {} \
             const script = document.createElement('script'); \
             try { script.textContent = 'window.ran = 1'; document.body.append(script); } catch (e) {} \
             const image = document.createElement('div'); \
             try { image.setAttribute('onclick', 'window.ran = 1'); document.body.append(image); image.click(); } catch (e) {} \
             return [out, window.ran === undefined]; })()",
        );
        assert_eq!(tried, json!([[], true]));
        let sent = browser.value("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'not sent')");
        assert_eq!(sent, "not sent");
        let stopped = browser.complaints();
        assert!(stopped.len() >= 2, "{stopped:?}");
        browser.events.clear();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_anybodys_and_what_was_decided_is_callers_alone() {
    let (service, _, _) = service().await;
    let page = service.client.get(service.url("/")).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let headers = page.headers().clone();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    let policy = headers["content-security-policy"].to_str().unwrap();
    for part in ["default-src 'none'", "script-src 'sha256-", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(service.client.get(service.url("/v1/decisions")).send().await.unwrap().status(), 401);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_thousand_decisions_are_held_and_no_evidence() {
    let service = Running::start().await;
    let request = with(asks(&evidence(now(), [0xab; 64])), json!({ "policy": "lab" }));
    let batch = json!({ "requests": vec![request.clone(); 59] });
    for _ in 0..17 {
        assert_eq!(service.post("/v1/appraise/batch", &batch).await.status(), 200);
    }
    let refused = with(asks(&evidence(now(), [0xff; 64])), json!({ "policy": "gated", "token": { "audience": "me" } }));
    service.appraise(&refused).await;
    // What is not judged is no decision.
    service.appraise(&with(request, json!({ "policy": "nosuch" }))).await;
    let text = service.get("/v1/decisions").await.text().await.unwrap();
    let said: Value = serde_json::from_str(&text).unwrap();
    let decisions = said["decisions"].as_array().unwrap();
    assert_eq!((said["made"].as_u64(), decisions.len()), (Some(1004), 1000));
    assert_eq!((decisions[0]["number"].as_u64(), decisions[999]["number"].as_u64()), (Some(1004), Some(5)));
    let last = &decisions[0];
    assert_eq!(
        (&last["verdict"], &last["caller"], &last["token"]),
        (&json!("refused"), &json!("key test"), &json!(true))
    );
    assert_eq!(last["reasons"][0]["code"], "rego");
    assert_eq!(decisions[1]["reasons"], json!([]));
    assert!(!text.contains(&"ab".repeat(32)) && !text.contains("eyJ"), "neither REPORT_DATA nor a token");
    service.stop().await;
}
