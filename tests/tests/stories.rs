//! Real servers, made from Debian's packages, as their users run them: reached by their own clients on the host's ports, stopped,
//! killed, started again, and found with what they were told.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    process::{Finished, run, wait_for},
    sources,
};
use rustix::process::{Pid, Signal, kill_process};

const LIMIT: Duration = Duration::from_mins(2);

/// A world with the image that `scripts/story-image` made.
fn told_with(kind: &str) -> Result<Option<World>> {
    let made = run(Command::new(sources::root().join("scripts/story-image")).args([kind, "--cached"]), b"")?;
    if made.status != 0 {
        println!("skipped: no image; run scripts/story-image {kind}");
        return Ok(None);
    }
    let world = World::new()?;
    world.coffer(&["import", made.stdout.trim(), "debian:story"])?.ok()?;
    Ok(Some(world))
}

/// One server in a box of QEMU's.
struct Server<'a> {
    world: &'a World,
    name: &'a str,
    guest_port: &'a str,
}

impl<'a> Server<'a> {
    /// Starts it; `flags` are more words of `run`, `words` its command.
    fn run(world: &'a World, name: &'a str, guest_port: &'a str, flags: &[&str], words: &[&str]) -> Result<Self> {
        let publish = format!("127.0.0.1::{guest_port}");
        let before = ["run", "-d", "--name", name, "--isolation", "qemu", "-p", &publish];
        world.coffer(&[&before, flags, &["debian:story"], words].concat())?.ok()?;
        Ok(Self { world, name, guest_port })
    }

    /// What a client says that is given the port, once it ends well with something. Servers need a moment after their start.
    fn says(&self, client: impl Fn(&str) -> Command) -> Result<String> {
        let address = self.world.coffer(&["port", self.name, &format!("{}/tcp", self.guest_port)])?.ok()?;
        let port = address.trim().rsplit_once(':').context("a port")?.1;
        let mut last: Result<Finished> = run(&mut client(port), b"");
        let answered = wait_for(LIMIT, || {
            last = run(&mut client(port), b"");
            last.as_ref().is_ok_and(|said| said.status == 0 && !said.stdout.is_empty())
        });
        let last = last?;
        let log =
            || self.world.coffer(&["logs", "--tail", "20", self.name]).map(|said| said.text()).unwrap_or_default();
        answered.with_context(|| format!("{}\n{}", last.describe(), log()))?;
        Ok(last.stdout)
    }

    fn again(&self) -> Result<()> {
        self.world.coffer(&["stop", self.name])?.ok()?;
        self.world.coffer(&["start", self.name])?.ok().map(drop)
    }

    /// The machine ends between two of its instructions, as by a power cut.
    fn killed_and_again(&self) -> Result<()> {
        let field =
            |name: &str| self.world.coffer(&["inspect", "-f", &format!("{{{{.State.{name}}}}}"), self.name])?.ok();
        let pid = Pid::from_raw(field("SupervisorPid")?.trim().parse()?).context("a pid")?;
        kill_process(pid, Signal::KILL)?;
        wait_for(LIMIT, || field("Status").is_ok_and(|status| status == "exited\n"))?;
        self.world.coffer(&["start", self.name])?.ok().map(drop)
    }
}

fn curl(port: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "5", &format!("http://127.0.0.1:{port}/")]);
    command
}

fn redis(words: &'static [&'static str]) -> impl Fn(&str) -> Command {
    move |port| {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-p", port]).args(words);
        command
    }
}

const NGINX: &[&str] = &["nginx", "-g", "daemon off;"];

#[test]
fn nginx_serves_in_plain_and_in_attested_boxes_and_after_a_stop() -> Result<()> {
    let Some(world) = told_with("web")? else { return Ok(()) };
    for flags in [&[][..], &["--tee-simulate"]] {
        let server = Server::run(&world, "web", "80", flags, NGINX)?;
        ensure!(server.says(curl)?.contains("Welcome to nginx!"));
        server.again()?;
        ensure!(server.says(curl)?.contains("Welcome to nginx!"));
        world.coffer(&["rm", "-f", "web"])?.ok()?;
    }
    Ok(())
}

#[test]
fn redis_keeps_what_it_acknowledged_when_its_machine_is_killed() -> Result<()> {
    let Some(world) = told_with("web")? else { return Ok(()) };
    let words =
        ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"];
    let words = [&words[..], &["--appendfsync", "always"]].concat();
    let server = Server::run(&world, "store", "6379", &["-v", "store:/data"], &words)?;
    ensure!(server.says(redis(&["set", "k", "first"]))? == "OK\n");
    server.killed_and_again()?;
    ensure!(server.says(redis(&["get", "k"]))? == "first\n");
    ensure!(server.says(redis(&["set", "k", "second"]))? == "OK\n");
    server.again()?;
    ensure!(server.says(redis(&["get", "k"]))? == "second\n");
    Ok(())
}

/// As the image of PostgreSQL's own users does: a cluster is made where there is none, here on the disk before anybody is told of it.
const POSTGRES: &str = "set -e; d=/var/lib/postgresql/data b=/usr/lib/postgresql/15/bin
as() { setpriv --reuid postgres --regid postgres --init-groups \"$@\"; }
if [ ! -s $d/main/PG_VERSION ]; then mkdir -p $d/main; chown -R postgres $d; chmod 700 $d/main; as $b/initdb -A trust -D $d/main
echo 'host all all all trust' >>$d/main/pg_hba.conf; sync; fi
exec setpriv --reuid postgres --regid postgres --init-groups $b/postgres -D $d/main -c listen_addresses='*' -c unix_socket_directories=";

fn psql(query: &'static str) -> impl Fn(&str) -> Command {
    move |port| {
        let mut command = Command::new("psql");
        command.args(["-h", "127.0.0.1", "-p", port, "-U", "postgres", "-tAc", query]);
        command
    }
}

#[test]
#[ignore = "more boots than `make test` has room for; `make soak` runs it"]
fn postgres_python_and_node_serve_and_a_database_survives() -> Result<()> {
    let Some(world) = told_with("all")? else { return Ok(()) };
    let database = Server::run(
        &world,
        "db",
        "5432",
        &["-m", "512m", "-v", "db:/var/lib/postgresql/data"],
        &["sh", "-c", POSTGRES],
    )?;
    let made = database.says(psql("create table t as select generate_series(1, 1000) as x"))?;
    ensure!(made == "SELECT 1000\n", "{made}");
    for end in [Server::killed_and_again, Server::again, Server::killed_and_again] {
        end(&database)?;
        ensure!(database.says(psql("select sum(x) from t"))? == "500500\n");
    }
    world.coffer(&["rm", "-f", "db"])?.ok()?;
    let node = "require('http').createServer((_, answer) => answer.end('node here')).listen(80)";
    for (words, answer) in [
        (&["python3", "-m", "http.server", "80", "--directory", "/etc"][..], "os-release"),
        (&["node", "-e", node], "node here"),
    ] {
        for flags in [&[][..], &["--tee-simulate"]] {
            let server = Server::run(&world, "served", "80", flags, words)?;
            ensure!(server.says(curl)?.contains(answer));
            server.again()?;
            ensure!(server.says(curl)?.contains(answer));
            world.coffer(&["rm", "-f", "served"])?.ok()?;
        }
    }
    Ok(())
}
