//! Programs in the workload's place, in real namespaces: needs root and a static busybox, and says so where they are absent.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use coffer_guest::{
    container::{Bind, Cause, Orders, Place, Program, TerminalSize, Users},
    lines::output_pipe,
    passwd::Identity,
    reaper::Reaper,
    secret_env::SecretEnv,
    spawn::{StartError, Started, Starting, start},
};
use coffer_spec::{Capability, Mount, Resource, ResourceLimit, Rights};
use tokio::io::AsyncReadExt;

const BUSYBOX: &str = "/bin/busybox";
const BINARY: &str = env!("CARGO_BIN_EXE_coffer-init");

fn tmpfs(to: &str) -> Mount {
    Mount::new(to, 1 << 20)
}

struct World {
    folder: tempfile::TempDir,
    reaper: Arc<Reaper>,
    users: Users,
    rights: Rights,
}

impl World {
    /// Where workloads have a user namespace of their own.
    fn with_own_users() -> Option<Self> {
        Self::new().map(|world| Self { users: Users::Own, ..world })
    }

    /// Nothing where this machine cannot show it.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            eprintln!("skipped: needs root and {BUSYBOX}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("root/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::create_dir(folder.path().join("secrets")).unwrap();
        fs::create_dir(folder.path().join("sockets")).unwrap();
        fs::write(folder.path().join("secrets/token"), "hush").unwrap();
        fs::copy(BUSYBOX, bin.join("busybox")).unwrap();
        for name in [
            "sh", "cat", "id", "ls", "mknod", "mount", "sleep", "unshare", "hostname", "grep", "ps", "stty", "tty",
            "chown", "head",
        ] {
            symlink("busybox", bin.join(name)).unwrap();
        }
        fs::write(bin.join("plain"), "no program").unwrap();
        let reaper = Arc::new(Reaper::default());
        let reaping = reaper.clone();
        tokio::spawn(async move { reaping.run().await });
        Some(Self { folder, reaper, users: Users::Machine, rights: Rights::default() })
    }

    fn place(&self) -> Place {
        self.place_with(vec![tmpfs("/cache")], vec![])
    }

    fn place_with(&self, tmpfs: Vec<Mount>, volumes: Vec<Bind>) -> Place {
        let at = |name: &str| -> PathBuf { self.folder.path().join(name) };
        Place::New {
            root: at("root"),
            secrets: at("secrets"),
            agent: at("sockets"),
            hostname: "boxed".into(),
            domainname: None,
            read_only: false,
            shm_bytes: 1 << 20,
            sysctls: Vec::new(),
            tmpfs,
            volumes,
            network: None,
        }
    }

    async fn run(&self, place: Place, uid: u32, argv: &[&str]) -> Result<(i32, String), StartError> {
        let (mut stdout, theirs) = output_pipe().unwrap();
        let errors = theirs.try_clone().unwrap();
        let started = self.start(place, uid, argv, [Stdio::null(), theirs.into(), errors.into()]).await?;
        let mut output = String::new();
        let reading = stdout.read_to_string(&mut output);
        tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
        Ok((started.status.await.unwrap(), output))
    }

    async fn start(&self, place: Place, uid: u32, argv: &[&str], stdio: [Stdio; 3]) -> Result<Started, StartError> {
        self.start_in(None, place, uid, argv, stdio).await
    }

    async fn start_in(
        &self,
        terminal: Option<TerminalSize>,
        place: Place,
        uid: u32,
        argv: &[&str],
        stdio: [Stdio; 3],
    ) -> Result<Started, StartError> {
        self.begin(terminal, place, uid, argv, stdio)?.started().await
    }

    fn begin(
        &self,
        terminal: Option<TerminalSize>,
        place: Place,
        uid: u32,
        argv: &[&str],
        stdio: [Stdio; 3],
    ) -> Result<Starting, StartError> {
        let identity = Identity { uid, gid: uid, groups: vec![], home: "/".into() };
        let argv = argv.iter().map(ToString::to_string).collect();
        let (env, rights) = (vec!["PLAIN=plain".into()], self.rights.clone());
        let program = Program { argv, env, cwd: "/work".into(), identity, rights, terminal, init: false, own: None };
        let mut secrets = SecretEnv::default();
        secrets.set(&"TOKEN".parse().unwrap(), b"in-env").unwrap();
        start(
            Path::new(BINARY),
            &self.reaper,
            &Orders { place, program, control_group: None, users: self.users },
            &secrets,
            stdio,
        )
    }
}

