//! PID 1: the whole life of the guest, from the first mount to power-off.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coffer_guest_proto::Phase;
use coffer_kbs_client::BrokerClient;
use coffer_machine::{disks, initrd, map::SECRETS_GPA};
use coffer_ratls::{Attester, Identity, IdentityKey, MAX_CERTIFICATE_EVIDENCE};
use coffer_spec::{Document, MeasuredCommandLine, Scratch, WorkloadSpec};
use coffer_verifier::{binding::certificate_report_data, evidence::Evidence};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::{
    agent::{Agent, StopOrder, keep_current, serve},
    boot::{
        self, Checked, data, devices, memory, mounts,
        namespaces::{self, Left},
        network, root, scratch, tee,
        verity::OnCorruption,
        volumes,
    },
    broker::{self, questions::Whose},
    card::{self, Held},
    container::{Bind, Cause, Users, rights},
    events::{Events, since_boot_us},
    failure::{Code, Failure, OrFail},
    farewell::{farewell, linger},
    host::{Host, Ports},
    ingress::{
        self,
        browsers::{Certified, PACE, first, keep},
    },
    owners::OwnersError,
    passwd::{Identity as User, UserError},
    peers,
    processor::{self, GuestAttester, Page, SharedProcessor},
    sealed::{self, Opened, Patience},
    sealing::Means,
    secrets::{self, Refresher},
    spawn::StartError,
    sys::{
        dev_mem,
        dm::DeviceMapper,
        net,
        seccomp::{self, Filter},
    },
    workload::{Places, check_limits, program, resolve_user, start_workload},
    workload_api::{self, OwnGuest},
};

/// What this init was started in.
enum Home {
    /// A machine of its own.
    Machine,
    /// Namespaces of the host's kernel.
    Namespaces(Left),
}

impl Home {
    fn host(&self) -> Host {
        match self {
            Self::Machine => Host::Vsock,
            Self::Namespaces(_) => Host::Sockets,
        }
    }
}

/// Runs as PID 1. Ends the machine, whatever happens.
pub fn run() -> std::process::ExitCode {
    if std::process::id() != 1 {
        eprintln!("coffer-init is PID 1 of a Coffer guest and does nothing else");
        return std::process::ExitCode::from(2);
    }
    if let Err(failure) = live(Home::Machine) {
        // The host is told by `live` once there is a line; the console always has the word.
        println!("coffer: {}", failure.code.word());
    }
    power_off();
    std::process::ExitCode::FAILURE
}

/// Runs as PID 1 of a box that has no machine; its end ends all of it. `words`: what init was left.
pub fn run_in_namespaces(words: &[String]) -> std::process::ExitCode {
    // Elsewhere it would take the host's own folders for those of a box.
    if std::process::id() != 1 {
        eprintln!("coffer-init is PID 1 of a Coffer box and does nothing else");
        return std::process::ExitCode::from(2);
    }
    // Before anything is read that somebody else wrote: whoever takes init over has what the filter leaves.
    let filtered = seccomp::install(Filter::OnHostKernel).or_fail(Code::Internal, "filter system calls");
    if let Err(failure) = filtered.and_then(|()| Left::take(words)).and_then(|left| live(Home::Namespaces(left))) {
        println!("coffer: {}", failure.code.word());
    }
    std::process::ExitCode::SUCCESS
}

