//! AMD's key distribution service, answered from an installation: same paths, same bodies, and faults on demand.
//!
//! Only what is asked and what is answered; the rim carries it over HTTP.
//! Source: AMD 57230 §4 (KDS interface).

use coffer_verifier::abi::{ProductLine, TcbVersion};

use crate::installation::{Installation, InstallationError};
use crate::x509::pem;

/// What goes wrong today.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// 429, as the real service answers when asked too often.
    TooManyRequests,
    /// 500.
    ServerError,
    /// The VCEK of another TCB.
    WrongCertificate,
    /// A revocation list whose next update is past.
    StaleCrl,
}

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: Vec<u8>,
}

/// Answers `GET target`. `target`: path and query, such as `/vcek/v1/Milan/crl`. `now`: Unix seconds.
pub fn answer(installation: &Installation, target: &str, fault: Fault, now: u64) -> Answer {
    match fault {
        Fault::TooManyRequests => return plain(429, "too many requests"),
        Fault::ServerError => return plain(500, "internal server error"),
        Fault::None | Fault::WrongCertificate | Fault::StaleCrl => {}
    }
    match lookup(installation, target, fault, now) {
        Ok(Some(answer)) => answer,
        Ok(None) => plain(404, "not found"),
        Err(error) => plain(500, &error.to_string()),
    }
}

fn lookup(
    installation: &Installation,
    target: &str,
    fault: Fault,
    now: u64,
) -> Result<Option<Answer>, InstallationError> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let &[kind, "v1", product, what] = parts.as_slice() else { return Ok(None) };
    // Names are case-sensitive there as well.
    let Some(product) = ProductLine::ALL.into_iter().find(|line| line.name() == product) else { return Ok(None) };
    let Some(anchor) = installation.anchor(product) else { return Ok(None) };
    let answer = match (kind, what) {
        ("vcek" | "vlek", "cert_chain") => {
            let intermediate = if kind == "vlek" { installation.asvk(product)? } else { installation.ask(product)? };
            let chain = pem("CERTIFICATE", intermediate) + &pem("CERTIFICATE", anchor.ark);
            // Turin's text comes with the line ends of another system.
            let chain = if product == ProductLine::Turin { chain.replace('\n', "\r\n") } else { chain };
            Answer { status: 200, content_type: "application/x-pem-file", body: chain.into_bytes() }
        }
        ("vcek" | "vlek", "crl") => {
            // A list issued 46 days ago ran out yesterday.
            let issued = if fault == Fault::StaleCrl { now.saturating_sub(46 * 86_400) } else { now };
            Answer { status: 200, content_type: "application/pkix-crl", body: installation.crl(product, issued)? }
        }
        ("vcek", hwid) => {
            let chip = installation.chip_id(product);
            if !hwid.eq_ignore_ascii_case(&hex::encode(&chip.as_bytes()[..product.hwid_len()])) {
                return Ok(None);
            }
            let Some(mut tcb) = levels(product, query) else { return Ok(Some(plain(400, "bad TCB parameters"))) };
            if fault == Fault::WrongCertificate {
                tcb.microcode = tcb.microcode.wrapping_add(1);
            }
            let body = installation.issue_vcek(product, tcb, now)?;
            Answer { status: 200, content_type: "application/pkix-cert", body }
        }
        _ => return Ok(None),
    };
    Ok(Some(answer))
}

/// `blSPL=4&teeSPL=0&snpSPL=27&ucodeSPL=222`, on Turin with `fmcSPL`; decimal.
fn levels(product: ProductLine, query: &str) -> Option<TcbVersion> {
    let level = |name: &str| {
        let mut found = query.split('&').filter_map(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
        let value = found.next()?.1.parse::<u8>().ok()?;
        found.next().is_none().then_some(value)
    };
    let fmc = if product == ProductLine::Turin { Some(level("fmcSPL")?) } else { None };
    Some(TcbVersion {
        fmc,
        bootloader: level("blSPL")?,
        tee: level("teeSPL")?,
        snp: level("snpSPL")?,
        microcode: level("ucodeSPL")?,
    })
}

fn plain(status: u16, text: &str) -> Answer {
    Answer { status, content_type: "text/plain", body: text.as_bytes().to_vec() }
}
