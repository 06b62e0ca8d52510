//! `coffer sim` and `coffer measure --firmware`, as a user calls them.

use crate::vectors;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use coffer_verifier::abi::SpkiDigest;
use coffer_verifier::{
    CrlPolicy, Endorsements, Evidence, EvidencePolicy, ExpectedReportData, TrustAnchors, UnixTime, appraise,
    verify_evidence,
};
use serde_json::Value;

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");
fn coffer(home: &Path, args: &[&str]) -> Output {
    Command::new(COFFER).env("COFFER_HOME", home).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(output)))
}

const VERIFY: &str = "verify \"$COFFER_EVIDENCE\" --allow-simulated --anchor $COFFER_ANCHOR --policy \"$COFFER_POLICY\" --report-data $COFFER_REPORT_DATA";

#[test]
fn our_verifier_passes_its_own_check_on_every_product_in_one_run() {
    let home = tempfile::tempdir().unwrap();
    let command = format!("'{COFFER}' {VERIFY}");
    let junit = home.path().join("check.xml");
    let args = ["--json", "sim", "check", "--strict", "--junit", junit.to_str().unwrap(), "--cmd", &command];
    let ours = coffer(home.path(), &args);
    assert_eq!(ours.status.code(), Some(0), "{}", text(&ours));
    let report = json(&ours);
    assert_eq!((report["verdict"].as_str(), report["wrong"].as_u64()), (Some("right"), Some(0)));
    assert_eq!(report["products"].as_array().unwrap().len(), 3);
    let results = report["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["group"].is_string() && result["what"].is_string()));
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains(&format!("<testsuites tests=\"{}\" failures=\"0\">", results.len() + 3)), "{xml}");
}

#[test]
fn what_a_verifier_leaves_behind_is_gone_also_where_it_left_its_session() {
    let home = tempfile::tempdir().unwrap();
    let pids = home.path().join("pids");
    let script = home.path().join("leaves.sh");
    for (end, timeout) in [("exit 6", "60"), ("sleep 600", "10")] {
        std::fs::write(&pids, "").unwrap();
        // One that left its session and has nothing of ours in its environment, and a daemon of that one.
        let inner = format!("echo \\$\\$ >> {0}; exec sleep 600", pids.display());
        let outer = format!("echo $$ >> {0}; setsid -f sh -c \"{inner}\"; exec sleep 600", pids.display());
        let lines = format!("$(wc -l < {})", pids.display());
        let both = format!(
            "before={lines}\nsetsid -f env -i sh -c '{outer}'\nwhile [ {lines} -lt $((before + 2)) ]; do sleep 0.1; done"
        );
        let text = format!("{both}\n{end}\n");
        std::fs::write(&script, text).unwrap();
        let command = format!("sh '{}'", script.display());
        let args = ["sim", "check", "--product", "milan", "--attack", "debug", "--timeout", timeout, "--cmd", &command];
        let output = coffer(home.path(), &args);
        let written = std::fs::read_to_string(&pids).unwrap();
        let left: Vec<_> = written.lines().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        assert!(written.lines().count() >= 4 && left.is_empty(), "{left:?} of {written:?}: {}", self::text(&output));
    }
}

#[test]
fn verifiers_that_say_yes_or_no_to_all_prove_nothing() {
    let home = tempfile::tempdir().unwrap();
    let check =
        |command: &str| coffer(home.path(), &["--json", "sim", "check", "--product", "milan", "--cmd", command]);
    let credulous = check("true");
    let attacks = json(&coffer(home.path(), &["--json", "sim", "attacks"])).as_array().unwrap().len();
    assert!(attacks >= 30);
    assert_eq!(credulous.status.code(), Some(6));
    assert_eq!(json(&credulous)["wrong"], attacks);
    assert_eq!(json(&credulous)["verdict"], "proves-nothing");

    let paranoid = check("false");
    assert_eq!(paranoid.status.code(), Some(6));
    assert_eq!(json(&paranoid)["wrong"], 1, "it refuses good evidence: {}", text(&paranoid));
    assert_eq!(json(&paranoid)["verdict"], "proves-nothing");
    assert_eq!(check("exec /nosuch/verifier").status.code(), Some(3));
}