#[tokio::test]
async fn a_program_for_which_nobody_waits_any_more_ends_as_soon_as_it_has_started() {
    let Some(world) = World::new() else { return };
    let (mut stdout, theirs) = output_pipe().unwrap();
    let script = ["sh", "-c", "echo up; exec sleep 4298"];
    let starting = world.begin(None, world.place(), 0, &script, [Stdio::null(), theirs.into(), Stdio::null()]);
    drop(starting.unwrap());
    let mut output = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), stdout.read_to_string(&mut output)).await;
    assert!(ended.is_ok(), "it goes on: {output}");
}

#[tokio::test]
async fn the_workload_sees_its_own_world_and_its_status_comes_back() {
    let Some(world) = World::new() else { return };
    let script = "hostname; echo $$ $TOKEN $PLAIN; cat /run/secrets/token; echo; ls /dev; exit 7";
    let (status, output) = world.run(world.place(), 0, &["sh", "-c", script]).await.unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!((status, &lines[..3]), (7, &["boxed", "1 in-env plain", "hush"][..]), "{output}");
    assert_eq!(
        lines[3..],
        ["fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"]
    );
    assert!(!world.folder.path().join("root/dev/null").exists(), "mounts stay inside");
}

#[tokio::test]
async fn settings_are_the_workloads_own_and_one_that_is_not_there_stops_it() {
    let Some(world) = World::new() else { return };
    let ours = fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    let settings = |text: &str| {
        let mut place = world.place();
        let Place::New { sysctls, .. } = &mut place else { unreachable!() };
        *sysctls = vec![text.parse().unwrap()];
        place
    };
    let script = ["cat", "/proc/sys/kernel/shmmni"];
    let (status, output) = world.run(settings("kernel.shmmni=77"), 0, &script).await.unwrap();
    assert_eq!((status, output.as_str()), (0, "77\n"));
    assert_eq!(fs::read_to_string("/proc/sys/kernel/shmmni").unwrap(), ours);
    for bad in ["net.ipv4.nosuch=1", "kernel.shmmni=many"] {
        let error = world.run(settings(bad), 0, &script).await.unwrap_err();
        assert_eq!(error.cause, Cause::Setting, "{error}");
    }
}

#[tokio::test]
async fn a_workload_with_users_of_its_own_has_its_capabilities_among_them_alone() {
    let Some(world) = World::with_own_users() else { return };
    let script = "cat /proc/self/uid_map; id -u; cat /run/secrets/token; echo; ls /dev; echo x > /dev/null; ls -ln /proc/1/ns/user";
    let (status, output) = world.run(world.place(), 0, &["sh", "-c", script]).await.unwrap();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(status, 0, "{output}");
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "0", "65536"], "{output}");
    assert_eq!(lines[1..3], ["0", "hush"], "{output}");
    assert!(lines.contains(&"null") && lines.contains(&"pts"), "{output}");
    let ours = fs::read_link("/proc/self/ns/user").unwrap();
    assert!(output.contains("user:[") && !output.contains(ours.to_str().unwrap()), "{output}");
    for attempt in ["mknod /dev/mem c 1 1", "mount -t tmpfs x /cache", "unshare -U true", "hostname other"] {
        let (status, output) = world.run(world.place(), 0, &["sh", "-c", attempt]).await.unwrap();
        assert_ne!(status, 0, "{attempt}: {output}");
    }
    // What is executed beside it is among the same users.
    let (_, theirs) = output_pipe().unwrap();
    let sleeping = [Stdio::null(), theirs.into(), Stdio::null()];
    let running = world.start(world.place(), 0, &["sleep", "600"], sleeping).await.unwrap();
    let users = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    let beside = Place::Beside { workload: running.process };
    let (status, output) = world.run(beside, 5, &["sh", "-c", "id -u; ls -l /proc/self/ns/user"]).await.unwrap();
    assert_eq!(status, 0, "{output}");
    assert!(
        output.starts_with("5\n") && output.contains(users(running.process.number()).to_str().unwrap()),
        "{output}"
    );
    running.process.signal(9).unwrap();
}

