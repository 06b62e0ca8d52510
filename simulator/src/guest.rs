//! The secure processor as one launched guest reaches it: SNP guest messages in, answers out.
//!
//! Source: SNP ABI, SNP_GUEST_REQUEST, MSG_REPORT_REQ, MSG_KEY_REQ.

use coffer_verifier::abi::message::{
    KIND_EXTENDED, KIND_REQUEST, Line, LineAnswer, MESSAGE_PAGE, Message, MessageError, MessagePage, MessageProcessor,
    MessageType, SecretsPage, Vmpck, key_response, parse_key_request, parse_report_request, report_response,
};
use coffer_verifier::abi::{
    DerivedKey, GuestFieldSelect, HostData, KeyRequest, KeySelect, Measurement, ProcessorError, REPORT_LEN, ReportId,
    ReportRequest, RootKey, SigningKey as KeyName, TcbVersion,
};
use coffer_verifier::measure::CpuSignature;
use p384::ecdsa::SigningKey;
use zeroize::Zeroizing;

use crate::derive::ChipSecret;
use crate::endorsements::SimulatedEndorsements;
use crate::installation::Installation;
use crate::options::{LaunchOptions, TcbState};
use crate::refusal::{LaunchFailure, check_tcb};
use crate::report::{self, GuestFacts};

pub(crate) struct SigningKeys {
    pub vcek: SigningKey,
    pub vlek: Option<SigningKey>,
    pub vcek_root: ChipSecret,
    pub vlek_root: Option<ChipSecret>,
}

impl SigningKeys {
    /// Those of the reported TCB; the roots of derived keys do not depend on it.
    pub(crate) fn of(chip: &ChipSecret, options: &LaunchOptions) -> Self {
        let (product, reported) = (options.product, options.tcb.reported);
        let vlek = options.vlek.as_deref();
        Self {
            vcek: chip.vcek(product, reported),
            vlek: vlek.map(|csp_id| chip.vlek(product, csp_id, reported)),
            vcek_root: chip.guest_root(product, "vcek"),
            vlek_root: vlek.map(|csp_id| chip.guest_root(product, &format!("vlek {csp_id}"))),
        }
    }
}

/// A launched guest. One guest, one processor: nobody else's messages open under its keys.
pub struct SimulatedGuest {
    facts: GuestFacts,
    keys: SigningKeys,
    vmpcks: [Vmpck; 4],
    /// Per VMPCK, the number of the last message either side sent.
    counters: [u64; 4],
    endorsements: SimulatedEndorsements,
    cert_table: Vec<u8>,
}

/// A guest's own end and the processor's in one process, for tests: same messages, no wire.
pub type LocalProcessor = MessageProcessor<LocalLine>;

/// Line to a guest's processor in the same process.
pub struct LocalLine(Box<SimulatedGuest>);

impl Line for LocalLine {
    fn exchange(&mut self, kind: u8, page: &MessagePage) -> Result<LineAnswer, ProcessorError> {
        Ok(self.0.guest_request(kind, page))
    }
}

impl SimulatedGuest {
    pub(crate) fn new(
        facts: GuestFacts,
        keys: SigningKeys,
        vmpcks: &[u8; 128],
        endorsements: SimulatedEndorsements,
    ) -> Self {
        let vmpcks = [0, 1, 2, 3].map(|index| {
            let mut key = Zeroizing::new([0; 32]);
            key.copy_from_slice(&vmpcks[32 * index..32 * (index + 1)]);
            Vmpck::new(*key)
        });
        let cert_table = endorsements.cert_table();
        Self { facts, keys, vmpcks, counters: [0; 4], endorsements, cert_table }
    }

    /// The secrets page the processor writes into guest memory at launch. The caller hands it to the guest and forgets it.
    pub fn secrets_page(&self) -> Box<[u8; MESSAGE_PAGE]> {
        let cpuid = self.facts.options.cpuid;
        let signature = CpuSignature::from_family_model_stepping(cpuid.family, cpuid.model, cpuid.stepping);
        let vmpcks = [0, 1, 2, 3].map(|index: usize| Vmpck::new(*self.vmpcks[index].expose()));
        SecretsPage { version: 3, family_model_stepping: signature.0, vmpcks }.to_page()
    }