#[test]
fn a_failing_case_is_shown_with_its_output_and_a_line_that_runs_it_again() {
    let home = tempfile::tempdir().unwrap();
    // It forgets to look at debugging, and talks.
    let command = format!(
        "grep -q '\"answer\":\"refused (floor)\"' \"$COFFER_DIR/expect.json\" && {{ printf '\\033[2Jit'\"'\"'s fine\\n'; exit 0; }}; '{COFFER}' {VERIFY}"
    );
    let args = ["--json", "sim", "check", "--product", "milan", "--attack", "debug", "--cmd", &command];
    let output = coffer(home.path(), &args);
    assert_eq!(output.status.code(), Some(6), "{}", text(&output));
    let report = json(&output);
    let failed = &report["results"][1];
    assert_eq!((failed["attack"].as_str(), failed["ok"].as_bool()), (Some("debug"), Some(false)));
    assert_eq!(failed["output"], "\u{1b}[2Jit's fine\n");
    let shown = coffer(home.path(), &args[1..]);
    let shown = text(&shown);
    assert!(shown.contains("\\u{1b}[2Jit's fine") && !shown.contains('\u{1b}'), "{shown}");
    // As printed, from another folder and without our environment.
    let again = shown.split("again:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    assert_eq!(again, failed["again"].as_str().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", again])
        .current_dir(elsewhere.path())
        .env("TMPDIR", elsewhere.path())
        .env_remove("COFFER_HOME")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).ends_with("\u{1b}[2Jit's fine\n"), "{}", text(&output));
}

#[test]
fn a_verifier_that_hangs_is_killed_and_wrong() {
    let home = tempfile::tempdir().unwrap();
    let command = format!("case $COFFER_DIR in */debug) sleep 600 & wait;; esac; '{COFFER}' {VERIFY}");
    let args =
        ["--json", "sim", "check", "--product", "milan", "--attack", "debug", "--timeout", "5", "--cmd", &command];
    let output = coffer(home.path(), &args);
    let report = json(&output);
    assert_eq!((output.status.code(), report["verdict"].as_str()), (Some(6), Some("wrong")), "{}", text(&output));
    assert_eq!(report["results"][1]["answer"], "timed out");
}

/// Serves `POST`s one after the other: `judge` gets the header `coffer-report-data` and the body, its word is the status line.
fn endpoint(judge: impl Fn(&str, &[u8]) -> &'static str + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for line in listener.incoming() {
            let mut line = line.unwrap();
            let mut reader = BufReader::new(line.try_clone().unwrap());
            let (mut header, mut length, mut data) = (String::new(), 0, String::new());
            while reader.read_line(&mut header).unwrap() > 2 {
                let (name, value) = header.split_once(':').unwrap_or_default();
                match name.to_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "coffer-report-data" => value.trim().clone_into(&mut data),
                    _ => {}
                }
                header.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(line, "HTTP/1.1 {}\r\ncontent-length: 0\r\n\r\n", judge(&data, &body)).unwrap();
        }
    });
    url
}

#[test]
fn a_verifier_behind_a_url_is_checked_by_its_status() {
    let home = tempfile::tempdir().unwrap();
    let url = endpoint(|_, _| "200 OK");
    let output =
        coffer(home.path(), &["--json", "sim", "check", "--product", "milan", "--attack", "debug", "--url", &url]);
    assert_eq!(json(&output)["wrong"], 1, "{}", text(&output));
    let broken = endpoint(|_, _| "503 Service Unavailable");
    assert_eq!(coffer(home.path(), &["sim", "check", "--product", "milan", "--url", &broken]).status.code(), Some(7));
    let https = coffer(home.path(), &["sim", "check", "--url", "https://localhost/"]);
    assert_eq!(https.status.code(), Some(2));
}

