//! Records of sealed volumes: which one an owner means by a name.

use coffer_kbs_client::{ClientError, SealedVolume, VolumeRecord};
use coffer_seal::{Scope, SealPolicy};

use crate::common::{Kbs, Launch, TENANT};
use crate::sealing::{CONTEXT, Sealing, broker, other_spec, usual};

impl Sealing {
    /// Makes a volume and leaves it open.
    async fn leave_open(&self) {
        let means = self.means(Scope::Volume);
        let keys = means.volume_keys(SealPolicy::Workload, CONTEXT).await.unwrap();
        let from = means.volume_record(&keys, CONTEXT).await.unwrap();
        let to = from.map_or(VolumeRecord::FIRST, VolumeRecord::opened);
        means.move_volume_record(&keys, CONTEXT, from, to).await.unwrap();
    }
}

async fn allow(kbs: &Kbs, subject: Option<&[u8]>, anew: bool) -> Result<Option<SealedVolume>, ClientError> {
    kbs.admin().await.allow_volume(TENANT, "db", subject.map(<[u8]>::to_vec), anew).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_means_the_volume_that_is_not_forgotten() {
    let kbs = broker().await;
    let older = Sealing::start(&kbs, &usual()).await;
    older.leave_open().await;
    let forgotten = allow(&kbs, None, true).await.unwrap().unwrap();
    assert_eq!(forgotten.state, "forgotten");

    // The same box with another spec: another workload, whose volume has the same name.
    let newer = Sealing::start(&kbs, &Launch { spec: other_spec(), ..usual() }).await;
    newer.leave_open().await;
    let confirmed = allow(&kbs, None, false).await.unwrap().unwrap();
    assert_eq!(confirmed.state, "confirmed");
    assert_ne!(confirmed.subject, forgotten.subject);

    // Two that live: the name alone means neither, and what names one is said.
    older.leave_open().await;
    let refused = allow(&kbs, None, true).await.unwrap_err().to_string();
    for word in ["--subject", &hex::encode(&forgotten.subject), &hex::encode(&confirmed.subject)] {
        assert!(refused.contains(word), "{refused}");
    }
    let named = allow(&kbs, Some(&confirmed.subject), true).await.unwrap().unwrap();
    assert_eq!((named.state.as_str(), named.subject), ("forgotten", confirmed.subject));

    // Several that begin anew anyhow: neither is meant before the other.
    allow(&kbs, None, true).await.unwrap().unwrap();
    assert!(allow(&kbs, None, true).await.unwrap_err().to_string().contains("--subject"));
}
