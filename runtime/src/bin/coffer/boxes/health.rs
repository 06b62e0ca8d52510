//! Flags about how a box's health is looked at.

use coffer_runtime::health::HealthWords;

use crate::boxes::filters::ago;

/// How its health is looked at.
#[derive(Debug, clap::Args)]
pub struct HealthFlags {
    /// Look at its health by this line for the box's shell, again and again: 0 is healthy. `coffer ps` and `inspect` show it, and nothing
    /// else comes of it. For boxes whose host may exec.
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_cmd: Option<String>,
    /// Time between looks [default: the image's, or 30s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_interval: Option<u64>,
    /// Time for one look [default: the image's, or 30s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_timeout: Option<u64>,
    /// Failures, one after the other, that make it unhealthy [default: the image's, or 3].
    #[arg(long, value_name = "N", conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_retries: Option<u32>,
    /// Time after its start in which failures do not count [default: the image's, or 0].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_start_period: Option<u64>,
    /// Time between looks in that time [default: the image's, or 5s].
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "no_healthcheck", help_heading = HEADING)]
    health_start_interval: Option<u64>,
    /// Do not look, whatever the image says.
    #[arg(long, help_heading = HEADING)]
    no_healthcheck: bool,
}

const HEADING: &str = "Health";

/// Milliseconds of a time such as `30s`.
fn time(text: &str) -> Result<u64, &'static str> {
    let ms = if text == "0" { Some(0) } else { ago(text) };
    ms.and_then(|ms| u64::try_from(ms).ok())
        .filter(|ms| *ms <= LONGEST_MS)
        .ok_or("expected a time such as 30s or 1m30s, at most 24h")
}

const LONGEST_MS: u64 = 24 * 3_600_000;

impl HealthFlags {
    /// As the engine takes it.
    pub fn words(&self) -> HealthWords {
        HealthWords {
            none: self.no_healthcheck,
            command: self.health_cmd.clone().filter(|line| !line.is_empty()),
            interval_ms: self.health_interval,
            timeout_ms: self.health_timeout,
            start_period_ms: self.health_start_period,
            start_interval_ms: self.health_start_interval,
            retries: self.health_retries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_docker_reads_them() {
        assert_eq!([time("0"), time("90ms"), time("1m30s")], [Ok(0), Ok(90), Ok(90_000)]);
        for bad in ["", "10", "-1s", "1x", "25h"] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }
}
