//! The Rego engine with everything taken out that reaches outside the input or grows without bound.

use core::{num::NonZeroU32, time::Duration};

use regorus::{
    Engine, Value,
    utils::limits::{ExecutionTimerConfig, PolicyLengthConfig},
};

/// Wall-clock budget of one evaluation. The engine looks at the clock every [`CHECK_INTERVAL`] steps.
pub const TIME_LIMIT: Duration = Duration::from_millis(250);
/// Longest policy text, in bytes.
pub const POLICY_LIMIT: usize = 256 * 1024;
/// Longest input, in bytes of JSON.
pub const INPUT_LIMIT: usize = 1024 * 1024;

const CHECK_INTERVAL: NonZeroU32 = NonZeroU32::new(64).expect("not zero");
/// Longest array a policy may make out of two numbers.
const RANGE_LIMIT: i64 = 4096;

/// Functions that would make the same input give different answers, or that talk to the world; each fails the policy.
/// An extension comes before a function of the same name, so this holds whatever the engine is built with.
const FORBIDDEN: &[(&str, u8)] = &[
    ("time.now_ns", 0),
    ("rand.intn", 2),
    ("uuid.rfc4122", 1),
    ("opa.runtime", 0),
    ("http.send", 1),
    ("net.lookup_ip_addr", 1),
    ("test.sleep", 1),
    ("print", 1),
    ("trace", 1),
];

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
    for (name, arguments) in FORBIDDEN {
        engine.add_extension((*name).into(), *arguments, Box::new(move |_: Vec<Value>| Err(forbidden(name))))?;
    }
    engine.add_extension("numbers.range".into(), 2, Box::new(range))?;
    engine.add_extension(
        "numbers.range_step".into(),
        3,
        Box::new(|_: Vec<Value>| Err(forbidden("numbers.range_step"))),
    )?;
    Ok(engine)
}

fn forbidden(name: &str) -> anyhow::Error {
    anyhow::anyhow!("{name} is not available to policies: the same input must give the same answer")
}

/// `numbers.range` with a bound; the engine's own reserves memory for whatever two numbers it is given.
#[allow(clippy::needless_pass_by_value, reason = "the signature regorus calls")]
fn range(arguments: Vec<Value>) -> anyhow::Result<Value> {
    let bounds: Vec<i64> = arguments.iter().map(Value::as_i64).collect::<anyhow::Result<_>>()?;
    let [first, last] = bounds[..] else {
        anyhow::bail!("numbers.range takes two integers");
    };
    if first.checked_sub(last).is_none_or(|distance| distance.abs() >= RANGE_LIMIT) {
        anyhow::bail!("numbers.range makes at most {RANGE_LIMIT} numbers");
    }
    let numbers: Vec<Value> = if first <= last {
        (first..=last).map(Value::from).collect()
    } else {
        (last..=first).rev().map(Value::from).collect()
    };
    Ok(Value::from(numbers))
}