    /// SNP_GUEST_REQUEST (`kind` [`KIND_REQUEST`]), or the extended request of the GHCB ([`KIND_EXTENDED`]), whose answer
    /// carries the certificate table.
    ///
    /// A page that is not the next message under its VMPCK is refused and changes nothing.
    pub fn guest_request(&mut self, kind: u8, page: &MessagePage) -> LineAnswer {
        let refuse = |exitinfo2| LineAnswer { exitinfo2, page: Box::new([0; MESSAGE_PAGE]), cert_table: Vec::new() };
        if kind != KIND_REQUEST && kind != KIND_EXTENDED {
            return refuse(VMM_INVALID_INPUT << 32);
        }
        match self.serve(page) {
            Ok(page) => {
                let cert_table = if kind == KIND_EXTENDED { self.cert_table.clone() } else { Vec::new() };
                LineAnswer { exitinfo2: 0, page, cert_table }
            }
            Err(status) => refuse(u64::from(status)),
        }
    }

    fn serve(&mut self, page: &MessagePage) -> Result<Box<MessagePage>, u32> {
        let vmpl = page[VMPCK_BYTE];
        let (Some(key), Some(counter)) = (self.vmpcks.get(usize::from(vmpl)), self.counters.get_mut(usize::from(vmpl)))
        else {
            return Err(STATUS_INVALID_PARAMETERS);
        };
        let sequence = counter.checked_add(1).ok_or(STATUS_AEAD_OVERFLOW)?;
        let answer_sequence = sequence.checked_add(1).ok_or(STATUS_AEAD_OVERFLOW)?;
        let request = Message::open(key, sequence, page).map_err(|error| match error {
            MessageError::Sealed => STATUS_BAD_MEASUREMENT,
            _ => STATUS_INVALID_PARAMETERS,
        })?;
        let (kind, payload) = match request.kind {
            MessageType::ReportRequest if request.version == 1 => {
                let report = parse_report_request(&request.payload)
                    .map_err(|_| STATUS_INVALID_PARAMETERS)
                    .and_then(|request| report_for(&self.facts, &self.keys, &request, vmpl));
                (MessageType::ReportResponse, report_response(report.as_ref().map_err(|status| *status)))
            }
            MessageType::KeyRequest => {
                let key = parse_key_request(request.version, &request.payload)
                    .map_err(|_| STATUS_INVALID_PARAMETERS)
                    .and_then(|request| key_for(&self.facts, &self.keys, &request, vmpl));
                (MessageType::KeyResponse, key_response(key.as_ref().map_err(|status| *status)))
            }
            _ => return Err(STATUS_INVALID_PARAMETERS),
        };
        let answer = Message { sequence: answer_sequence, kind, version: request.version, vmpck: vmpl, payload };
        let page = answer.seal(key).map_err(|_| STATUS_INVALID_PARAMETERS)?;
        *counter = answer_sequence;
        Ok(page)
    }

    /// MEASUREMENT.
    pub fn measurement(&self) -> Measurement {
        self.facts.measurement
    }

    /// HOST_DATA.
    pub fn host_data(&self) -> HostData {
        self.facts.host_data
    }

    /// REPORT_ID.
    pub fn report_id(&self) -> ReportId {
        self.facts.report_id
    }

    /// Certificates and CRL of its reports.
    pub fn endorsements(&self) -> &SimulatedEndorsements {
        &self.endorsements
    }

    /// What the host answers extended requests with from now on; the host may answer anything.
    pub fn replace_cert_table(&mut self, cert_table: Vec<u8>) {
        self.cert_table = cert_table;
    }

    /// What extended requests are answered with.
    pub fn cert_table(&self) -> &[u8] {
        &self.cert_table
    }

    /// The platform changes under the guest: reports state `tcb` from now on, and are signed by the key of its reported TCB, with
    /// the certificates of that. LAUNCH_TCB stays, and the floor never sinks. `installation` is the one of the launch.
    ///
    /// # Errors
    /// [`LaunchFailure`] if firmware would refuse the change; nothing changed.
    pub fn change_platform(&mut self, installation: &Installation, tcb: TcbState) -> Result<(), LaunchFailure> {
        let old = &self.facts.options;
        check_tcb(old.product, &tcb)?;
        if tcb.launch != old.tcb.launch {
            return Err(LaunchFailure::Tcb("launch is fixed for a guest's life"));
        }
        if !tcb.committed.at_least(old.tcb.committed) {
            return Err(LaunchFailure::Tcb("committed never sinks"));
        }
        let options = LaunchOptions { tcb, ..old.clone() };
        let endorsements = installation.endorse(options.product, tcb.reported, options.vlek.as_deref(), options.now)?;
        self.keys = SigningKeys::of(installation.chip(), &options);
        self.cert_table = endorsements.cert_table();
        self.endorsements = endorsements;
        self.facts.options = options;
        Ok(())
    }

