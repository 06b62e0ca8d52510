//! Owners that change while a box is there: lists that an authority signed, with and without a key broker that keeps them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use coffer_tests::{
    World,
    demo::story::{kbs_admin, simulator_anchor},
    image::without_a_machine,
    process::{says, wait_for},
    services::Kbs,
};
use serde_json::{Value, json};

const ALLOW: &str = "--allow-simulated";
const KEPT: &str = "kbs:///default/owners/prod";

/// Whose word counts, and what it signs.
struct Authority<'a> {
    world: &'a World,
    folder: &'a Path,
}

impl<'a> Authority<'a> {
    fn of(world: &'a World) -> Result<Self> {
        let folder = world.folder.path();
        let this = Self { world, folder };
        world.coffer(&["owner", "keygen", "--out", &this.file("authority.pem")])?.ok()?;
        world.coffer(&["owner", "init"])?.ok()?;
        fs::write(this.file("me.pem"), world.coffer(&["owner", "show", "--pem"])?.ok()?)?;
        Ok(this)
    }

    fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// The local owner, with these rights.
    fn me(&self, may: &str) -> String {
        format!("{}={may}", self.file("me.pem"))
    }

    /// A list that lets the local owner do this, in a file.
    fn list(&self, sequence: &str, may: &str) -> Result<String> {
        let (key, me, out) = (self.file("authority.pem"), self.me(may), self.file(&format!("list-{sequence}.json")));
        let words = ["owner", "sign", "--key", &key, "--name", "prod", "--sequence", sequence, "--owner", &me];
        self.world.coffer(&[&words[..], &["--out", &out]].concat())?.ok()?;
        Ok(out)
    }
}

#[test]
fn without_a_broker_a_list_adds_until_the_box_ends() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let authority = Authority::of(&world)?;
    let (me, named) = (authority.me("logs"), format!("{},name=prod,sequence=2", authority.file("authority.pem.pub")));
    let flags = ["--tee-simulate", "--owner", &me, "--owner-authority", &named, "--host-may", "stop,stats"];
    world.coffer(&[&["run", "-d", "--name", "box"], &flags[..], &[&image, "sleep", "600"]].concat())?.ok()?;
    let exec = || world.coffer(&["exec", ALLOW, "box", "echo", "inside"]);
    says(&exec()?, 125, &["owner-may-not:exec"])?;

    // Nothing is brought to a guest that did not prove itself, and nothing that does not count.
    let (first, third, fourth) =
        (authority.list("1", "exec")?, authority.list("3", "exec")?, authority.list("4", "top")?);
    says(&world.coffer(&["owner", "push", "box", &third])?, 5, &[])?;
    says(&world.coffer(&["owner", "push", ALLOW, "box", &first])?, 3, &["has sequence 1", "knows of 2"])?;
    let forged = authority.file("forged.json");
    fs::write(&forged, fs::read_to_string(&third)?.replacen("\"signature\": \"", "\"signature\": \"AAAA", 1))?;
    says(&world.coffer(&["owner", "push", ALLOW, "box", &forged])?, 3, &["signature"])?;
    let other = authority.file("other.pem");
    world.coffer(&["owner", "keygen", "--out", &other])?.ok()?;
    let by_other = authority.file("by-other.json");
    let words = ["owner", "sign", "--key", &other, "--name", "prod", "--sequence", "9", "--owner", &me];
    world.coffer(&[&words[..], &["--out", &by_other]].concat())?.ok()?;
    says(&world.coffer(&["--json", "owner", "push", ALLOW, "box", &by_other])?, 5, &["owner-list-not-signed"])?;
    says(&exec()?, 125, &["owner-may-not:exec"])?;

    says(&world.coffer(&["owner", "push", ALLOW, "box", &third])?, 0, &["list 3", "only adds"])?;
    says(&exec()?, 0, &["inside"])?;
    // The next one stands in its place, beside the spec's.
    says(&world.coffer(&["owner", "push", ALLOW, "box", &fourth])?, 0, &["list 4"])?;
    says(&exec()?, 125, &["owner-may-not:exec"])?;
    says(&world.coffer(&["top", ALLOW, "box"])?, 0, &["sleep"])?;
    says(&world.coffer(&["owner", "push", ALLOW, "box", &third])?, 3, &["knows of 4"])?;

    // As documented: nobody remembers.
    world.coffer(&["restart", "-t", "0", "box"])?.ok()?;
    says(&world.coffer(&["top", ALLOW, "box"])?, 6, &["owner-may-not"])?;
    says(&world.coffer(&["owner", "push", ALLOW, "box", &third])?, 0, &["list 3"])?;
    says(&exec()?, 0, &["inside"])?;
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    Ok(())
}

