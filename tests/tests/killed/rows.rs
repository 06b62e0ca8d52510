//! Each command that changes what is kept: where it is tried, and with which words; and those that are not, each with its reason.

/// A command in a state in which it changes something.
///
/// In the home are an image `kept:1`, a box `kept`, a volume `kept` and a network `kept`, which it is not about. Beside the home lie
/// `layout`, an OCI layout; `root.tar`, files; `saved.tar`, an image `app:1` in an archive; `kept.txt`.
pub struct Row {
    /// As the table of commands has it.
    pub command: &'static str,
    /// Words behind it, in one text.
    pub words: &'static str,
    /// Commands before it, once.
    pub before: &'static [&'static str],
    /// Commands right before it, each time: what starts something.
    pub running: &'static [&'static str],
    /// Between a killed one and the next: what a person does who finds half of it.
    pub mend: &'static [&'static str],
    /// Standard input.
    pub input: &'static str,
    /// Boxes run in it.
    pub boxes: bool,
    /// And have a machine.
    pub machine: bool,
}

const fn row(command: &'static str, words: &'static str, before: &'static [&'static str]) -> Row {
    Row { command, words, before, running: &[], mend: &[], input: "", boxes: false, machine: false }
}

/// About a box that runs.
const fn live(
    command: &'static str,
    words: &'static str,
    running: &'static [&'static str],
    mend: &'static [&'static str],
) -> Row {
    Row { before: &[MADE], running, mend, boxes: true, ..row(command, words, &[]) }
}

/// A box of its own.
const MADE: &str = "create --name own kept:1 sleep 600";
const START: &[&str] = &["start own"];
const RESTARTS: &str = "create --restart always --name own kept:1 sleep 600";
/// Of what a guest wrote.
const WRITTEN: &[&str] = &["start own", "exec own touch /tmp/one"];
const AGAIN: &[&str] = &["rm -f own", MADE];

/// All of them.
pub const ROWS: &[Row] = &[
    Row { mend: &["rm -f new"], boxes: true, ..row("run", "-d --name new -v more:/more kept:1 sleep 600", &[]) },
    Row { mend: &["rm -f new"], boxes: true, ..row("run", "--rm --name new kept:1 true", &[]) },
    Row { mend: &["rm -f own", MADE], boxes: true, ..row("start", "own", &[MADE]) },
    live("stop", "-t 1 own", START, &[]),
    live("restart", "-t 1 own", START, AGAIN),
    live("kill", "own", START, &[]),
    live("exec", "own touch /tmp/one", START, &[]),
    live("cp", "kept.txt own:/tmp", START, &[]),
    live("cp", "own:/tmp/one out.txt", WRITTEN, &[]),
    live("export", "-o out.tar own", WRITTEN, &[]),
    live("commit", "own new:1", WRITTEN, &[]),
    Row { machine: true, ..live("pause", "own", START, &[]) },
    Row { machine: true, ..live("unpause", "own", &["start own", "pause own"], &[]) },
    Row { mend: &["rm -f own", RESTARTS], boxes: true, ..row("system resume", "", &[RESTARTS]) },
    Row { mend: &["rm own"], ..row("create", "--name own -v more:/more -v /data kept:1", &[]) },
    row("update", "--restart unless-stopped own", &[MADE]),
    row("rename", "own other", &[MADE]),
    row("rm", "-v own", &["create --name own -v /data kept:1"]),
    row(
        "prune",
        "--force --filter label=goes",
        &["create --name a --label goes kept:1", "create --name b --label goes kept:1"],
    ),
    row("volume create", "--label a=b own", &[]),
    row("volume rm", "own", &["volume create own"]),
    row(
        "volume prune",
        "--force --all --filter label=goes",
        &["volume create --label goes a", "volume create --label goes b"],
    ),
    row("network create", "--subnet 10.87.0.0/24 own", &[]),
    row("network rm", "own", &["network create own"]),
    row("network connect", "own kept", &["network create own"]),
    row("network disconnect", "own kept", &["network create own", "network connect own kept"]),
    row(
        "network prune",
        "--force --filter label=goes",
        &["network create --label goes a", "network create --label goes b"],
    ),
    row("pull", "-q oci:layout:t", &[]),
    row("push", "-q --insecure-registry {registry} {registry}/kept:1", &["tag kept:1 {registry}/kept:1"]),
    row("rmi", "own:1", &["load -q -i saved.tar", "tag app:1 own:1", "rmi app:1"]),
    row("tag", "kept:1 own:1", &[]),
    row("save", "-o out.tar kept:1", &[]),
    row("load", "-q -i saved.tar", &[]),
    row("import", "root.tar own:1", &[]),
    row("image prune", "--force", &["import root.tar"]),
    Row { input: "secret", ..row("login", "-u ann --password-stdin --insecure-registry {registry} {registry}", &[]) },
    row("logout", "{registry}", &["login -u ann --password-stdin --insecure-registry {registry} {registry}"]),
    row("owner init", "", &[]),
    Row { mend: &["{rm} authority.pem authority.pem.pub"], ..row("owner keygen", "--out authority.pem", &[]) },
    row(
        "owner sign",
        "--key authority.pem --name prod --sequence 1 --nobody --out owners.json",
        &["owner keygen --out authority.pem"],
    ),
    row("sim init", "--product milan", &[]),
    Row {
        mend: &["{rm} -r evidence"],
        ..row("sim evidence", "--product milan --out evidence", &["sim init --product milan"])
    },
    Row { mend: &["{rm} id.pem id.pem.pub"], ..row("id-key init", "--out id.pem", &[]) },
    Row { mend: &["{rm} manifest.pem manifest.pem.pub"], ..row("manifest keygen", "--out manifest.pem", &[]) },
    Row { mend: &["{rm} policy.pem policy.pem.pub"], ..row("policy keygen", "--out policy.pem", &[]) },
    Row { mend: &["{rm} keys.json"], ..row("token init", "--out keys.json", &[]) },
    row("token rotate", "keys.json", &["token init --out keys.json"]),
];