fn power_off() {
    rustix::fs::sync();
    data::unmount_volumes();
    // `reboot=t` on the measured command line makes this a triple fault, which ends the VM.
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

fn live(home: Home) -> Result<(), Failure> {
    let (line, began_us) = match &home {
        Home::Machine => {
            mounts::early()?;
            devices::load_modules(initrd::MODULES, |_| String::new())?;
            (std::fs::read_to_string("/proc/cmdline").or_fail(Code::Internal, "read the command line")?, 0)
        }
        Home::Namespaces(_) => {
            namespaces::early()?;
            (namespaces::command_line()?, since_boot_us())
        }
    };
    let line = MeasuredCommandLine::parse(&line).or_fail(Code::SpecInvalid, "read the command line")?;
    let events = Arc::new(Events::connect(home.host(), boot::speech(line.tee), began_us));
    events.reached(Phase::Booted);
    let host = home.host();
    let result = boot_and_run(home, &line, &events);
    if let Err(failure) = &result {
        events.failed(failure);
        events.wait_until_heard(2 * host.farewell());
    }
    result
}

/// What the synchronous half of the boot gives.
struct Booted {
    checked: Checked,
    processor: Option<SharedProcessor>,
    volumes: Vec<Bind>,
    control_group: Option<PathBuf>,
    /// What holds the network card to its rules, where something does.
    held: Option<&'static Held>,
}

fn boot_and_run(mut home: Home, line: &MeasuredCommandLine, events: &Arc<Events>) -> Result<(), Failure> {
    let booted = match &mut home {
        Home::Machine => boot_machine(line, events)?,
        Home::Namespaces(left) => boot_in_namespaces(left, line, events)?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .or_fail(Code::Internal, "start the event loop")?;
    let result = runtime.block_on(agent_and_workload(home, booted, events));
    runtime.shutdown_background();
    result
}

fn boot_machine(line: &MeasuredCommandLine, events: &Events) -> Result<Booted, Failure> {
    let sys_block = Path::new(devices::SYS_BLOCK);
    let disk = devices::read_spec_disk(&devices::find_disk(sys_block, disks::SPEC)?)?;
    let checked = boot::check_spec(&disk, line)?;
    let spec = checked.document.spec();
    if matches!(spec.root.scratch, Scratch::Disk { .. }) || !spec.sealed_volumes.is_empty() {
        devices::load_modules(initrd::SCRATCH_MODULES, |module| scratch::module_parameters(spec, module))?;
    }
    if spec.network.is_some() {
        devices::load_modules(initrd::NETWORK_MODULES, |_| String::new())?;
    }
    mounts::leave_initrd()?;
    mounts::own_folders()?;
    if boot::is_tee(spec.tee) {
        devices::quiet_console()?;
    }
    net::loopback_up().or_fail(Code::Internal, "bring loopback up")?;
    let held = spec.network.as_ref().map_or(Ok(None), |card| network::hold_and_configure(card, spec.tee))?;
    set_clock(checked.clock, clock_gettime(ClockId::Boottime));
    let processor = open_processor(&checked.document, Host::Vsock, || dev_mem::take_page(SECRETS_GPA))?;
    events.reached(Phase::SpecChecked);
    let on_corruption = if boot::is_tee(spec.tee) { OnCorruption::Panic } else { OnCorruption::Fail };
    let mapper = DeviceMapper::open().or_fail(Code::Internal, "open the device mapper")?;
    root::mount_root(&mapper, &spec.root, &devices::find_disk(sys_block, disks::ROOT)?, on_corruption)?;
    let mut volumes = volumes::mount_volumes(&mapper, &spec.volumes, on_corruption)?;
    volumes.extend(data::mount_volumes(&spec.data_volumes)?);
    sealed::set_aside(spec)?;
    volumes.extend(sealed::binds(spec));
    let control_group = Some(memory::workload_share(spec)?);
    events.reached(Phase::RootReady);
    Ok(Booted { checked, processor, volumes, control_group, held })
}

/// The same, but for what is not the box's: kernel, modules, clock and devices.
fn boot_in_namespaces(left: &mut Left, line: &MeasuredCommandLine, events: &Events) -> Result<Booted, Failure> {
    let checked = boot::check_spec(&namespaces::read_spec()?, line)?;
    let spec = checked.document.spec();
    namespaces::check_needs(spec)?;
    mounts::own_folders()?;
    net::loopback_up().or_fail(Code::Internal, "bring loopback up")?;
    if let Some(card) = &spec.network {
        // The kernel is the host's, and init none of its administrators: rules are held to outside alone.
        network::configure(card)?;
    }
    namespaces::open_low_ports();
    rights::give_up_the_network().or_fail(Code::Internal, "give up the network")?;
    let processor = open_processor(&checked.document, Host::Sockets, || left.take_page())?;
    events.reached(Phase::SpecChecked);
    let volumes = namespaces::mount_images(left, spec)?;
    events.reached(Phase::RootReady);
    Ok(Booted { checked, processor, volumes, control_group: None, held: None })
}

/// The processor the spec demands, once it has shown that it is this workload's. `take_page`: where a simulated one put its
/// secrets.
fn open_processor(
    document: &Document,
    host: Host,
    take_page: impl FnOnce() -> std::io::Result<Page>,
) -> Result<Option<SharedProcessor>, Failure> {
    let spec = document.spec();
    tee::check_cpu(spec.tee, Path::new("/"))?;
    let mut processor = processor::open(spec.tee, host, take_page)?;
    if let Some(processor) = &mut processor {
        let report = tee::check_own_report(processor.as_mut(), &document.digest())?;
        tee::check_svn(&report, spec.floors.svn.as_ref())?;
    }
    Ok(processor.map(|processor| Arc::new(Mutex::new(processor))))
}

/// The host's clock, for certificates and logs; no decision rests on it alone.
fn set_clock(told: Option<u64>, since_boot: Timespec) {
    if let Some(time) = told.and_then(|told| clock(told, since_boot)) {
        let _ = clock_settime(ClockId::Realtime, time);
    }
}

/// The seconds were told at launch: what passed in this kernel since then is added, what passed before it is not known here.
fn clock(told: u64, since_boot: Timespec) -> Option<Timespec> {
    let tv_sec = i64::try_from(told).ok()?.checked_add(since_boot.tv_sec)?;
    Some(Timespec { tv_sec, tv_nsec: since_boot.tv_nsec })
}

async fn agent_and_workload(home: Home, booted: Booted, events: &Arc<Events>) -> Result<(), Failure> {
    let Booted { checked, processor, volumes, control_group, held } = booted;
    let host = home.host();
    let (ports, binary, users) = match home {
        // By whatever name: the folder it came from is out of sight.
        Home::Machine => (Ports::of_vsock(), PathBuf::from("/proc/self/exe"), Users::Machine),
        Home::Namespaces(left) => {
            let ports = Ports::behind(left.listener).or_fail(Code::Internal, "listen for the host")?;
            (ports, Path::new("/").join(initrd::INIT), Users::Own)
        }
    };
    let places = Places {
        binary,
        root: root::ROOT.into(),
        secrets: mounts::SECRETS.into(),
        sockets: mounts::SOCKETS.into(),
        volumes,
        control_group,
        users,
        host,
    };
    let agent = Arc::new(Agent::new(checked.document, events.clone(), places));
    let reaper = agent.reaper.clone();
    tokio::spawn(async move { reaper.run().await });
    if let Some(held) = held {
        tokio::spawn(card::tell(held, agent.logs.clone()));
    }
    serve::host_ports(&agent, &ports)?;
    let attested = match processor {
        Some(processor) => Some(open_owner_port(&agent, &ports, processor).await?),
        None => None,
    };
    events.reached(Phase::AgentReady);

    let mut stop = agent.stop_orders();
    let opening = AtomicBool::new(false);
    tokio::select! {
        result = prepare_and_run(&agent, host, attested, &opening) => result?,
        // Before the workload runs there is nothing to be gentle with, but for volumes, which would be left open: it starts then, and
        // is told to end.
        _ = stop.wait_for(|order| {
            order.is_some() && agent.workload().is_none() && !has_run(events) && !opening.load(Ordering::SeqCst)
        }) => {
            events.exited(128 + libc::SIGTERM);
        }
    }
    farewell(events, &ports, host.farewell()).await;
    Ok(())
}

fn has_run(events: &Events) -> bool {
    matches!(events.watch().borrow().phase, Phase::Running | Phase::Exited)
}

/// Who this guest is on a connection.
struct Attesting {
    identity: Identity,
    attester: Arc<dyn Attester>,
    processor: SharedProcessor,
    /// Ports that need a certificate.
    plain: Vec<Arc<Certified>>,
}

async fn open_owner_port(agent: &Arc<Agent>, ports: &Ports, processor: SharedProcessor) -> Result<Attesting, Failure> {
    let attester: Arc<dyn Attester> = Arc::new(GuestAttester::new(processor.clone(), &agent.document));
    let making = attester.clone();
    let identity = tokio::task::spawn_blocking(move || make_identity(&*making))
        .await
        .or_fail(Code::Internal, "make an identity")??;
    serve::owner_port(agent, ports, &identity, attester.clone(), processor.clone())?;
    // A host's kernel, which has other programs, has nothing to say of this guest.
    if agent.places.host == Host::Vsock {
        agent.ending.ask_kernel().or_fail(Code::Internal, "ask the kernel how it fares")?;
    }
    let plain = ingress::open(agent.document.spec(), ports, &identity, &attester, (&agent.logs, &agent.ending))?;
    peers::open(agent.document.spec(), agent.places.host, &attester, (&agent.logs, &agent.ending)).await?;
    let guest = OwnGuest { agent: agent.clone(), processor: processor.clone(), attester: attester.clone() };
    workload_api::open(&agent.places.sockets, guest).or_fail(Code::Internal, "open the workload's socket")?;
    Ok(Attesting { identity, attester, processor, plain })
}

/// A key made inside, in a certificate with evidence for it.
fn make_identity(attester: &dyn Attester) -> Result<Identity, Failure> {
    let key = IdentityKey::generate().or_fail(Code::Internal, "make a key")?;
    let evidence = attester
        .evidence(&certificate_report_data(&key.spki(), &attester.workload()))
        .or_fail(Code::Internal, "make evidence for the certificate")?;
    Identity::attested(&key, "coffer guest", &certificate_evidence(evidence))
        .or_fail(Code::Internal, "make a certificate")
}

/// What of the evidence goes into the certificate, which has room for less than a connection's Attest message carries: the
/// report always, certificates and spec where they fit. Whoever verifies asks on the connection.
fn certificate_evidence(mut evidence: Evidence) -> Vec<u8> {
    let whole = evidence.to_cmw();
    if whole.len() <= MAX_CERTIFICATE_EVIDENCE {
        return whole;
    }
    evidence.workload_spec.clear();
    let without_spec = evidence.to_cmw();
    if without_spec.len() <= MAX_CERTIFICATE_EVIDENCE {
        return without_spec;
    }
    evidence.cert_table.clear();
    evidence.to_cmw()
}

async fn prepare_and_run(
    agent: &Arc<Agent>,
    host: Host,
    attesting: Option<Attesting>,
    opening: &AtomicBool,
) -> Result<(), Failure> {
    let spec = agent.document.spec();
    let user = resolve_user(&agent.places.root, &spec.process.user, &spec.process.rights.groups);
    let code = if matches!(user, Err(UserError::Further(_))) { Code::GroupNotFound } else { Code::UserNotFound };
    let user = user.or_fail(code, "resolve the workload's user")?;
    check_limits(&spec.process, &user).or_fail(Code::LimitRefused, "limit the workload's programs")?;
    let mut volumes = None;
    if let Some(Attesting { identity, attester, processor, plain }) = attesting {
        let admitted = || agent.events.reached(Phase::Attested);
        let secrets = &agent.places.secrets;
        let in_place = secrets::fetch_all(host, spec, &identity, attester.clone(), secrets, &user, admitted).await?;
        Box::pin(first_owners(host, agent, &attester)).await?;
        Box::pin(certificates(host, spec, &attester, plain)).await?;
        if !spec.sealed_volumes.is_empty() {
            opening.store(true, Ordering::SeqCst);
            volumes = Some(Box::pin(Volumes::open(host, spec, attester.clone(), processor)).await?);
        }
        if spec.kbs.is_some() {
            let (refresher, environment) = Refresher::new(identity, attester, user.clone(), in_place);
            *agent.secret_env.write().await = environment;
            let _ = agent.refresher.set(refresher);
        }
    }
    agent.events.reached(Phase::SecretsReady);
    run_workload(agent, user, volumes).await
}

/// Sealed volumes in use, and what they are closed with.
struct Volumes {
    attester: Arc<dyn Attester>,
    processor: SharedProcessor,
    opened: Opened,
}

impl Volumes {
    async fn open(
        host: Host,
        spec: &WorkloadSpec,
        attester: Arc<dyn Attester>,
        processor: SharedProcessor,
    ) -> Result<Self, Failure> {
        let broker = Self::broker(host, spec, &attester).await?;
        let opened = sealed::open(&means(spec, &processor, broker.as_ref())).await?;
        Ok(Self { attester, processor, opened })
    }

    /// Closes them behind the workload, once nothing of it lives.
    async fn close(self, agent: &Agent) -> Result<(), Failure> {
        let (spec, host) = (agent.document.spec(), agent.places.host);
        if let Some(group) = agent.places.control_group.clone() {
            let ended = tokio::task::spawn_blocking(move || sealed::end_programs(&group)).await;
            ended.or_fail(Code::Internal, "end what is left of the workload")?;
        }
        // Without a broker what can be closed without one is.
        let mut patience = Patience::default();
        let connected = patience.wait(Self::broker(host, spec, &self.attester)).await;
        let (broker, reached) = match connected.unwrap_or_else(|| Err(Failure::new(Code::Internal, sealed::NO_ANSWER)))
        {
            Ok(broker) => (broker, Ok(())),
            Err(failure) => (None, Err(Failure { code: Code::SealedVolumeLeftOpen, ..failure })),
        };
        let closed = sealed::close(&means(spec, &self.processor, broker.as_ref()), self.opened, patience).await;
        reached.and(closed)
    }

    async fn broker(
        host: Host,
        spec: &WorkloadSpec,
        attester: &Arc<dyn Attester>,
    ) -> Result<Option<BrokerClient>, Failure> {
        let connected = broker::for_policies(host, spec, &sealed::policies(spec), attester).await;
        connected.map_err(|(_, cause)| match &spec.kbs {
            Some(kbs) => secrets::failure(kbs, "sealed volumes", &cause),
            None => Failure::new(Code::Internal, cause.to_string()),
        })
    }
}

fn means<'a>(spec: &'a WorkloadSpec, processor: &'a SharedProcessor, broker: Option<&'a BrokerClient>) -> Means<'a> {
    Means { processor, spec, broker, scope: coffer_seal::Scope::Volume }
}

