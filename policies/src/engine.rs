//! The Rego engine with everything taken out that reaches outside the input or grows without bound.

use core::{num::NonZeroU32, time::Duration};

use regorus::{
    Engine, LimitError,
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig},
};

use crate::{builtins, time::TIME_LIMIT};

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
    may_take(&mut engine, TIME_LIMIT);
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

/// From now on an evaluation is cut off after so much wall time. The engine looks at the clock at every step.
pub(crate) fn may_take(engine: &mut Engine, limit: Duration) {
    engine.set_execution_timer_config(ExecutionTimerConfig { limit, check_interval: CHECK_INTERVAL });
}

/// True for an evaluation that was cut off.
pub(crate) fn was_cut_off(error: &anyhow::Error) -> bool {
    let is_limit = |error: &LimitError| matches!(error, LimitError::TimeLimitExceeded { .. });
    error.chain().any(|cause| cause.downcast_ref().is_some_and(is_limit)) || error.to_string().contains(CUT_OFF)
}

/// What the engine says of it where it wrote the error anew, with its place.
const CUT_OFF: &str = "execution exceeded time limit";
