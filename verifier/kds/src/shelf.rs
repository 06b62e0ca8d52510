//! What is kept, for people: listed, taken in from files, written out for a site without a network.
//!
//! Taken in is whatever holds, under any name: AMD's (`vcek/v1/Milan/cert_chain`, `crl`, `HWID?blSPL=…`, as a mirror of the
//! service has them), those of `coffer verify --certs` (`vcek.der`, `ask.pem`, …), the certificate table of an extended report, and the
//! folder of another client. Written out
//! are AMD's names, but for leaves, whose names are queries there: `vcek/v1/Milan/HWID-bl03-tee00-snp08-ucode115.der`, and
//! `vlek/v1/Milan/TCB-KEY.der`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_rim::file::Writer;
use coffer_rim::folder::Beneath;
use coffer_verifier::abi::{ProductLine, SigningKey, SpkiDigest};
use coffer_verifier::chain::{Certificate, CertificateRole, Crl};
use coffer_verifier::{Endorsements, Look, UnixTime, verify_certificate};

use crate::address::Item;
use crate::check::{Entry, Issuer, Unfit, check, of_leaf};
use crate::client::{Effort, Inner, Kds};
use crate::store::{self, Found, LONGEST, walk};

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

/// What was written out.
#[derive(Clone, Debug, Default)]
pub struct Exported {
    /// Its files.
    pub files: Vec<PathBuf>,
    /// Product lines of which a chain is among them, and no list.
    pub without_list: Vec<ProductLine>,
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
        self.looked_at(now).await.into_iter().map(|(kept, _)| kept).collect()
    }

    /// The same, and of what is of use all that was read of it.
    async fn looked_at(&self, now: UnixTime) -> Vec<(Kept, Option<Arc<Entry>>)> {
        self.load_chains(now).await;
        let read = move |inner: &Inner| {
            let issuer = &inner.options.issuer;
            let (roots, chains) = (issuer.roots(&ProductLine::ALL), inner.chains());
            let mut all = Vec::new();
            let mut see = |one: Found| {
                let Ok(content) = content(&one.path, &one.bytes) else { return };
                for (item, bytes) in content.items(issuer, now) {
                    let checked = check(&item, &bytes, &chains, issuer, now)
                        .and_then(|entry| entry.at_least(inner.floor(&entry.root, &item)).map(|()| entry));
                    let number = content.number(&item);
                    let (state, entry) = match checked {
                        Ok(entry) => (Ok((entry.root, entry.from, entry.to)), Some(entry)),
                        Err(unfit) => (Err(unfit), None),
                    };
                    all.push((Kept { item, file: one.path.clone(), state, number }, entry));
                }
            };
            if let Some(store) = &inner.store {
                store.each(&roots, &mut see);
            }
            all
        };
        self.0.on_disk(read).await.unwrap_or_default()
    }

    /// Takes in every file below these paths that holds as of `now`, [`crate::Options::max_import`] bytes of them. Regular files alone
    /// are opened; of links, those that are named.
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
        let (mut lists, mut brought) = (Vec::new(), HashMap::new());
        let (most, mut taken) = (self.0.options.max_import, 0);
        for file in files {
            // The number that stands beside a list.
            if file.ends_with("crl.number") {
                continue;
            }
            if taken >= most {
                done.refused.push((file, Unfit::TooMuch { most }));
                continue;
            }
            let Some(found) = store::read_named(file.clone(), LONGEST) else {
                done.refused.push((file, Unfit::Unread { longest: LONGEST }));
                continue;
            };
            taken += found.bytes.len();
            match content(&found.path, &found.bytes) {
                Ok(content) => {
                    all.merge(&content.certificates);
                    for one in content.certificates.certificates() {
                        brought.entry(one.der().to_vec()).or_insert_with(|| found.path.clone());
                    }
                    lists.extend(content.lists.into_iter().map(|(item, bytes)| (item, bytes, found.path.clone())));
                }
                Err(unfit) => done.refused.push((found.path, unfit)),
            }
        }
        let certificates = Content { certificates: all, lists: Vec::new() };
        let items = certificates.items(&self.0.options.issuer, now);
        let mut items: Vec<_> = items.into_iter().map(|(item, bytes)| (item, bytes, None)).collect();
        items.extend(lists.into_iter().map(|(item, bytes, path)| (item, bytes, Some(path))));
        // What others rest on first.
        items.sort_by_key(|(item, ..)| !matches!(item, Item::Chain { .. }));
        for (item, bytes, path) in items {
            let path = path.unwrap_or_else(|| file_of(&brought, &bytes));
            let kept = match self.0.judge(item, bytes, Effort::Held, now).await {
                Ok(entry) => self.0.keep(item, entry, now).await,
                Err(unfit) => Err(unfit),
            };
            match kept {
                Ok(_) => done.items.push(item),
                Err(unfit) => {
                    // A list that is looked at for both services is said once; each certificate by itself.
                    let refused = (path, unfit);
                    if !matches!(item, Item::Crl { .. }) || !done.refused.contains(&refused) {
                        done.refused.push(refused);
                    }
                }
            }
        }
        Ok(done)
    }

    /// Writes everything that holds as of `now` under AMD's names, through no link below `folder`. The own folder is looked at once:
    /// what is said is about what was written. Where nothing holds, nothing is made.
    ///
    /// # Errors
    /// [`ShelfError`], the first file that cannot be written.
    pub async fn export(&self, folder: &Path, now: UnixTime) -> Result<Exported, ShelfError> {
        let mut done = Exported::default();
        let looked_at = self.looked_at(now).await.into_iter();
        let all: Vec<_> = looked_at.filter_map(|(kept, entry)| Some((kept.item, entry?))).collect();
        if all.is_empty() {
            return Ok(done);
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ShelfError { path, source }
        };
        let beneath = Beneath::open(folder).map_err(failed(folder))?;
        let (mut chains, mut lists) = (Vec::new(), Vec::new());
        for (item, entry) in all {
            let name = amd_name(&item, &entry);
            let path = folder.join(&name);
            beneath.write(&name, Writer::private().mode(0o644), &entry.bytes).map_err(failed(&path))?;
            match item {
                Item::Chain { product, .. } => chains.push(product),
                Item::Crl { product, .. } => lists.push(product),
                Item::Vcek { .. } | Item::Vlek { .. } => {}
            }
            done.files.push(path);
        }
        let without = |line: &ProductLine| chains.contains(line) && !lists.contains(line);
        done.without_list = ProductLine::ALL.into_iter().filter(without).collect();
        Ok(done)
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

fn amd_name(item: &Item, entry: &Entry) -> PathBuf {
    let path = match item {
        // A query is no file's name everywhere: media have file systems that know no `?`, and shells give it a meaning.
        Item::Vcek { product, chip, tcb } => {
            let fmc = tcb.fmc.map(|fmc| format!("fmc{fmc:02}-")).unwrap_or_default();
            format!(
                "vcek/v1/{product}/{}-{fmc}bl{:02}-tee{:02}-snp{:02}-ucode{:02}.der",
                Item::hwid(*product, chip),
                tcb.bootloader,
                tcb.tee,
                tcb.snp,
                tcb.microcode
            )
        }
        Item::Vlek { product, tcb } => format!("vlek/v1/{product}/{:016x}-{}.der", tcb.to_raw(), entry.spki),
        Item::Chain { .. } | Item::Crl { .. } => item.path().unwrap_or_default().trim_start_matches('/').to_owned(),
    };
    PathBuf::from(path)
}

/// Certificates or lists, DER or PEM, or a certificate table, which has both.
fn content(path: &Path, bytes: &[u8]) -> Result<Content, Unfit> {
    if Look::of(bytes) == Look::CertTable {
        let certificates = Endorsements::from_cert_table(bytes)?;
        let lists = lists_of(path, &certificates);
        return Ok(Content { certificates, lists });
    }
    let mut certificates = Endorsements::new();
    let refused = match certificates.add_certificates(bytes) {
        Ok(()) => return Ok(Content { certificates, lists: Vec::new() }),
        Err(error) => error,
    };
    let mut list = Endorsements::new();
    if let Err(of_list) = list.add_crl(bytes) {
        let is_list = Look::of(bytes) == Look::RevocationList;
        return Err(if is_list { of_list } else { refused }.into());
    }
    let lists = lists_of(path, &list);
    Ok(Content { certificates, lists })
}

/// Which service has a list, only its place tells. Where that does not, it is kept for both: its root signs for both, and what nobody
/// keeps protects nobody.
fn lists_of(path: &Path, all: &Endorsements) -> Vec<(Item, Vec<u8>)> {
    let is_below = |name: &str| path.components().any(|part| part.as_os_str() == name);
    let keys: &[_] = match (is_below("vcek"), is_below("vlek")) {
        (_, true) => &[SigningKey::Vlek],
        (true, false) => &[SigningKey::Vcek],
        (false, false) => &[SigningKey::Vcek, SigningKey::Vlek],
    };
    let items = |list: &Crl| -> Vec<_> {
        let product = list.product().into_iter();
        product.flat_map(|product| keys.iter().map(move |key| Item::Crl { product, key: *key })).collect()
    };
    all.crls()
        .flat_map(|list| items(list).into_iter().map(|item| (item, list.der().to_vec())).collect::<Vec<_>>())
        .collect()
}

/// Which file brought what an item begins with: a leaf, or the intermediate of a chain.
fn file_of(brought: &HashMap<Vec<u8>, PathBuf>, bytes: &[u8]) -> PathBuf {
    let mut one = Endorsements::new();
    let _ = one.add_certificates(bytes);
    let mut first = one.certificates().filter(|one| !matches!(one.role(), CertificateRole::Root(_)));
    first.next().and_then(|first| brought.get(first.der())).cloned().unwrap_or_default()
}

impl Content {
    /// Each leaf, each intermediate with the roots that it holds under, each list, as a service would give it. One that holds under
    /// none of them goes with one root of its line, so that it is refused by name.
    ///
    /// Anybody can make any number of either; what holds is as little as their issuer signed.
    fn items(&self, issuer: &Issuer, now: UnixTime) -> Vec<(Item, Vec<u8>)> {
        let anchors = issuer.anchors();
        let holds = |one: &Certificate, others: &Endorsements| verify_certificate(one, others, &anchors, now).ok();
        let is_root = |one: &&Certificate| matches!(one.role(), CertificateRole::Root(_));
        let roots: Vec<_> = self.certificates.certificates().filter(is_root).collect();
        let mut holding = Vec::new();
        for root in &roots {
            let mut alone = Endorsements::new();
            if holds(root, &alone).is_some() && alone.add_certificates(root.der()).is_ok() {
                holding.push((*root, alone));
            }
        }
        let mut all = Vec::new();
        for one in self.certificates.certificates() {
            if let Some(item) = one.leaf().and_then(of_leaf) {
                all.push((item, one.der().to_vec()));
            }
            let CertificateRole::Intermediate(product, key) = one.role() else { continue };
            let of_line = |root: &Certificate| root.role() == CertificateRole::Root(product);
            let above = |(root, alone): &(&Certificate, Endorsements)| {
                of_line(root) && holds(one, alone).is_some_and(|anchor| anchor.spki_sha256 == root.spki_digest())
            };
            let mut above: Vec<_> = holding.iter().filter(|root| above(root)).map(|(root, _)| *root).collect();
            if above.is_empty() {
                above.extend(roots.iter().find(|root| of_line(root)));
            }
            for root in above {
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
