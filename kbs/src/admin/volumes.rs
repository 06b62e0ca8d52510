//! Records of sealed volumes: what owners see of them, and let happen.

use coffer_kbs_client::{SealingName, VolumeRecord, VolumeState, kbs::admin::v1 as wire};
use tonic::{Response, Status};

use super::{AdminService, sorted, store_status, tenant};
use crate::{
    operators::Caller,
    store::{AuditEntry, KeptVolume},
};

impl AdminService {
    pub(super) async fn volumes_listed(
        &self,
        message: wire::ListVolumesRequest,
    ) -> Result<Response<wire::ListVolumesResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let (rows, damaged) = sorted(self.view().await?.volumes(&tenant).await.map_err(store_status)?);
        let volumes = rows.into_iter().map(to_wire).collect();
        Ok(Response::new(wire::ListVolumesResponse { volumes, damaged }))
    }

    pub(super) async fn volume_allowed(
        &self,
        caller: Caller,
        message: wire::AllowVolumeRequest,
    ) -> Result<Response<wire::AllowVolumeResponse>, Status> {
        let wire::AllowVolumeRequest { tenant: whose, name, subject, anew } = message;
        let tenant = tenant(&whose)?;
        if name.is_empty() || name.len() > SealingName::CONTEXT {
            let most = SealingName::CONTEXT;
            return Err(Status::invalid_argument(format!("name: {} bytes, expected 1 to {most}", name.len())));
        }
        if subject.as_ref().is_some_and(Vec::is_empty) {
            return Err(Status::invalid_argument("subject: it is empty; name one, or leave it out"));
        }
        let event = if anew { "volume.forget" } else { "volume.confirm" };
        let shown = coffer_rim::foreign(&String::from_utf8_lossy(&name)).into_owned();
        let entry = AuditEntry {
            event,
            tenant: Some(tenant.to_string()),
            name: Some(shown),
            key: subject.as_ref().map(hex::encode),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        let all = change.ledger.volumes(&tenant).await.map_err(store_status)?;
        // One that is damaged is not the one that is meant, and says so when it is listed.
        let named = all.into_iter().flatten().filter(|found| found.name == name);
        let mut found: Vec<KeptVolume> =
            named.filter(|found| subject.as_ref().is_none_or(|subject| found.subject == *subject)).collect();
        // Of several, one that begins anew anyhow is not meant.
        let lives = |found: &KeptVolume| found.record.state != VolumeState::Forgotten;
        if found.iter().any(lives) {
            found.retain(lives);
        }
        if found.len() > 1 {
            let subjects: Vec<String> = found.iter().map(|one| hex::encode(&one.subject)).collect();
            let subjects = subjects.join(", ");
            let said = format!("name: several have a volume of that name; name one with --subject: {subjects}");
            return Err(Status::failed_precondition(said));
        }
        let Some(mut volume) = found.pop() else {
            return change.done_if(false, "nothing-there", wire::AllowVolumeResponse { volume: None }).await;
        };
        let next = if anew { Some(volume.record.forgotten()) } else { volume.record.confirmed() };
        let Some(next) = next.filter(|next| next.counter() > volume.record.counter()) else {
            let state = volume.record.state.word();
            return Err(Status::failed_precondition(format!("the volume is {state}, and there is nothing to confirm")));
        };
        change.ledger.set_volume(&volume, next).await.map_err(store_status)?;
        volume.record = next;
        change.entry.generation = Some(next.counter());
        change.entry.key = Some(hex::encode(&volume.subject));
        change.done(wire::AllowVolumeResponse { volume: Some(to_wire(volume)) }).await
    }
}

fn to_wire(volume: KeptVolume) -> wire::SealedVolume {
    let VolumeRecord { generation, state } = volume.record;
    wire::SealedVolume {
        name: volume.name,
        policy: volume.policy,
        subject: volume.subject,
        anchor: volume.anchor,
        generation,
        state: state.word().to_owned(),
    }
}
