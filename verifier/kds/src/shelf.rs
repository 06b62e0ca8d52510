//! What is kept, for people: listed, taken in from files, written out for a site without a network.
//!
//! Taken in is whatever holds, under any name: AMD's (`vcek/v1/Milan/cert_chain`, `crl`, `HWID?blSPL=…`, as a mirror of the
//! service has them), those of `coffer verify --certs` (`vcek.der`, `ask.pem`, …), and the folder of another client. Written out
//! are AMD's names. A VLEK has none there; it is `vlek/v1/Milan/TCB-KEY.der`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_rim::file::Writer;
use coffer_verifier::abi::{ProductLine, SigningKey, SpkiDigest};
use coffer_verifier::chain::{Certificate, CertificateRole, Crl};
use coffer_verifier::{Endorsements, UnixTime};

use crate::address::Item;
use crate::check::{Entry, Unfit, check, of_leaf};
use crate::client::{Effort, Inner, Kds};
use crate::store::{self, LONGEST, walk};

/// One item in the folder.
#[derive(Clone, Debug)]
pub struct Kept {
    /// What it is.
    pub item: Item,
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of the public key of the root it rests on, and first and last second; or why it is of no use now.
    pub state: Result<(SpkiDigest, UnixTime, UnixTime), Unfit>,
    /// Of a revocation list.
    pub number: Option<u64>,
}

/// What came of taking in.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Kept from now on.
    pub items: Vec<Item>,
    /// Files, or items of them, that are not.
    pub refused: Vec<(PathBuf, Unfit)>,
}

/// Files cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
pub struct ShelfError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Folders below one that is taken in.
const DEPTH: usize = 8;

/// A file's content as items.
struct Content {
    certificates: Endorsements,
    lists: Vec<(Item, Vec<u8>)>,
}

impl Kds {
    /// Everything in the folder that is under roots this client believes, checked as of `now`.
    pub async fn kept(&self, now: UnixTime) -> Vec<Kept> {
        self.load_chains(now).await;
        let read = move |inner: &Inner| {
            let roots = inner.options.issuer.roots(&ProductLine::ALL);
            let found = inner.store.as_ref().map(|store| store.all(&roots)).unwrap_or_default();
            let chains = inner.chains();
            let mut all = Vec::new();
            for one in found {
                let Ok(content) = content(&one.path, &one.bytes) else { continue };
                for (item, bytes) in content.items() {
                    let checked = check(&item, &bytes, &chains, &inner.options.issuer, now);
                    let number = content.number(&item);
                    let state = checked.map(|entry| (entry.root, entry.from, entry.to));
                    all.push(Kept { item, file: one.path.clone(), state, number });
                }
            }
            all
        };
        self.0.on_disk(read).await.unwrap_or_default()
    }

    /// Takes in every file below these paths that holds as of `now`.
    ///
    /// # Errors
    /// [`ShelfError`] if a path is not there.
    pub async fn import(&self, paths: &[PathBuf], now: UnixTime) -> Result<Imported, ShelfError> {
        let mut files = Vec::new();
        for path in paths {
            let data = fs::metadata(path).map_err(|source| ShelfError { path: path.clone(), source })?;
            if data.is_dir() {
                walk(path, DEPTH, &mut |file| files.push(file.to_owned()));
            } else {
                files.push(path.clone());
            }
        }
        let (mut all, mut done) = (Endorsements::new(), Imported::default());
        let (mut lists, mut brought) = (Vec::new(), Vec::new());
        for file in files {
            // The number that stands beside a list.
            if file.ends_with("crl.number") {
                continue;
            }
            let Some(found) = store::read(file.clone(), LONGEST) else {
                done.refused.push((file, Unfit::Unread { longest: LONGEST }));
                continue;
            };
            match content(&found.path, &found.bytes) {
                Ok(content) => {
                    all.merge(&content.certificates);
                    brought.extend(content.certificates.certificates().map(|one| (one.to_pem(), found.path.clone())));
                    lists.extend(content.lists.into_iter().map(|(item, bytes)| (item, bytes, found.path.clone())));
                }
                Err(unfit) => done.refused.push((found.path, unfit)),
            }
        }
        let certificates = Content { certificates: all, lists: Vec::new() };
        let mut items: Vec<_> = certificates.items().into_iter().map(|(item, bytes)| (item, bytes, None)).collect();
        items.extend(lists.into_iter().map(|(item, bytes, path)| (item, bytes, Some(path))));
        // What others rest on first.
        items.sort_by_key(|(item, ..)| !matches!(item, Item::Chain { .. }));
        for (item, bytes, path) in items {
            let path = path.unwrap_or_else(|| file_of(&brought, &bytes));
            let kept = match self.0.judge(item, bytes, Effort::Held, now).await {
                Ok(entry) => self.0.keep(item, entry).await,
                Err(unfit) => Err(unfit),
            };
            match kept {
                Ok(_) => done.items.push(item),
                Err(unfit) => done.refused.push((path, unfit)),
            }
        }
        Ok(done)
    }