#[test]
fn our_verifier_behind_a_url_passes() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("good");
    let out_text = out.to_str().unwrap();
    let made = json(&coffer(home.path(), &["--json", "sim", "evidence", "--product", "genoa", "--out", out_text]));
    let anchor: SpkiDigest = made["anchor"].as_str().unwrap().parse().unwrap();
    let policy = EvidencePolicy::from_toml(&std::fs::read_to_string(out.join("policy.toml")).unwrap()).unwrap();
    let url = endpoint(move |data, body| {
        let judge = || {
            let evidence = Evidence::from_cmw(body).ok()?;
            let expected = ExpectedReportData::Exactly(data.parse().ok()?);
            let anchors = TrustAnchors::amd().with_simulated(anchor);
            let now = UnixTime::from(std::time::SystemTime::now());
            let none = Endorsements::new();
            let verified = verify_evidence(&evidence, &none, &anchors, &expected, &CrlPolicy::Required, now).ok()?;
            appraise(&verified, &policy).ok()
        };
        if judge().is_some() { "200 OK" } else { "403 Forbidden" }
    });
    let output = coffer(home.path(), &["--json", "sim", "check", "--product", "genoa", "--url", &url]);
    assert_eq!((output.status.code(), json(&output)["wrong"].as_u64()), (Some(0), Some(0)), "{}", text(&output));
}

#[test]
fn evidence_is_written_whole_and_believed_only_with_its_anchor() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("evidence");
    let out = out.to_str().unwrap();
    let made = json(&coffer(home.path(), &["--json", "sim", "evidence", "--product", "genoa", "--out", out]));
    let record = format!("{out}/evidence.cmw");
    let anchor = made["anchor"].as_str().unwrap();
    for name in ["report.bin", "ark.pem", "ask.der", "vcek.pem", "crl.der", "cert_table.bin", "policy.toml"] {
        assert!(Path::new(out).join(name).exists(), "{name}");
    }
    let believed = coffer(home.path(), &["verify", &record, "--allow-simulated", "--anchor", anchor]);
    assert_eq!(believed.status.code(), Some(0), "{}", text(&believed));
    for form in ["ark.pem", "ark.der"].map(|name| format!("{out}/{name}")) {
        let believed = coffer(home.path(), &["verify", &record, "--allow-simulated", "--anchor", &form]);
        assert_eq!(believed.status.code(), Some(0), "{form}: {}", text(&believed));
    }
    let doubted = coffer(home.path(), &["verify", &record]);
    assert_eq!(doubted.status.code(), Some(5), "{}", text(&doubted));
    assert!(text(&doubted).contains("with --allow-simulated this installation's simulator is believed"), "{doubted:?}");
    // The bare report, whose certificates nobody but the simulator has.
    let report = format!("{out}/report.bin");
    let bare = coffer(home.path(), &["verify", &report, "--allow-simulated"]);
    let said = text(&bare);
    assert_eq!(bare.status.code(), Some(5), "{said}");
    for word in ["CMW record", "--certs", "coffer sim kds"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert!(!said.contains("amd.com"), "AMD has nothing of a simulated chip: {said}");
    let bare = json(&coffer(home.path(), &["--json", "verify", &report, "--allow-simulated"]));
    assert_eq!((&bare["missing"][0]["simulated"], &bare["missing"][0]["urls"]), (&true.into(), &serde_json::json!([])));
    assert_eq!(bare["missing"][0]["reported_tcb"]["fmc"], serde_json::Value::Null);
    assert!(bare["missing"][0]["reported_tcb"]["bootloader"].is_u64(), "{bare}");
    let listed = text(&coffer(home.path(), &["sim", "init", "--product", "genoa"]));
    assert!(listed.contains("sim/ark-genoa.der") && listed.contains(anchor), "{listed}");

    let shown = |args: &[&str]| {
        let made = coffer(home.path(), &[&["sim", "evidence", "--out", out], args].concat());
        assert_eq!(made.status.code(), Some(0), "{}", text(&made));
        json(&coffer(home.path(), &["--json", "report", "show", &format!("{out}/report.bin")]))
    };
    assert_eq!(shown(&[])["report"]["version"], 5, "the newest");
    assert_eq!(shown(&["--report-version", "2"])["report"]["version"], 2);
    let data = "5a".repeat(64);
    let vlek = shown(&["--vlek", "--product", "turin", "--report-data", &data]);
    assert_eq!(vlek["report"]["report_data"], data);
    assert!(Path::new(out).join("asvk.pem").exists() && Path::new(out).join("vlek.der").exists());
    let turin = coffer(home.path(), &["sim", "evidence", "--product", "turin", "--report-version", "2", "--out", out]);
    assert_eq!(turin.status.code(), Some(2));

    let unknown = coffer(home.path(), &["sim", "evidence", "--attack", "nosuch", "--out", out]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(text(&unknown).contains("coffer sim attacks lists them"));
}

/// A simulated KDS of its own for each question.
fn ask_kds(home: &Path, fault: &str, path: &str, patience: Duration) -> std::io::Result<Vec<u8>> {
    let mut server = Command::new(COFFER)
        .env("COFFER_HOME", home)
        .args(["sim", "kds", "--answers", "1", "--fault", fault])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut address)?;
    let mut line = TcpStream::connect(address.trim().trim_start_matches("http://"))?;
    line.set_read_timeout(Some(patience))?;
    write!(line, "GET {path} HTTP/1.1\r\nhost: kds\r\n\r\n")?;
    let mut answer = Vec::new();
    let read = line.read_to_end(&mut answer);
    server.kill()?;
    server.wait()?;
    read.map(|_| answer)
}