#[tokio::test]
async fn what_reaches_around_the_agent_is_refused_even_to_root() {
    let Some(world) = World::new() else { return };
    for attempt in [
        "mknod /dev/mem c 1 1",
        "mount -t tmpfs x /cache",
        "unshare -U true",
        "echo x > /run/secrets/token",
        "echo 1 > /proc/sys/kernel/panic",
    ] {
        let (status, output) = world.run(world.place(), 0, &["sh", "-c", attempt]).await.unwrap();
        assert_ne!(status, 0, "{attempt}: {output}");
    }
    let (_, status) = world.run(world.place(), 0, &["cat", "/proc/self/status"]).await.unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("Seccomp:"), "2");
    for set in ["CapBnd:", "CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        let held = u64::from_str_radix(&field(set), 16).unwrap();
        assert_eq!(held & !0xa004_25fb, 0, "{set} {held:x} is within Docker's default set without MKNOD");
    }
}

#[tokio::test]
async fn a_program_has_the_rights_that_are_said_and_none_on_top() {
    let Some(world) = World::new() else { return };
    rights_of(world).await;
}

#[tokio::test]
async fn a_program_among_users_of_its_own_has_the_rights_that_are_said() {
    let Some(world) = World::with_own_users() else { return };
    rights_of(world).await;
}

async fn rights_of(mut world: World) {
    let limit = |of, soft, hard| ResourceLimit { of, soft, hard };
    world.rights = Rights {
        capabilities: Some(vec![Capability::Chown, Capability::NetBindService]),
        no_new_privileges: true,
        limits: vec![limit(Resource::Nofile, Some(77), Some(99)), limit(Resource::Fsize, Some(4096), Some(4096))],
        ..Rights::default()
    };
    let script = "cat /proc/self/status; ulimit -Sn; ulimit -Hn; head -c 9000 /dev/zero > /work/long; \
                  chown 5:5 /work && echo chowned";
    let (status, output) = world.run(world.place(), 0, &["sh", "-c", script]).await.unwrap();
    let field = |name: &str| output.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()), "{output}");
    for set in ["CapBnd:", "CapEff:", "CapPrm:"] {
        assert_eq!(field(set), "0000000000000401", "{set} {output}");
    }
    assert!(output.contains("\n77\n99\n") && output.ends_with("chowned\n") && status == 0, "{status} {output}");
    let long = world.folder.path().join("root/work/long");
    assert!(fs::metadata(long).unwrap().len() <= 4096);
    // Nor has what is executed beside it more.
    let (_, theirs) = output_pipe().unwrap();
    let running = world.start(world.place(), 0, &["sleep", "600"], [Stdio::null(), theirs.into(), Stdio::null()]);
    let running = running.await.unwrap();
    let beside = Place::Beside { workload: running.process };
    let (_, output) = world.run(beside, 0, &["sh", "-c", "grep CapBnd /proc/self/status; ulimit -n"]).await.unwrap();
    assert_eq!(output, "CapBnd:\t0000000000000401\n77\n");
    running.process.signal(9).unwrap();
    // What cannot be had is an error by name.
    world.rights.limits = vec![limit(Resource::Nofile, None, None)];
    let Err(error) = world.run(world.place(), 0, &["true"]).await else { panic!("no limit on open files") };
    assert!(error.to_string().contains("set the limit nofile"), "{error}");
}

