//! Two boxes, one of whose workloads talks to the other's: whole, with the commands of an operator.

use std::fs;

use anyhow::{Context, Result, ensure};
use coffer_tests::{World, demo::story::simulator_anchor, image::pulled, monitors::on_each, services::free_port};

const SERVER: &str =
    "mkdir /www && echo only for the named >/www/index.html && exec httpd -f -p 127.0.0.1:8080 -h /www";

#[test]
fn a_workload_reaches_the_box_it_names_and_no_other() -> Result<()> {
    on_each(|monitor| {
        let world = World::on(monitor)?;
        let (_registry, image) = pulled(&world)?;
        let anchor = simulator_anchor(&world)?;
        let anchor = anchor.to_str().context("a plain name")?;
        let port = free_port()?;
        let publish = format!("127.0.0.1:{port}:8080/ra-tls");
        let flags = ["--tee-simulate", "-p", &publish, &image, "sh", "-c", SERVER];
        let reference = world.folder.path().join("web.json");
        let reference = reference.to_str().context("a plain name")?;
        fs::write(reference, world.coffer(&[&["--json", "measure"], &flags[..]].concat())?.ok()?)?;
        world.coffer(&[&["run", "-d", "--name", "web"], &flags[..]].concat())?.ok()?;
        let ask =
            "for try in 1 2 3 4 5 6 7 8 9 10; do wget -q -O - http://127.0.0.1:9000/ && exit 0; sleep 1; done; exit 1";
        let run = |who: &str, words: &[&str]| {
            let peer = format!("web=9000:127.0.0.1:{port},port=8080,{who}");
            let all = ["run", "--rm", "--tee-simulate", "--allow-simulated", "--peer", &peer, &image];
            world.coffer(&[&all[..], words].concat())
        };
        let found = run(&format!("reference={reference},simulator={anchor}"), &["sh", "-c", ask])?;
        ensure!(found.status == 0 && found.stdout.contains("only for the named"), "{}", found.describe());

        let once = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:9000/"];
        let nobodys = run(&format!("reference={reference}"), &once)?;
        let named = nobodys.stderr.contains("coffer: peer web: it is not admitted: untrusted-root");
        ensure!(nobodys.status == 1 && nobodys.stdout.is_empty() && named, "{}", nobodys.describe());

        // A port for guests by name, and a client that cannot show that it is one.
        let key = world.folder.path().join("author.pem");
        let key = key.to_str().context("a plain name")?;
        world.coffer(&["id-key", "init", "--author", "--out", key])?.ok()?;
        let guests = format!("8080,author={key}.pub,family=acme,image=web,min-svn=1,simulator={anchor}");
        let port = free_port()?;
        let publish = format!("127.0.0.1:{port}:8080/ra-tls");
        let flags = ["--tee-simulate", "--host-may", "stop,stats,logs", "-p", &publish, "--guests", &guests];
        let flags = [&flags[..], &[&image, "sh", "-c", SERVER]].concat();
        fs::write(reference, world.coffer(&[&["--json", "measure"], &flags[..]].concat())?.ok()?)?;
        world.coffer(&[&["run", "-d", "--name", "closed"], &flags[..]].concat())?.ok()?;
        let peer = format!("web=9000:127.0.0.1:{port},port=8080,reference={reference},simulator={anchor}");
        let all = ["run", "--rm", "--tee-simulate", "--allow-simulated", "--peer", &peer, &image];
        let refused = world.coffer(&[&all[..], &once].concat())?;
        let named = refused.stderr.contains("coffer: peer web: it does not admit this guest");
        ensure!(refused.status == 1 && refused.stdout.is_empty() && named, "{}", refused.describe());
        let log = world.coffer(&["logs", "closed"])?.text();
        ensure!(log.contains("coffer: port 8080: a client was refused"), "{log}");
        Ok(())
    })
}
