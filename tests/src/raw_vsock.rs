//! A guest that writes to its host over vsock and does nothing else: what a line out of a guest carries at most, on the same machine,
//! kernel and device as a box on QEMU.

use std::{
    fs,
    io::Read,
    os::unix::net::UnixListener,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use coffer_machine::vsock::{GUEST_CID, TX_BUFFER};
use coffer_platform::{files::Platform, initrd};
use tempfile::TempDir;

use crate::{
    bare_boot::BareBoot,
    image::program,
    process::{Service, cache, wait_for},
};

/// Where the guest writes to.
const PORT: u32 = 5201;

/// It runs.
#[derive(Debug)]
pub struct RawVsock {
    listener: UnixListener,
    bytes: usize,
    // The guest ends before its device does.
    _guest: Service,
    _device: Service,
    folder: TempDir,
}

impl RawVsock {
    /// Boots one that writes so many bytes in each connection.
    ///
    /// # Errors
    /// If it does not write.
    pub fn start(platform: &Platform, bytes: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("coffer-vsock-").tempdir()?;
        let own = program(folder.path(), "sys/vsock_writer.rs")?;
        let line = format!("console=ttyS0 quiet reboot=t panic=-1 vsock_port={PORT} vsock_bytes={bytes}");
        // The kernel unpacks one archive after the other: of init the last one counts.
        let mut changed = platform.clone();
        changed.initrd.extend(initrd::build(&own, &[]));
        let boot = BareBoot::honest(&changed, &line)?;
        let device = cache()?.join("tools/bin/vhost-device-vsock");
        let words = format!("guest-cid={GUEST_CID},socket=vhost.sock,uds-path=vsock.sock,tx-buffer-size={TX_BUFFER}");
        let device = Service::start(device, |command| {
            command.args(["--vm", &words]).current_dir(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        let listener = UnixListener::bind(folder.path().join(format!("vsock.sock_{PORT}")))?;
        wait_for(Duration::from_secs(10), || folder.path().join("vhost.sock").exists()).context("no vsock device")?;
        let guest = boot.start_with(
            folder.path(),
            &["-chardev", "socket,id=vsock0,path=vhost.sock", "-device", "vhost-user-vsock-device,chardev=vsock0"],
        )?;
        let raw = Self { listener, bytes, _guest: guest, _device: device, folder };
        raw.listener.set_nonblocking(true)?;
        let mut first = None;
        let said = || fs::read_to_string(raw.folder.path().join("console")).unwrap_or_default();
        wait_for(Duration::from_mins(1), || {
            first = raw.listener.accept().ok();
            first.is_some()
        })
        .with_context(|| format!("the guest writes nothing\n{}", said()))?;
        raw.listener.set_nonblocking(false)?;
        let (stream, _) = first.context("accepted")?;
        stream.set_nonblocking(false)?;
        raw.taken(stream)?;
        Ok(raw)
    }

    /// Seconds of one connection, from its first byte.
    ///
    /// # Errors
    /// If fewer bytes come.
    pub fn once(&self) -> Result<f64> {
        let (stream, _) = self.listener.accept()?;
        self.taken(stream)
    }

    fn taken(&self, mut stream: impl Read) -> Result<f64> {
        let (mut piece, mut came) = (vec![0; 64 << 10], stream.read(&mut [0])?);
        let begun = Instant::now();
        while let count @ 1.. = stream.read(&mut piece)? {
            came += count;
        }
        ensure!(came == self.bytes, "{came} bytes of {} came", self.bytes);
        Ok(begun.elapsed().as_secs_f64())
    }
}