/// The owners as the key broker's list has them, where it keeps one. Of a list that is not taken nobody is an owner, and the output says
/// why; a broker that does not say ends the start.
async fn first_owners(host: Host, agent: &Agent, attester: &Arc<dyn Attester>) -> Result<(), Failure> {
    let spec = agent.document.spec();
    let keeps = spec.owner_authority.as_ref().is_some_and(|authority| authority.kept.is_some());
    let Some(kbs) = spec.kbs.as_ref().filter(|_| keeps) else { return Ok(()) };
    let connected = Box::pin(broker::connect_anew(host, spec, kbs, attester.clone())).await;
    let looked = match connected {
        Ok(broker) => agent.owners.look(&broker.metered(agent.questions.meter(Whose::Guest))).await,
        Err(error) => Err(OwnersError::Broker(error)),
    };
    match looked {
        Ok(()) => Ok(()),
        Err(OwnersError::Broker(error)) => Err(secrets::failure(kbs, "owners", &error)),
        Err(error) => {
            agent.say_of_owners(&error).await;
            Ok(())
        }
    }
}

/// Certificates of ports with plain TLS: the first before the workload starts, and the next ones in time.
async fn certificates(
    host: Host,
    spec: &WorkloadSpec,
    attester: &Arc<dyn Attester>,
    plain: Vec<Arc<Certified>>,
) -> Result<(), Failure> {
    let Some(kbs) = spec.kbs.as_ref().filter(|_| !plain.is_empty()) else { return Ok(()) };
    let identity = Identity::generate("coffer certificates").or_fail(Code::Internal, "make an identity")?;
    let connected = broker::connect(host, spec, kbs, &identity, attester.clone());
    let kept =
        Box::pin(first(plain, PACE, connected)).await.map_err(|(what, error)| secrets::failure(kbs, &what, &error))?;
    let (spec, kbs, attester) = (spec.clone(), kbs.clone(), attester.clone());
    let identity = Arc::new(identity);
    tokio::spawn(keep(kept, PACE, move || {
        let (spec, kbs, attester, identity) = (spec.clone(), kbs.clone(), attester.clone(), identity.clone());
        async move { broker::connect(host, &spec, &kbs, &identity, attester).await }
    }));
    Ok(())
}