#[tokio::test]
async fn another_user_has_no_capabilities() {
    let Some(world) = World::new() else { return };
    let script = "id -u; grep CapEff /proc/self/status";
    let (status, output) = world.run(world.place(), 1000, &["sh", "-c", script]).await.unwrap();
    assert_eq!((status, output.as_str()), (0, "1000\nCapEff:\t0000000000000000\n"));
}

#[tokio::test]
async fn programs_that_do_not_start_have_dockers_status_and_their_true_cause() {
    let Some(world) = World::new() else { return };
    let bin = world.folder.path().join("root/bin");
    let script = |name: &str, text: &str| {
        fs::write(bin.join(name), text).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("lost", "#!/opt/nosuch -x\n");
    script("windows", "#!/bin/sh\r\necho hello\r\n");
    for (program, cause, status, words) in [
        ("absent", Cause::NotFound, 127, "start absent"),
        ("/bin/absent", Cause::NotFound, 127, "start /bin/absent"),
        ("/bin/plain", Cause::NotExecutable, 126, "start /bin/plain"),
        ("lost", Cause::Interpreter, 127, "\"/opt/nosuch\""),
        ("/bin/windows", Cause::Interpreter, 127, "CRLF"),
    ] {
        let error = world.run(world.place(), 0, &[program]).await.unwrap_err();
        assert_eq!((error.cause, error.cause.status()), (cause, status), "{program}: {error}");
        assert!(error.to_string().contains(words), "{program}: {error}");
    }
}

#[tokio::test]
async fn a_volume_on_etc_or_on_a_file_there_is_what_the_workload_sees() {
    let Some(world) = World::new() else { return };
    let volume = world.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("hosts"), "10.0.0.1 owner\n").unwrap();
    for (from, to) in [(volume.clone(), "/etc"), (volume.join("hosts"), "/etc/hosts")] {
        let place = world.place_with(vec![], vec![Bind { from, to: to.into(), read_only: true }]);
        let (status, output) = world.run(place, 0, &["cat", "/etc/hosts"]).await.unwrap();
        assert_eq!((status, output.as_str()), (0, "10.0.0.1 owner\n"), "{to}");
    }
}

#[tokio::test]
async fn a_volume_is_written_to_where_it_may_be_and_not_where_it_may_not() {
    let Some(mut world) = World::new() else { return };
    for users in [Users::Machine, Users::Own] {
        world.users = users;
        let volume = world.folder.path().join(format!("{users:?}"));
        fs::create_dir(&volume).unwrap();
        let bind = |to: &str, read_only| Bind { from: volume.clone(), to: to.into(), read_only };
        let place = world.place_with(vec![], vec![bind("/data", false), bind("/cold", true)]);
        let script = "echo kept >/data/x; cat /cold/x; echo x >/cold/y";
        let (status, output) = world.run(place, 0, &["sh", "-c", script]).await.unwrap();
        assert!(status != 0 && output.starts_with("kept\n") && output.contains("Read-only"), "{users:?}: {output}");
        assert_eq!(fs::read(volume.join("x")).unwrap(), b"kept\n");
    }
}

#[tokio::test]
async fn nothing_is_mounted_where_a_link_of_the_image_leads_to_a_folder_of_the_guests_own() {
    let Some(world) = World::new() else { return };
    let root = world.folder.path().join("root");
    for (link, to) in [("x", "/proc"), ("y", "run"), ("z", "/run/secrets"), ("d", "dev/shm"), ("r", "/"), ("c", "l")] {
        symlink(to, root.join(link)).unwrap();
    }
    symlink("/run/coffer/..//coffer", root.join("l")).unwrap();
    let volume = world.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    for target in ["/x", "/y/secrets", "/z", "/d", "/r", "/c", "/x/sys"] {
        for is_tmpfs in [true, false] {
            let bind = Bind { from: volume.clone(), to: target.into(), read_only: true };
            let (tmpfs, volumes) = if is_tmpfs { (vec![tmpfs(target)], vec![]) } else { (vec![], vec![bind]) };
            let place = world.place_with(tmpfs, volumes);
            let error = world.run(place, 0, &["true"]).await.unwrap_err();
            assert_eq!((error.cause, error.cause.status()), (Cause::Place, 125), "{target}: {error}");
            assert!(error.to_string().contains(&format!("mount {target}")), "{error}");
        }
    }
}