#[test]
fn the_simulated_kds_answers_over_http_and_fails_on_demand() {
    let home = tempfile::tempdir().unwrap();
    let get = |fault: &str, path: &str| ask_kds(home.path(), fault, path, Duration::from_mins(1)).unwrap();
    let begins = |fault: &str, path: &str, with: &str| {
        let answer = get(fault, path);
        assert!(answer.starts_with(with.as_bytes()), "{fault}: {}", String::from_utf8_lossy(&answer));
    };
    let chain = String::from_utf8(get("none", "/vcek/v1/Milan/cert_chain")).unwrap();
    assert!(chain.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    begins("429", "/vcek/v1/Milan/crl", "HTTP/1.1 429");
    begins("500", "/vcek/v1/Milan/crl", "HTTP/1.1 500");
    begins("none", "/vcek/v1/Rome/crl", "HTTP/1.1 404");
    // A client with less patience than ten seconds has no answer.
    let slow = ask_kds(home.path(), "slow", "/vcek/v1/Milan/crl", Duration::from_secs(1));
    assert!(slow.is_err(), "{slow:?}");
}

#[test]
fn what_the_simulated_kds_serves_endorses_until_it_is_told_to_fail() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("evidence");
    let made = coffer(home.path(), &["--json", "sim", "evidence", "--out", out.to_str().unwrap()]);
    let made = json(&made);
    let report = out.join("report.bin");
    // Milan's levels as the report states them, asked for as any client does.
    let shown = json(&coffer(home.path(), &["--json", "report", "show", report.to_str().unwrap()]));
    let tcb = &shown["tcb"]["reported"];
    let vcek = format!(
        "/vcek/v1/Milan/{}?blSPL={}&teeSPL={}&snpSPL={}&ucodeSPL={}",
        made["chip_id"].as_str().unwrap(),
        tcb["bootloader"],
        tcb["tee"],
        tcb["snp"],
        tcb["microcode"]
    );
    let verdict = |fault: &str| {
        let folder = home.path().join(fault);
        std::fs::create_dir(&folder).unwrap();
        let chain = "/vcek/v1/Milan/cert_chain".to_owned();
        for (name, path) in [("vcek.der", &vcek), ("ask.pem", &chain), ("crl.der", &"/vcek/v1/Milan/crl".to_owned())] {
            let answer = ask_kds(home.path(), fault, path, Duration::from_mins(1)).unwrap();
            let body = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
            std::fs::write(folder.join(name), &answer[body..]).unwrap();
        }
        let (report, folder) = (report.to_str().unwrap(), folder.to_str().unwrap());
        let anchor = made["anchor"].as_str().unwrap();
        coffer(home.path(), &["verify", report, "--certs", folder, "--allow-simulated", "--anchor", anchor])
            .status
            .code()
    };
    assert_eq!(verdict("none"), Some(0));
    assert_eq!(verdict("wrong-certificate"), Some(5));
    assert_eq!(verdict("stale-crl"), Some(5));
}

#[test]
fn the_simulators_figures_are_printed() {
    let home = tempfile::tempdir().unwrap();
    let figures = json(&coffer(home.path(), &["--json", "bench", "simulator"]));
    for name in ["p384_signature_us", "report_us", "report_ratio", "launch_digest_64mib_us", "launch_digest_share"] {
        assert!(figures[name].as_f64().is_some_and(|value| value > 0.0), "{name}: {figures}");
    }
}