    /// Writes everything that holds as of `now` under AMD's names; gives the files.
    ///
    /// # Errors
    /// [`ShelfError`], the first file that cannot be written.
    pub async fn export(&self, folder: &Path, now: UnixTime) -> Result<Vec<PathBuf>, ShelfError> {
        let mut written = Vec::new();
        for kept in self.kept(now).await {
            let Ok(bytes) = fs::read(&kept.file) else { continue };
            let Ok(entry) = self.0.judge(kept.item, bytes, Effort::Held, now).await else { continue };
            let path = folder.join(amd_name(&kept.item, &entry));
            let failed = |source| ShelfError { path: path.clone(), source };
            if let Some(above) = path.parent() {
                fs::create_dir_all(above).map_err(failed)?;
            }
            Writer::private().mode(0o644).write(&path, &entry.bytes).map_err(failed)?;
            written.push(path);
        }
        Ok(written)
    }

    async fn load_chains(&self, now: UnixTime) {
        for product in ProductLine::ALL {
            for key in [SigningKey::Vcek, SigningKey::Vlek] {
                // What is not kept is not missed.
                let _ = self.0.obtain(Item::Chain { product, key }, Effort::Held, now).await;
            }
        }
    }
}

fn amd_name(item: &Item, entry: &Arc<Entry>) -> PathBuf {
    let path = item.path().unwrap_or_else(|| {
        let tcb = if let Item::Vlek { tcb, .. } = item { tcb.to_raw() } else { 0 };
        format!("/vlek/v1/{}/{tcb:016x}-{}.der", item.product(), entry.spki)
    });
    PathBuf::from(path.trim_start_matches('/'))
}

/// Certificates or lists, DER or PEM.
fn content(path: &Path, bytes: &[u8]) -> Result<Content, Unfit> {
    let mut certificates = Endorsements::new();
    let refused = match certificates.add_certificates(bytes) {
        Ok(()) => return Ok(Content { certificates, lists: Vec::new() }),
        Err(error) => error,
    };
    let mut list = Endorsements::new();
    if list.add_crl(bytes).is_err() {
        return Err(refused.into());
    }
    // Which service has a list, only its place tells.
    let of_vlek = path.components().any(|part| part.as_os_str() == "vlek");
    let key = if of_vlek { SigningKey::Vlek } else { SigningKey::Vcek };
    let item = |list: &Crl| Some((Item::Crl { product: list.product()?, key }, list.der().to_vec()));
    Ok(Content { certificates, lists: list.crls().filter_map(item).collect() })
}

/// Which file brought what an item begins with: a leaf, or the intermediate of a chain.
fn file_of(brought: &[(String, PathBuf)], bytes: &[u8]) -> PathBuf {
    let mut one = Endorsements::new();
    let _ = one.add_certificates(bytes);
    let first = one.certificates().find(|one| !matches!(one.role(), CertificateRole::Root(_)));
    let pem = first.map(Certificate::to_pem).unwrap_or_default();
    brought.iter().find(|(known, _)| *known == pem).map(|(_, path)| path.clone()).unwrap_or_default()
}

impl Content {
    /// Each leaf, each pair of intermediate and root, each list, as a service would give it.
    fn items(&self) -> Vec<(Item, Vec<u8>)> {
        let mut all = Vec::new();
        for one in self.certificates.certificates() {
            if let Some(item) = one.leaf().and_then(of_leaf) {
                all.push((item, one.der().to_vec()));
            }
            let CertificateRole::Intermediate(product, key) = one.role() else { continue };
            let roots = self.certificates.certificates();
            for root in roots.filter(|root| root.role() == CertificateRole::Root(product)) {
                all.push((Item::Chain { product, key }, (one.to_pem() + &root.to_pem()).into_bytes()));
            }
        }
        all.extend(self.lists.iter().cloned());
        all
    }

    fn number(&self, item: &Item) -> Option<u64> {
        let (_, der) = self.lists.iter().find(|(list, _)| list == item)?;
        let mut list = Endorsements::new();
        list.add_crl(der).ok()?;
        list.crls().next().map(Crl::number)
    }
}