async fn run_workload(agent: &Arc<Agent>, user: User, volumes: Option<Volumes>) -> Result<(), Failure> {
    let spec = agent.document.spec();
    let program = program(spec, user);
    let secrets = agent.secret_env.read().await;
    let started = start_workload(&agent.places, &agent.reaper, spec, program, &secrets, &agent.logs).await;
    drop(secrets);
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            if let Some(volumes) = volumes {
                Box::pin(volumes.close(agent)).await?;
            }
            return Err(start_failure(&error));
        }
    };
    let process = running.started.process;
    agent.set_workload(Some(running.ways.clone()));
    agent.events.reached(Phase::Running);
    tokio::spawn(keep_current(agent.clone()));

    let mut stop = agent.stop_orders();
    let status = tokio::select! {
        status = &mut running.started.status => status,
        order = stop.wait_for(Option::is_some) => {
            let order = order.ok().and_then(|order| *order);
            let grace = order.map_or(0, |StopOrder { grace_seconds }| grace_seconds);
            let _ = process.signal(spec.process.stop_signal);
            let grace = Duration::from_secs(u64::from(grace));
            if let Ok(status) = tokio::time::timeout(grace, &mut running.started.status).await {
                status
            } else {
                let _ = process.signal(libc::SIGKILL);
                (&mut running.started.status).await
            }
        }
    };
    agent.set_workload(None);
    running.drain().await;
    agent.logs.end();
    let closed = match volumes {
        Some(volumes) => Box::pin(volumes.close(agent)).await,
        None => Ok(()),
    };
    match closed {
        Ok(()) => agent.events.exited(status.unwrap_or(crate::container::STATUS_OURS)),
        // A program that ended well is worth less than what it wrote.
        Err(failure) => agent.events.failed(&failure),
    }
    linger(agent).await;
    Ok(())
}

