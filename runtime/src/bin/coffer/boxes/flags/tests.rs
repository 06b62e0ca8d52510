use super::*;
use clap::Parser as _;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    flags: BoxFlags,
}

fn parse(line: &str) -> Result<BoxFlags, clap::Error> {
    Line::try_parse_from(std::iter::once("x").chain(line.split(' '))).map(|line| line.flags)
}

fn home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::open(dir.path().join("home").as_path()).unwrap();
    (dir, home)
}

#[test]
fn words_after_the_image_belong_to_the_workload() {
    let flags = parse("-e A=1 busybox sh -c -e --json").unwrap();
    assert_eq!(flags.image.as_deref(), Some("busybox"));
    assert_eq!(flags.command, ["sh", "-c", "-e", "--json"]);
    assert_eq!(flags.env, ["A=1"]);
}

#[test]
fn real_and_simulated_hardware_exclude_each_other() {
    assert!(parse("--tee --tee-simulate busybox").is_err());
    assert_eq!(parse("busybox").unwrap().tee_wanted(), Tee::None);
    assert_eq!(parse("--tee busybox").unwrap().tee_wanted(), Tee::Snp);
    assert_eq!(parse("--isolation snp busybox").unwrap().tee_wanted(), Tee::Snp);
    assert_eq!(parse("--isolation qemu --tee-simulate busybox").unwrap().tee_wanted(), Tee::Simulated);
    assert!(parse("--isolation snp --tee-simulate busybox").unwrap().check_isolation().is_err());
    assert!(parse("--isolation none busybox").is_err());
    let refusal = check_hardware(Tee::Snp).unwrap_err();
    assert_eq!(refusal.class, Class::Platform);
    assert!(refusal.hint.unwrap().contains("--tee-simulate"));
}

#[test]
fn the_local_key_is_an_owner_only_in_simulation() {
    let (_dir, home) = home();
    let none = parse("busybox").unwrap();
    assert!(none.owners(&home, Tee::None).unwrap().is_empty());
    assert!(none.owners(&home, Tee::Snp).unwrap().is_empty());
    assert!(owner_access::load(&home.owner()).is_err());
    let simulated = none.owners(&home, Tee::Simulated).unwrap();
    assert_eq!(simulated[0].key, owner_access::load(&home.owner()).unwrap().spki());
    assert_eq!(simulated[0].may, OwnerMay::all());
}

#[test]
fn a_spec_cannot_be_changed_by_flags() {
    assert!(parse("--spec s.toml -e A=1").is_err());
    assert!(parse("--spec s.toml --host-may logs").is_err());
    assert!(parse("--spec s.toml busybox sh").is_err());
    assert!(parse("--spec s.toml --cpus 2").is_ok());
    assert!(parse("--cpus 1").is_err());
}

#[test]
fn numbers_out_of_range_are_named() {
    for (line, word) in [("--cpus 0 b", "--cpus"), ("--cpus 1.5 b", "--cpus"), ("--cpus 99 b", "--cpus")] {
        assert!(parse(line).unwrap().vcpus().unwrap_err().message.contains(word), "{line}");
    }
    for line in ["-m 6m b", "-m 9g b", "-m lots b"] {
        assert_eq!(parse(line).unwrap().memory_bytes().unwrap_err().class, Class::Usage, "{line}");
    }
    assert_eq!(parse("-m 256m b").unwrap().memory_bytes().unwrap(), 256 << 20);
}

#[test]
fn secrets_need_a_pinned_broker() {
    assert!(parse("--secret kbs:///a/b/c=n busybox").is_err());
    assert!(parse("--kbs h:1 busybox").is_err());
    let (_dir, home) = home();
    let pin = "ab".repeat(32);
    let flags = parse(&format!("--kbs h:1 --kbs-pin {pin} --secret kbs:///a/b/c=n busybox")).unwrap();
    let wishes = flags.wishes(&home).unwrap();
    assert_eq!(wishes.kbs.unwrap().spki[0].to_string(), pin);
    let bad = parse("--kbs h:1 --kbs-pin zz busybox").unwrap();
    assert!(bad.wishes(&home).unwrap_err().message.contains("--kbs-pin"));
}

#[test]
fn host_may_is_exactly_what_is_listed() {
    let (_dir, home) = home();
    let may = |line: &str| parse(line).unwrap().wishes(&home).unwrap().host_may;
    assert_eq!(may("busybox"), None);
    assert_eq!(may("--host-may logs,stop busybox").unwrap().to_string(), "stop,logs");
    assert_eq!(may("--host-may none busybox"), Some(HostMay::none()));
    for line in ["--host-may none,exec busybox", "--host-may logs,logs busybox", "--host-may inject busybox"] {
        assert!(parse(line).unwrap_err().to_string().contains("--host-may"), "{line}");
    }
}