#[tokio::test]
async fn what_the_image_has_no_place_for_is_told_apart_from_a_failure_of_ours() {
    let Some(world) = World::new() else { return };
    let volume = world.folder.path().join("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("file"), "words").unwrap();
    let bind = |from: &Path, to: &str| Bind { from: from.into(), to: to.into(), read_only: true };
    let etc = world.folder.path().join("root/etc");
    fs::create_dir(&etc).unwrap();
    fs::write(etc.join("passwd"), "").unwrap();
    let cases = [
        (vec![tmpfs("/bin/busybox")], vec![]),
        (vec![], vec![bind(&volume, "/bin/busybox")]),
        (vec![], vec![bind(&volume.join("file"), "/etc")]),
        (vec![], vec![bind(&volume, "/etc/passwd/x")]),
        (vec![tmpfs("/usr/x")], vec![bind(&volume, "/usr")]),
    ];
    for (tmpfs, volumes) in cases {
        let place = world.place_with(tmpfs.clone(), volumes.clone());
        let error = world.run(place, 0, &["true"]).await.unwrap_err();
        assert_eq!(error.cause, Cause::Place, "{tmpfs:?} {volumes:?}: {error}");
    }
    fs::remove_dir_all(world.folder.path().join("root/work")).ok();
    fs::write(world.folder.path().join("root/work"), "no folder").unwrap();
    let error = world.run(world.place(), 0, &["true"]).await.unwrap_err();
    assert!(error.cause == Cause::Place && error.to_string().contains("/work"), "{error}");
}

#[tokio::test]
async fn no_program_starts_from_a_tmpfs_that_says_so() {
    let Some(world) = World::new() else { return };
    for (noexec, status) in [(false, 0), (true, 126)] {
        let place = world.place_with(vec![Mount { noexec, ..Mount::new("/cache", 8 << 20) }], vec![]);
        let script = "cat /bin/busybox > /cache/true; /bin/busybox chmod 755 /cache/true; /cache/true";
        let (found, output) = world.run(place, 0, &["sh", "-c", script]).await.unwrap();
        assert_eq!(found, status, "{output}");
    }
}

#[tokio::test]
async fn a_tmpfs_is_as_large_as_said_and_has_the_owner_and_the_permissions_that_were() {
    let Some(mut world) = World::new() else { return };
    for users in [Users::Machine, Users::Own] {
        world.users = users;
        let mode = |bits| coffer_spec::FolderMode::new(bits).unwrap();
        let mounts = vec![
            Mount { mode: mode(0o750), uid: 5, gid: 6, ..Mount::new("/mine", 64 << 10) },
            Mount { read_only: true, ..Mount::new("/bin", 1 << 20) },
            Mount { read_only: true, ..Mount::new("/closed", 1 << 20) },
        ];
        let script = "/busybox stat -c '%a %u:%g' /mine /closed /dev/shm; /busybox ls -A /bin; /busybox touch /closed/x; \
            for to in /mine /dev/shm; do /busybox head -c 900k /dev/zero >$to/x && echo $to has room; \
            /busybox rm $to/x; done; exit 3";
        let from = world.folder.path().join("root");
        fs::copy(from.join("bin/busybox"), from.join("busybox")).unwrap();
        let place = world.place_with(mounts, vec![]);
        let (status, output) = world.run(place, 0, &["/busybox", "sh", "-c", script]).await.unwrap();
        let said: Vec<&str> = output.lines().filter(|line| !line.contains("busybox")).collect();
        assert_eq!((status, &said[..3]), (3, &["750 5:6", "1777 0:0", "1777 0:0"][..]), "{output}");
        assert_eq!(said[3..].iter().filter(|line| line.contains("has room")).count(), 1, "{output}");
        assert!(said.contains(&"/dev/shm has room"), "{output}");
        assert!(said.iter().any(|line| line.contains("/closed/x: Read-only file system")), "{output}");
    }
}

#[tokio::test]
async fn nothing_is_written_to_a_root_that_is_read_only_by_the_workload_or_beside_it() {
    let Some(mut world) = World::new() else { return };
    for users in [Users::Machine, Users::Own] {
        world.users = users;
        let mut place = world.place();
        let Place::New { read_only, .. } = &mut place else { unreachable!() };
        *read_only = true;
        // The working directory was made, names are there, and what is mounted is as writable as it was.
        let script = "cat /etc/hostname; for at in / /etc /etc/hostname /bin/sh /work; do echo x 2>/dev/null >$at/x || \
            echo x 2>/dev/null >>$at || echo $at is closed; done; echo x >/cache/x && echo x >/dev/shm/x && echo open; \
            mount -o remount,rw / || echo and stays so; exec sleep 600";
        let (mut stdout, theirs) = output_pipe().unwrap();
        let errors = theirs.try_clone().unwrap();
        let stdio = [Stdio::null(), theirs.into(), errors.into()];
        let started = world.start(place, 0, &["sh", "-c", script], stdio).await.unwrap();
        let mut output = String::new();
        while !output.contains("and stays so") {
            let mut some = [0; 4096];
            let count = tokio::time::timeout(Duration::from_secs(20), stdout.read(&mut some)).await.unwrap().unwrap();
            assert!(count > 0, "{output}");
            output.push_str(&String::from_utf8_lossy(&some[..count]));
        }
        for line in [
            "boxed",
            "/ is closed",
            "/etc is closed",
            "/etc/hostname is closed",
            "/bin/sh is closed",
            "/work is closed",
            "open",
        ] {
            assert!(output.lines().any(|found| found == line), "{line}: {output}");
        }
        let beside = Place::Beside { workload: started.process };
        let (status, said) = world.run(beside, 0, &["sh", "-c", "echo x >/etc/new"]).await.unwrap();
        assert!(status != 0 && said.contains("Read-only"), "{status} {said}");
        // The agent's own view is as it was.
        fs::write(world.folder.path().join("root/etc/of-the-agent"), "x").unwrap();
        started.process.signal(libc::SIGKILL).unwrap();
    }
}

#[tokio::test]
async fn a_workload_cannot_start_the_agents_own_file() {
    let Some(world) = World::new() else { return };
    let script = world.folder.path().join("root/bin/again");
    fs::write(&script, "#!/proc/self/exe start-program\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let error = world.run(world.place(), 0, &["again"]).await.unwrap_err();
    assert_eq!((error.cause, error.errno), (Cause::NotExecutable, libc::EACCES), "{error}");
}

#[tokio::test]
async fn nobody_changes_the_agents_own_file_through_a_helper() {
    let Some(world) = World::new() else { return };
    let mode = || fs::metadata(BINARY).unwrap().permissions().mode();
    let before = mode();
    let stdio = || [Stdio::null(), Stdio::null(), Stdio::null()];
    let sleeper = world.start(world.place(), 0, &["sleep", "1000"], stdio()).await.unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", sleeper.process.number())).unwrap();
    let helper: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let exe = format!("/proc/{helper}/exe");
    assert_eq!(
        fs::metadata(&exe).unwrap().ino(),
        fs::metadata(BINARY).unwrap().ino(),
        "the helper waits for its program"
    );
    // With every right of root on this machine, which no workload has.
    let descriptor = fs::File::open(&exe).unwrap();
    let changed = descriptor.set_permissions(fs::Permissions::from_mode(0o000));
    let after = mode();
    if after != before {
        fs::set_permissions(BINARY, fs::Permissions::from_mode(before)).unwrap();
    }
    sleeper.process.signal(libc::SIGKILL).unwrap();
    assert_eq!(changed.unwrap_err().raw_os_error(), Some(libc::EROFS));
    assert_eq!(after, before);
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    assert!(std::process::Command::new(&exe).status().is_err(), "nor does it run again from there");
    assert_eq!(world.run(world.place(), 0, &["sh", "-c", "exit 4"]).await.unwrap().0, 4, "the next start works");
}

#[tokio::test]
async fn a_program_beside_the_workload_shares_its_world_and_ends_with_it() {
    let Some(world) = World::new() else { return };
    let stdio = || [Stdio::null(), Stdio::null(), Stdio::null()];
    let workload = world.start(world.place(), 0, &["sleep", "1000"], stdio()).await.unwrap();
    let beside = || Place::Beside { workload: workload.process };
    let (status, output) =
        world.run(beside(), 0, &["sh", "-c", "hostname; cat /proc/1/cmdline; exit 3"]).await.unwrap();
    assert_eq!((status, output.as_str()), (3, "boxed\nsleep\x001000\x00"));
    assert_eq!(world.run(beside(), 0, &["absent"]).await.unwrap_err().cause, Cause::NotFound);

    let companion = world.start(beside(), 0, &["sleep", "1000"], stdio()).await.unwrap();
    workload.process.signal(libc::SIGKILL).unwrap();
    assert_eq!(workload.status.await.unwrap(), 137);
    assert_eq!(companion.status.await.unwrap(), 137, "its world is gone");
}

/// The other end of a terminal, as its program sent it before it ran.
fn terminal_over(socket: &std::os::unix::net::UnixStream) -> fs::File {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket, &mut [std::io::IoSliceMut::new(&mut byte)], &mut rights, RecvFlags::DONTWAIT).unwrap();
    let descriptor = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    fs::File::from(descriptor.expect("a descriptor came"))
}

/// All that is shown until nothing has the terminal open any more, which its reader hears as an error.
async fn shown(mut terminal: fs::File) -> String {
    let reading = tokio::task::spawn_blocking(move || {
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match std::io::Read::read(&mut terminal, &mut buffer) {
                Ok(count @ 1..) => all.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let mut polled = [rustix::event::PollFd::new(&terminal, rustix::event::PollFlags::IN)];
                    rustix::event::poll(&mut polled, None).unwrap();
                }
                Ok(0) | Err(_) => return String::from_utf8(all).unwrap(),
            }
        }
    });
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_terminal_is_the_programs_own() {
    let Some(world) = World::new() else { return };
    terminals_of(&world).await;
}