#[test]
fn a_list_that_the_broker_keeps_stands_in_place_of_the_specs_and_no_older_one_after_it() -> Result<()> {
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let authority = Authority::of(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    let me = authority.me("exec,inject,unseal");
    let named = format!("{},name=prod,kept={KEPT}", authority.file("authority.pem.pub"));
    let broker = ["--kbs", &kbs.address, "--kbs-pin", &kbs.pin];
    let flags = ["--tee-simulate", "--owner", &me, "--owner-authority", &named, "--host-may", "stop,stats,logs"];
    let words = [&flags[..], &broker, &[&image, "sleep", "600"]].concat();
    let measured = world.coffer(&[&["--json", "measure"], words.as_slice()].concat())?.ok()?;
    kbs_admin(&world, &kbs, &["reference", "add", "--from", "-", "--name", "app"], measured.as_bytes())?;
    let run = || world.coffer(&[&["run", "-d", "--name", "box"], words.as_slice()].concat());

    // A count that nobody may keep is no count.
    says(&run()?, 125, &["not-released"])?;
    world.coffer(&["rm", "-f", "box"])?;
    kbs_admin(&world, &kbs, &["sealing", "put", "owners/prod", "--policies", "workload", ALLOW], b"")?;
    run()?.ok()?;
    let exec = || world.coffer(&["exec", ALLOW, "box", "echo", "inside"]);
    let refresh = || world.coffer(&["refresh-secrets", ALLOW, "box"]);
    let put = |file: &str| kbs_admin(&world, &kbs, &["secret", "put", KEPT, ALLOW], &fs::read(file)?);
    says(&exec()?, 0, &["inside"]).context("before there is a list")?;

    // No owner uses up the counters that the list needs.
    let seal = ["seal", ALLOW, "box", "--to", "workload", "--counted", "--context", "owners/prod"];
    says(&world.coffer_with(&seal, b"x")?, 2, &["context"])?;
    // Nor with what another guest sealed there: each time anew it would be a counter more.
    let reseal = ["reseal", ALLOW, "box", "--to", "workload", "--context", "owners/prod"];
    says(&world.coffer_with(&reseal, b"x")?, 2, &["context"])?;
    let unseal = ["unseal", ALLOW, "box", "--context", "owners/prod"];
    says(&world.coffer_with(&unseal, b"x")?, 2, &["context"])?;

    // It takes away what the spec gives.
    let older = authority.list("1", "exec,inject")?;
    let second = authority.list("2", "inject")?;
    put(&second)?;
    let verified =
        world.coffer(&["--json", "owner", "verify", &second, "--key", &authority.file("authority.pem.pub")])?;
    let digest = serde_json::from_str::<Value>(&verified.ok()?)?["digest"].as_str().context("a digest")?.to_owned();
    says(&refresh()?, 0, &["owners: list 2 until", &digest])?;
    says(&exec()?, 125, &["owner-may-not:exec"])?;
    says(&world.coffer(&["owner", "push", ALLOW, "box", &older])?, 3, &["put it there"])?;

    // Put back by whoever may write secrets: not taken, neither by this guest nor by one that starts.
    put(&older)?;
    says(&refresh()?, 6, &["owners: list 2 until", "no other list was taken: owner-list-older"])?;
    says(&exec()?, 125, &["owner-may-not:exec"])?;
    let inspected = world.coffer(&["inspect", "--owners", ALLOW, "box"])?.ok()?;
    let told = &serde_json::from_str::<Value>(&inspected)?[0]["Tee"]["OwnersInForce"];
    let said = (&told["are"], &told["sequence"], &told["digest"], &told["refused"]["word"]);
    ensure!(said == (&json!("list"), &json!(2), &json!(digest), &json!("owner-list-older")), "{told}");
    says(&world.coffer(&["inspect", "--owners", "box"])?, 5, &[]).context("it proves itself first")?;
    says(&world.coffer(&["logs", "box"])?, 0, &["coffer: owners: owner-list-older"])?;
    world.coffer(&["restart", "-t", "0", "box"])?.ok()?;
    says(&exec()?, 125, &["owner-not-listed: nobody is an owner", "(owner-list-older)", "coffer owner sign"])?;
    says(&refresh()?, 6, &["owner-not-listed: nobody is an owner"])?;

    // Nor does taking it away bring the spec's back.
    kbs_admin(&world, &kbs, &["secret", "rm", KEPT], b"")?;
    world.coffer(&["restart", "-t", "0", "box"])?.ok()?;
    says(&exec()?, 125, &["owner-not-listed: nobody is an owner", "(owner-list-unknown)"])?;

    let third = authority.list("3", "exec,inject")?;
    put(&third)?;
    world.coffer(&["restart", "-t", "0", "box"])?.ok()?;
    says(&exec()?, 0, &["inside"])?;

    // Of two lists with one sequence the one that is in force stays, and none is signed over another.
    let (key, me, twice) = (authority.file("authority.pem"), authority.me("logs"), authority.file("twice.json"));
    let sign = |out: &str| {
        let words = ["owner", "sign", "--key", &key, "--name", "prod", "--sequence", "3", "--owner", &me];
        world.coffer(&[&words[..], &["--out", out]].concat())
    };
    says(&sign(&third)?, 3, &["there already"])?;
    sign(&twice)?.ok()?;
    put(&twice)?;
    says(&refresh()?, 6, &["owners: list 3 until", "no other list was taken: owner-list-sequence-twice"])?;
    says(&exec()?, 0, &["inside"])?;

    // What takes somebody away does so after its own time is over, too: the one before it never counts again.
    let (key, short) = (authority.file("authority.pem"), authority.file("short.json"));
    let words = ["owner", "sign", "--key", &key, "--name", "prod", "--sequence", "4", "--nobody", "--expires", "1s"];
    world.coffer(&[&words[..], &["--out", &short]].concat())?.ok()?;
    std::thread::sleep(Duration::from_millis(2100));
    put(&short)?;
    says(&refresh()?, 6, &["owners: nobody", "no other list was taken: owner-list-expired"])?;
    says(&exec()?, 125, &["owner-not-listed", "(owner-list-expired)"])?;
    put(&third)?;
    world.coffer(&["restart", "-t", "0", "box"])?.ok()?;
    says(&exec()?, 125, &["owner-not-listed", "(owner-list-older)"])?;
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    Ok(())
}

#[test]
fn a_workload_that_asks_the_broker_on_and_on_turns_no_owner_out() -> Result<()> {
    // By the door that needs no client of its own: four loops ask for more than any broker answers.
    const ASKS: &str = "for i in 1 2 3 4; do while :; do wget -q -O /dev/null http://127.0.0.1:8006/cdh/resource/demo/app/key; done \
        2>/dev/null & done; echo asking; wait";
    let Some((world, _registry, image)) = without_a_machine()? else { return Ok(()) };
    let authority = Authority::of(&world)?;
    let anchor = simulator_anchor(&world)?;
    let anchor = anchor.to_str().context("a plain name")?;
    let kbs = Kbs::start(world.folder.path(), &["--allow-simulated", anchor, "--tenant", "default"])?;
    let named = format!("{},name=prod,kept={KEPT}", authority.file("authority.pem.pub"));
    let flags = ["--tee-simulate", "--coco-routes", "--owner-authority", &named, "--host-may", "stop,logs"];
    let words = [&flags[..], &["--kbs", &kbs.address, "--kbs-pin", &kbs.pin, &image, "sh", "-c", ASKS]].concat();
    let measured = world.coffer(&[&["--json", "measure"], words.as_slice()].concat())?.ok()?;
    kbs_admin(&world, &kbs, &["reference", "add", "--from", "-", "--name", "app"], measured.as_bytes())?;
    kbs_admin(&world, &kbs, &["sealing", "put", "owners/prod", "--policies", "workload", ALLOW], b"")?;
    kbs_admin(&world, &kbs, &["secret", "put", KEPT, ALLOW], &fs::read(authority.list("1", "exec,inject")?)?)?;
    world.coffer(&[&["run", "-d", "--name", "box"], words.as_slice()].concat())?.ok()?;
    wait_for(Duration::from_secs(20), || world.coffer(&["logs", "box"]).is_ok_and(|it| it.text().contains("asking")))?;
    for _ in 0..6 {
        let looked = world.coffer(&["refresh-secrets", ALLOW, "box"])?;
        ensure!(looked.status == 0 || looked.status == 7, "{}", looked.describe());
        says(&world.coffer(&["exec", ALLOW, "box", "echo", "inside"])?, 0, &["inside"]).context(looked.describe())?;
    }
    let told = world.coffer(&["logs", "box"])?.ok()?;
    ensure!(!told.contains("coffer: "), "{told}");
    world.coffer(&["rm", "-f", "box"])?.ok()?;
    Ok(())
}