fn start_failure(error: &StartError) -> Failure {
    let code = match error.cause {
        Cause::NotFound => Code::WorkloadNotFound,
        Cause::Interpreter => Code::InterpreterNotFound,
        Cause::NotExecutable => Code::WorkloadNotExecutable,
        Cause::Place => Code::NoPlace,
        Cause::Limit => Code::LimitRefused,
        Cause::Setting => Code::SettingRefused,
        Cause::Ours => Code::Internal,
    };
    Failure { errno: error.errno, ..Failure::new(code, error.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_boot_is_added_to_what_was_told_at_launch() {
        let since_boot = Timespec { tv_sec: 9, tv_nsec: 5 };
        assert_eq!(clock(1_800_000_000, since_boot), Some(Timespec { tv_sec: 1_800_000_009, tv_nsec: 5 }));
        // A host may say anything.
        for absurd in [u64::MAX, i64::MAX.unsigned_abs()] {
            assert_eq!(clock(absurd, since_boot), None);
        }
    }

    #[test]
    fn every_spec_and_certificate_table_that_is_taken_leaves_an_identity() {
        let evidence = |table, spec| Evidence {
            report: vec![7; coffer_verifier::abi::REPORT_LEN],
            cert_table: vec![1; table],
            workload_spec: vec![2; spec],
            ..Evidence::default()
        };
        let key = IdentityKey::generate().unwrap();
        for (table, spec, whole) in [
            (4096, 4096, true),
            (4096, 42_000, true),
            (4096, 45_000, false),
            (0, coffer_spec::Document::LIMIT, false),
            (coffer_ratls::MAX_CERT_TABLE, 4096, false),
            (coffer_ratls::MAX_CERT_TABLE, coffer_ratls::MAX_SPEC, false),
        ] {
            let cmw = certificate_evidence(evidence(table, spec));
            let identity = Identity::attested(&key, "guest", &cmw).unwrap();
            let shown = coffer_ratls::certificate_cmw(identity.certificate_der()).unwrap();
            let shown = Evidence::from_cmw(&shown).unwrap();
            assert_eq!(shown.report, evidence(table, spec).report, "the report always");
            assert_eq!(shown == evidence(table, spec), whole, "{table} {spec}");
        }
    }
}