#[tokio::test]
async fn a_terminal_is_the_programs_own_among_users_of_its_own() {
    let Some(world) = World::with_own_users() else { return };
    terminals_of(&world).await;
}

async fn terminals_of(world: &World) {
    for uid in [0, 1000] {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let script = "tty; stty size; echo asked >/dev/tty; ls -ln /dev/pts/0; cat; exit 5";
        let size = Some(TerminalSize { rows: 33, columns: 101 });
        let theirs = std::os::fd::OwnedFd::from(theirs);
        let stdio = [theirs.into(), Stdio::null(), Stdio::null()];
        let started = world.start_in(size, world.place(), uid, &["sh", "-c", script], stdio).await.unwrap();
        let mut terminal = terminal_over(&ours);
        // Not shown when it is typed, in the midst of what the program says: `cat` shows it.
        let mut modes = rustix::termios::tcgetattr(&terminal).unwrap();
        modes.local_modes -= rustix::termios::LocalModes::ECHO;
        rustix::termios::tcsetattr(&terminal, rustix::termios::OptionalActions::Now, &modes).unwrap();
        // A line, and the end of input as one types it.
        std::io::Write::write_all(&mut terminal, b"typed\n\x04").unwrap();
        let text = shown(terminal).await.replace('\r', "");
        for line in ["/dev/pts/0", "33 101", "asked", "typed"] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        let owned = |line: &str| line.starts_with('c') && line.split_whitespace().nth(2) == Some(&uid.to_string());
        assert!(text.lines().any(owned), "{uid}: {text}");
        assert_eq!(started.status.await.unwrap(), 5, "{text}");
    }
}
