//! The Rego engine with everything taken out that reaches outside the input or grows without bound.

use core::{num::NonZeroU32, time::Duration};

use regorus::{
    Engine,
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig},
};

use crate::builtins;

/// Wall-clock budget of one evaluation. The engine looks at the clock at every step.
pub const TIME_LIMIT: Duration = Duration::from_millis(250);
/// Longest policy text, in bytes.
pub const POLICY_LIMIT: usize = 256 * 1024;
/// Longest input, in bytes of JSON.
pub const INPUT_LIMIT: usize = 1024 * 1024;

// One step can do much, such as multiply long numbers: none runs unseen.
const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::MIN;

/// An engine within limits, without a policy.
pub(crate) fn bounded() -> anyhow::Result<Engine> {
    let mut engine = Engine::new();
    engine.set_rego_v0(false);
    engine.set_execution_timer_config(ExecutionTimerConfig { limit: TIME_LIMIT, check_interval: CHECK_INTERVAL });
    let mut lengths = PolicyLengthConfig::default();
    if let Some(limit) = core::num::NonZeroUsize::new(POLICY_LIMIT) {
        lengths.max_file_bytes = limit;
    }
    engine.set_policy_length_config(lengths);
    engine.set_strict_builtin_errors(true);
    engine.set_gather_prints(true);
    builtins::replace_all(&mut engine)?;
    Ok(engine)
}