#[test]
fn the_verifiers_figures_are_printed_each_with_its_limit() {
    let home = tempfile::tempdir().unwrap();
    let figures = json(&coffer(home.path(), &["--json", "bench", "verify", "--short"]));
    let positive = |value: &Value| value.as_f64().is_some_and(|value| value > 0.0);
    for name in ["raw_p384_us", "raw_rsa_pss_us", "raw_sha384_us", "raw_threads2_ratio"] {
        assert!(positive(&figures[name]), "{name}: {figures}");
    }
    for (limits, names) in
        [("at_most", &["parse_us", "report_cached_us", "full_chain_us"][..]), ("at_least", &["threads2_ratio"])]
    {
        for name in names {
            assert!(positive(&figures[*name]) && positive(&figures[limits][*name]), "{name}: {figures}");
        }
    }
    let fleet = &figures["fleet"];
    assert!(
        positive(&fleet["ratio"]) && positive(&fleet["per_second"]) && positive(&fleet["raw_per_second"]),
        "{fleet}"
    );
    assert_eq!((&fleet["chips"], &fleet["reports"], &fleet["threads"]), (&100.into(), &100.into(), &2.into()));
    assert_eq!(fleet["at_least"], 0.97);
}

#[test]
fn measure_prints_the_digest_of_every_vector_whose_firmware_is_at_hand() {
    let Some(folder) = vectors::folder("measure") else { return };
    let vectors: Value = serde_json::from_slice(&std::fs::read(folder.join("vectors.json")).unwrap()).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for (name, about) in vectors["blobs"].as_object().unwrap() {
        let length = usize::try_from(about["length"].as_u64().unwrap()).unwrap();
        std::fs::write(scratch.path().join(name), stream(about["seed"].as_str().unwrap(), length)).unwrap();
    }
    let mut compared = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let about = &vectors["firmware"][case["firmware"].as_str().unwrap()];
        let path = about["path"].as_str().unwrap();
        let path = folder.join(path).display().to_string(); // an absolute one stays
        if !Path::new(&path).exists() {
            continue;
        }
        let vcpus = case["vcpus"].to_string();
        let word = |name: &str| case[name].as_str();
        let blob = |name: &str| scratch.path().join(word(name).unwrap()).display().to_string();
        let mut args: Vec<String> = ["measure", "--firmware", &path, "--vcpus", &vcpus].map(String::from).to_vec();
        let mut push = |flag: &str, value: String| args.extend([flag.to_owned(), value]);
        match word("vcpu_type") {
            Some(name) => push("--vcpu-type", name.to_owned()),
            None => push("--vcpu-sig", word("vcpu_sig").unwrap().to_owned()),
        }
        push("--guest-features", word("guest_features").unwrap().to_owned());
        push("--vmm", word("vmm").unwrap().to_owned());
        if let Some(digest) = about["fw_digest"].as_str() {
            push("--fw-digest", digest.to_owned());
        }
        for (flag, name) in [("--kernel", "kernel"), ("--initrd", "initrd")] {
            if word(name).is_some() {
                push(flag, blob(name));
            }
        }
        if let Some(line) = word("cmdline") {
            push("--append", line.to_owned());
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = coffer(scratch.path(), &args);
        if case["error"].is_string() {
            assert_eq!(output.status.code(), Some(3), "{}", text(&output));
            assert!(text(&output).contains("SNP_KERNEL_HASHES"), "{}", text(&output));
        } else {
            assert_eq!(text(&output).trim(), word("launch_digest").unwrap(), "{}", case["name"]);
        }
        compared += 1;
    }
    // Of our own platform none of it is said, and what is not there is a mistake of a file.
    for words in [&["--platform-files", "--kernel", "k"][..], &["--launch", "long-mode", "--vmm", "ec2", "image"]] {
        let output = coffer(scratch.path(), &[&["measure"], words].concat());
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    }
    assert_eq!(coffer(scratch.path(), &["measure", "--firmware", "nosuch"]).status.code(), Some(3));
    // Seven cases need Debian's package ovmf, which `make setup` installs.
    assert!(compared == 41 || (compared == 34 && !Path::new("/usr/share/ovmf/OVMF.fd").exists()), "{compared}");
}

fn stream(seed: &str, length: usize) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    (0_u32..)
        .flat_map(|index| Sha256::new().chain_update(seed).chain_update(index.to_le_bytes()).finalize().to_vec())
        .take(length)
        .collect()
}
