//! The engine's hints in the words of this command line: which command or flag asks for it.

use coffer_runtime::engine::Hint;

/// What to type.
pub fn of(hint: &Hint) -> String {
    match hint {
        Hint::PullImage { name } => format!("pull it with `coffer pull {name}`, or drop --pull never"),
        Hint::UnpauseBox { name } => format!("let it go on with `coffer unpause {name}`"),
        Hint::StartBox { name } => format!("start it with `coffer start {name}`"),
        Hint::ListBoxes => "coffer ps -a lists boxes".to_owned(),
        Hint::StopFirst => "stop it first, or remove it with -f".to_owned(),
        Hint::KillOrStop => "`coffer kill BOX` ends it at once, `coffer stop BOX` sends its stop signal".to_owned(),
        Hint::MoreMemory => "give the box four times that with --memory".to_owned(),
        Hint::BindVolume { path } => format!("add --volume HOST:{path}:ro"),
        Hint::NameVolume { path } => format!("add --volume NAME:{path}, with :ro or :nocopy where the spec says so"),
        Hint::SealVolume => {
            "name the broker with --kbs and --kbs-pin, or say NAME:PATH:seal=measurement-and-chip,rollback=unprotected"
                .to_owned()
        }
        Hint::ListInjected { secret } => format!("create the box with --inject {secret}"),
        Hint::PutAtBroker { name, path } => {
            format!("put it into the broker with `coffer kbs secret put {path}`, then `coffer refresh-secrets {name}`")
        }
        Hint::SignalInside { name, signal } => format!(
            "an owner with `exec` sends it from inside: `coffer exec {name} kill -{signal} 1`; `coffer kill {name}` ends it at once, \
             `coffer stop {name}` sends its stop signal"
        ),
        Hint::NamePlatform { name } => format!(
            "it runs the expected workload on another platform: `coffer inspect {name}` shows which it was started on; name that with \
             --platform DIR, if it is one that you trust"
        ),
        Hint::NameWorkload { name } => format!(
            "it runs another workload than is expected: see with `coffer inspect {name}` whether it is the box that you mean, and what \
             --expect-spec or --reference names"
        ),
        Hint::WithProcessor => "create it with --tee, or with --tee-simulate for development".to_owned(),
        Hint::WithProcessorOrNoIdBlock => "add --tee-simulate or --tee, or leave the ID block away".to_owned(),
        Hint::AllowSimulator => "--tee-simulate allows it".to_owned(),
        Hint::BelieveSimulator => {
            "this box is simulated: with --allow-simulated the simulator of this installation is believed".to_owned()
        }
        Hint::BelieveSomeSimulator => {
            "simulated evidence is believed with --allow-simulated alone, and that of another installation's \
             simulator with --anchor FILE beside it"
                .to_owned()
        }
        Hint::NameGuest => {
            "name it with --reference FILE: the output of `coffer measure --json`, or a signed manifest".to_owned()
        }
        Hint::AnotherGuest => {
            "it is a genuine guest, and none of those that --reference names: the file is of another workload or \
             platform, or the address is not the box's"
                .to_owned()
        }
        Hint::PublishForOwners => {
            "does the box run? On its host `coffer run -p PORT:owners` publishes the port, and `coffer port BOX owners` says where"
                .to_owned()
        }
        Hint::ListOwner { act } if Hint::host_may(*act) => {
            format!("create the box with --owner listing your key for {act}, or with --host-may {act}")
        }
        Hint::ListOwner { act } => format!("create the box with --owner listing your key for {act}"),
        Hint::Words(words) => words.clone(),
        other => other.to_string(),
    }
}