/// Commands that have no row, by what they begin with, and why.
pub const WITHOUT: &[(&str, &str)] = &[
    ("kbs", "what it changes is the key broker's: kbs/tests/crash.rs kills that"),
    ("host", "what it changes is the firmware's of an SEV-SNP host"),
    ("bench", "it keeps nothing"),
    ("attach", "it only looks on"),
    ("attest", "it changes nothing here, and asks a machine"),
    ("connect", "it changes nothing here"),
    ("inject-secret", "it changes a guest with a TEE"),
    ("refresh-secrets", "it changes a guest with a TEE"),
    ("seal", "it changes a guest with a TEE"),
    ("unseal", "it changes a guest with a TEE"),
    ("reseal", "it changes a guest with a TEE"),
    ("owner push", "it changes a guest with a TEE"),
    ("measure", "it writes one file where it is told to"),
    ("spec", "it writes one file where it is told to"),
    ("id-block sign", "it writes files where it is told to"),
    ("manifest re-endorse", "it writes one file where it is told to"),
    ("manifest export", "it writes one file where it is told to"),
    ("policy sign", "it writes one file where it is told to"),
    ("policy re-endorse", "it writes one file where it is told to"),
    ("token issue", "it changes nothing here"),
    ("collateral", "it keeps answers of AMD's, each checked again when it is read: verifier/kds has its tests"),
    ("sim check", "what it makes goes with it"),
    ("sim kds", "it changes nothing here"),
];

/// Commands that look, by what they begin with.
pub const LOOK: &[&str] = &[
    "ps",
    "port",
    "logs",
    "events",
    "diff",
    "top",
    "stats",
    "inspect",
    "wait",
    "volume ls",
    "volume inspect",
    "network ls",
    "network inspect",
    "system df",
    "system info",
    "images",
    "history",
    "image inspect",
    "owner show",
    "owner verify",
    "platform show",
    "manifest verify",
    "manifest show",
    "id-key show",
    "id-block show",
    "verify",
    "token show",
    "token verify",
    "token jwks",
    "token configuration",
    "policy show",
    "policy lint",
    "policy test",
    "policy input",
    "policy explain",
    "policy try",
    "report",
    "sim attacks",
    "doctor",
    "audit",
    "metrics",
    "completion",
    "help",
    "version",
];
