//! Images go to a real registry and into files, and come back: Debian's registry, skopeo and buildah read what we write, and we
//! read what they do. Nothing of it needs a box.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use coffer_tests::{World, image::pulled, process::run, services::Registry};
use serde_json::Value;

/// A user `ann` with the password `secret`, as htpasswd writes one down.
const USERS: &str = "ann:$2b$04$TpuUZ0x3EiIa.rB48yPTnOMcr7Zn9JubtffJQW.qL8ss1shtxhqbO\n";

fn skopeo(words: &[&str]) -> Result<String> {
    run(Command::new("skopeo").args(words), b"")?.ok()
}

/// The digest of an image's manifest and its configuration's, as the store has them.
fn digests(world: &World, name: &str) -> Result<(String, String)> {
    let inspected: Value = serde_json::from_str(&world.coffer(&["image", "inspect", name])?.ok()?)?;
    let text = |key: &str| inspected[0][key].as_str().map(str::to_owned).with_context(|| format!("{key}: {inspected}"));
    Ok((text("ManifestDigest")?, text("Id")?))
}

#[test]
fn what_is_pushed_to_a_registry_is_the_same_for_whoever_takes_it() -> Result<()> {
    let world = World::new()?;
    let (registry, image) = pulled(&world)?;
    let (manifest, id) = digests(&world, &image)?;
    let name = format!("{}/team/tools:1", registry.address);
    world.coffer(&["tag", &image, &name])?.ok()?;
    let said = world.coffer(&["push", &name])?.ok()?;
    ensure!(said.contains(&format!("1: digest: {manifest} size: ")), "{said}");
    let again: Value = serde_json::from_str(&world.coffer(&["--json", "push", &name])?.ok()?)?;
    ensure!(again["sent"] == 0 && again["digest"] == *manifest, "{again}");

    let raw = skopeo(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")])?;
    let copied = world.folder.path().join("copied");
    let to = format!("dir:{}", copied.display());
    skopeo(&["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", &format!("docker://{name}"), &to])?;
    ensure!(fs::read_to_string(copied.join("manifest.json"))? == raw);

    let other = World::new()?;
    other.coffer(&["image", "pull", "-q", &name])?.ok()?;
    ensure!(digests(&other, &name)? == (manifest, id));
    Ok(())
}

#[test]
fn a_registry_that_wants_a_login_gets_it_from_where_docker_keeps_it() -> Result<()> {
    let world = World::new()?;
    let (_open, image) = pulled(&world)?;
    let folder = world.folder.path().join("closed");
    fs::create_dir(&folder)?;
    let users = folder.join("users");
    fs::write(&users, USERS)?;
    let auth = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", users.display());
    let closed = Registry::configured(&folder, &auth)?;
    let config = world.folder.path().join("docker");
    let coffer = |words: &[&str], input: &[u8]| run(world.command(words).env("DOCKER_CONFIG", &config), input);
    let name = format!("{}/a:1", closed.address);
    world.coffer(&["tag", &image, &name])?.ok()?;
    let refused = coffer(&["push", &name], b"")?;
    ensure!(refused.status == 6 && refused.stderr.contains("coffer login"), "{}", refused.describe());

    let login = ["login", "-u", "ann", "--password-stdin", &closed.address];
    let wrong = coffer(&login, b"guessed\n")?;
    ensure!(wrong.status == 6 && !wrong.text().contains("guessed") && !config.exists(), "{}", wrong.describe());
    let said = coffer(&login, b"secret\n")?.ok()?;
    ensure!(said.contains("Login Succeeded"), "{said}");
    coffer(&["push", &name], b"")?.ok()?;
    coffer(&["rmi", &name], b"")?.ok()?;
    coffer(&["pull", "-q", &name], b"")?.ok()?;

    // Docker's tools find it there as well.
    let file = config.join("config.json");
    let file = file.to_str().context("a plain name")?;
    skopeo(&["inspect", "--tls-verify=false", "--authfile", file, &format!("docker://{name}")])?;
    let out = coffer(&["logout", &closed.address], b"")?.ok()?;
    ensure!(out.contains("Removing login credentials"), "{out}");
    ensure!(coffer(&["pull", "-q", &name], b"")?.status == 6);
    Ok(())
}

#[test]
fn images_used_longest_ago_make_room_for_those_that_come() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let root = world.folder.path().join("root.tar");
    run(Command::new("tar").arg("-cf").arg(&root).args(["-C", "/", "etc/hostname"]), b"")?.ok()?;
    let root = root.to_str().context("a plain name")?;
    fs::write(world.home().join("images.toml"), "limit = \"1\"\n")?;
    let came = world.coffer(&["import", root, "team/first:1"])?;
    ensure!(came.status == 0 && came.stderr.contains(&format!("limit: {image}")), "{}", came.describe());
    ensure!(world.coffer(&["images", "--format", "{{.Repository}}"])?.ok()? == "team/first\n", "it has just come");
    world.coffer(&["import", "--message", "another", root, "team/second:1"])?.ok()?;
    ensure!(world.coffer(&["images", "--format", "{{.Repository}}"])?.ok()? == "team/second\n");
    fs::write(world.home().join("images.toml"), "limt = 1\n")?;
    let refused = world.coffer(&["pull", &image])?;
    ensure!(refused.status == 3 && refused.stderr.contains("images.toml cannot be used"), "{}", refused.describe());
    Ok(())
}

#[test]
fn files_of_images_are_read_by_skopeo_and_buildah_and_theirs_by_us() -> Result<()> {
    let world = World::new()?;
    let (_registry, image) = pulled(&world)?;
    let (_, id) = digests(&world, &image)?;
    world.coffer(&["tag", &image, "team/tools:1"])?.ok()?;
    let at = |name: &str| world.folder.path().join(name).display().to_string();
    let saved = at("saved.tar");
    world.coffer(&["save", "-o", &saved, "team/tools:1"])?.ok()?;
    let piped = world.command(&["save", "team/tools:1"]).stdout(fs::File::create(at("piped.tar"))?).status()?;
    ensure!(piped.success() && fs::read(&saved)? == fs::read(at("piped.tar"))?);
    for (kind, file) in [("docker-archive", "d.tar"), ("oci-archive", "o.tar"), ("oci", "o.dir")] {
        let (from, to) = (format!("oci-archive:{saved}"), format!("{kind}:{}:team/other:1", at(file)));
        skopeo(&["copy", "--quiet", "--insecure-policy", &from, &to])?;
        let other = World::new()?;
        other.coffer(&["pull", "-q", &format!("{kind}:{}", at(file))])?.ok()?;
        let listed: Value = serde_json::from_str(&other.coffer(&["--json", "images"])?.ok()?)?;
        ensure!(listed[0]["id"] == *id && listed.as_array().is_some_and(|all| all.len() == 1), "{kind}: {listed}");
    }
    let (root, runroot) = (at("root"), at("run"));
    let globals = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
    let buildah = |words: &[&str]| run(Command::new("buildah").args(globals).args(words), b"")?.ok();
    let from = format!("oci-archive:{saved}");
    let taken = buildah(&["pull", "--quiet", "--policy", "always", &from])?;
    ensure!(format!("sha256:{}", taken.trim()) == id, "{taken}");
    buildah(&["push", "--quiet", taken.trim(), &format!("oci-archive:{}:team/built:1", at("b.tar"))])?;
    let loaded = world.coffer(&["load", "-i", &at("b.tar")])?.ok()?;
    ensure!(loaded.contains("team/built:1"), "{loaded}");
    ensure!(digests(&world, "team/built:1")?.1 == id);
    Ok(())
}
