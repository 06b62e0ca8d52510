//! A key broker that goes away after it was asked: nobody is told that nothing happened.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    time::Duration,
};

/// What `coffer kbs` says where the connection ends once the request is there.
fn said(words: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("kbs.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let broker = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut asked = Vec::new();
        // Until nothing more comes.
        let _ = stream.read_to_end(&mut asked);
        asked
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["kbs"])
        .args(words)
        .arg("--admin-socket")
        .arg(&socket)
        .env("COFFER_HOME", folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a value").unwrap();
    let output = child.wait_with_output().unwrap();
    let asked = broker.join().unwrap();
    assert!(asked.starts_with(b"PRI * HTTP/2.0") && asked.len() > 100, "it was asked: {} bytes", asked.len());
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn what_was_asked_may_have_been_done_and_where_to_look_is_said() {
    let put = said(&["secret", "put", "default/app/password"]);
    let hint =
        "it may have been stored; `coffer kbs secret get-meta kbs:///default/app/password --tenant default` shows it";
    assert!(put.contains(hint), "{put}");
    let removed = said(&["secret", "rm", "default/app/password"]);
    assert!(removed.contains("it may have been done all the same"), "{removed}");
}

#[test]
fn a_broker_that_is_not_there_was_not_asked() {
    let output = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["kbs", "secret", "ls", "--admin-socket", "/nonexistent/kbs.sock"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(7), "{text}");
    assert!(text.contains("/nonexistent/kbs.sock") && text.contains("[admin_socket]"), "{text}");
}

#[test]
fn a_socket_has_no_address_for_a_new_profile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_coffer"))
        .args(["kbs", "admin", "add", "bob", "--role", "operator", "--admin-socket", "/nonexistent/kbs.sock"])
        .arg("--new-profile")
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(!path.exists());
}
