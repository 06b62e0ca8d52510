//! What is to be known before anything is entrusted to hardware: the first line of every such launch.

use coffer_rim::Failure;
use coffer_runtime::BoxState;
use coffer_runtime::engine::{Engine, check_hardware};
use coffer_spec::Tee;

/// Says it of a box that is made.
pub fn say_of(tee: Tee) {
    if let Some(note) = unproven(tee, check_hardware) {
        eprintln!("coffer: {note}");
    }
}

/// Says it of a box that is started. Of one that is not there, the start itself says enough.
pub fn say_of_start(engine: &Engine, name: &str) {
    if let Ok(record) = engine.find(name) {
        say_of(launched(record.state, record.options.tee));
    }
}

/// Says it of a box that is stopped and started.
pub fn say_of_restart(engine: &Engine, name: &str) {
    if let Ok(record) = engine.find(name) {
        say_of(record.options.tee);
    }
}

/// What a start launches on: nothing, if the box runs already.
fn launched(state: BoxState, tee: Tee) -> Tee {
    if state == BoxState::Running { Tee::None } else { tee }
}

/// Where there is no hardware, the refusal says enough.
fn unproven(tee: Tee, check: impl Fn(Tee) -> Result<(), Failure>) -> Option<&'static str> {
    (tee == Tee::Snp && check(tee).is_ok()).then_some(
        "this release has not been run on SEV-SNP hardware by its authors; docs/snp-host.md says what has run where",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_rim::Class;

    #[test]
    fn a_launch_on_hardware_says_first_that_it_is_unproven() {
        let there = |_| Ok(());
        let absent = |_| Err(Failure::new(Class::Platform, "none here"));
        assert!(unproven(Tee::Snp, there).unwrap().contains("not been run on SEV-SNP hardware"));
        assert_eq!(unproven(Tee::Snp, absent), None);
        assert_eq!(unproven(Tee::Simulated, there), None);
        assert_eq!(unproven(Tee::None, there), None);
    }

    #[test]
    fn a_later_start_says_it_too_and_a_box_that_runs_is_not_launched() {
        for state in [BoxState::Created, BoxState::Exited] {
            assert!(unproven(launched(state, Tee::Snp), |_| Ok(())).is_some(), "{state:?}");
        }
        assert_eq!(unproven(launched(BoxState::Running, Tee::Snp), |_| Ok(())), None);
    }
}