    /// This guest's processor in the same process, through VMPCK 0.
    pub fn into_processor(self) -> LocalProcessor {
        let key = Vmpck::new(*self.vmpcks[0].expose());
        MessageProcessor::new(LocalLine(Box::new(self)), key, 0)
    }
}

pub(crate) fn report_for(
    facts: &GuestFacts,
    keys: &SigningKeys,
    request: &ReportRequest,
    caller_vmpl: u8,
) -> Result<[u8; REPORT_LEN], u32> {
    if request.vmpl < u32::from(caller_vmpl) || request.vmpl > 3 {
        return Err(STATUS_INVALID_PARAMETERS);
    }
    let (name, key) = match (request.key, &keys.vlek) {
        (KeySelect::Vlek | KeySelect::VlekOrVcek, Some(vlek)) => (KeyName::Vlek, vlek),
        (KeySelect::Vlek, None) => return Err(STATUS_INVALID_KEY),
        (KeySelect::Vcek | KeySelect::VlekOrVcek, _) => (KeyName::Vcek, &keys.vcek),
    };
    // With MASK_CHIP_KEY the firmware writes zeros where the VCEK's signature would be.
    let masked = facts.options.mask_chip_key && name == KeyName::Vcek;
    let name = if masked { KeyName::None } else { name };
    let mut report = report::unsigned(facts, &request.report_data, request.vmpl, name);
    if !masked {
        report::sign(&mut report, key);
    }
    Ok(report)
}

fn key_for(facts: &GuestFacts, keys: &SigningKeys, request: &KeyRequest, caller_vmpl: u8) -> Result<DerivedKey, u32> {
    let options = &facts.options;
    if request.vmpl < u32::from(caller_vmpl) || request.vmpl > 3 || request.guest_svn > facts.guest_svn {
        return Err(STATUS_INVALID_PARAMETERS);
    }
    let tcb = TcbVersion::from_raw(request.tcb_version, options.product.tcb_layout())
        .map_err(|_| STATUS_INVALID_PARAMETERS)?;
    if !options.tcb.committed.at_least(tcb) || request.launch_mit_vector & !options.launch_mit_vector != 0 {
        return Err(STATUS_INVALID_PARAMETERS);
    }
    // No migration agent is associated with this guest, so there is no VMRK.
    if request.root == RootKey::Vmrk {
        return Err(STATUS_INVALID_PARAMETERS);
    }
    let root = match (request.key, &keys.vlek_root) {
        (KeySelect::Vlek | KeySelect::VlekOrVcek, Some(root)) => root,
        (KeySelect::Vlek, None) => return Err(STATUS_INVALID_KEY),
        (KeySelect::Vcek | KeySelect::VlekOrVcek, _) => &keys.vcek_root,
    };
    let select = request.fields.0.to_le_bytes();
    let vmpl = request.vmpl.to_le_bytes();
    let policy = options.policy.to_le_bytes();
    let guest_svn = request.guest_svn.to_le_bytes();
    let tcb = request.tcb_version.to_le_bytes();
    let mitigations = request.launch_mit_vector.to_le_bytes();
    let selectable: [(u64, &[u8]); 7] = [
        (GuestFieldSelect::POLICY, &policy),
        (GuestFieldSelect::IMAGE_ID, &facts.image_id),
        (GuestFieldSelect::FAMILY_ID, &facts.family_id),
        (GuestFieldSelect::MEASUREMENT, facts.measurement.as_bytes()),
        (GuestFieldSelect::GUEST_SVN, &guest_svn),
        (GuestFieldSelect::TCB_VERSION, &tcb),
        (GuestFieldSelect::LAUNCH_MIT_VECTOR, &mitigations),
    ];
    // The mask and the VMPL always enter; of the fields, those selected.
    let mut fields: Vec<&[u8]> = vec![&select, &vmpl];
    fields.extend(selectable.iter().filter(|(bit, _)| request.fields.0 & bit != 0).map(|(_, value)| *value));
    Ok(root.guest_key(&fields))
}

const VMPCK_BYTE: usize = 0x3c;
const STATUS_BAD_MEASUREMENT: u32 = 0x10;
const STATUS_INVALID_PARAMETERS: u32 = 0x16;
const STATUS_AEAD_OVERFLOW: u32 = 0x1d;
const STATUS_INVALID_KEY: u32 = 0x27;
/// GHCB: invalid input.
const VMM_INVALID_INPUT: u64 = 1;
